"""Reading traces: every form gives the same columns, memory stays bounded, and what is wrong is said in one line."""

import gzip
import importlib.util
import json
import os
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwmodels.units import MIB
from numerics.traces import events, window
from numerics.traces.events import EventReader
from numerics.traces.trace import LAUNCH, Trace, nanoseconds, read_trace
from numerics.traces.window import TraceError

TINY = Path(__file__).parent / "two_streams.json"
LONG = "x" * 500
KERNEL = '{"ph": "X", "cat": "kernel", "name": "k", "ts": 1, "dur": 2, "pid": 0, "tid": 7}'


def broken(good: str, bad: str) -> bytes:
    """A trace of one kernel that says `bad` for `good`."""
    return f"[{KERNEL.replace(good, bad)}]".encode()


def written(folder: Path, text: str | bytes, name: str = "trace.json") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def same(a: Trace, b: Trace) -> bool:
    tables = ((a.device, b.device), (a.host, b.host))
    return a.texts == b.texts and all(np.array_equal(x[key], y[key]) for x, y in tables for key in x)


def test_columns_hold_what_the_file_says() -> None:
    trace = read_trace(TINY)
    assert (trace.kernels, trace.events, trace.sms(), trace.device_name()) == (5, 16, 10, "Made-up GPU")
    assert trace.device["start_ns"].tolist() == [100_000, 120_000, 142_000, 200_000, 240_000]
    assert trace.device["duration_ns"].tolist() == [40_000, 60_000, 8_000, 32_000, 0]
    assert trace.device["correlation"].tolist() == [11, 12, 13, 21, 99]
    assert trace.device["grid_x"].tolist() == [8, 2, 8, 8, 0]
    assert trace.device["kind"].tolist() == [0, 0, 0, 0, 2]
    assert trace.threads == (("1", "1"), ("1", "2"))
    assert int((trace.host["kind"] == LAUNCH).sum()) == 4, "cudaEventRecord launches nothing"
    assert trace.head["distributedInfo"]["world_size"] == 2


def test_plain_gzip_object_and_array_form_are_one_trace(tmp_path: Path) -> None:
    whole = read_trace(TINY)
    listed = json.dumps(json.loads(TINY.read_text())["traceEvents"])
    packed = tmp_path / "trace.json.gz"
    packed.write_bytes(gzip.compress(TINY.read_bytes()))
    assert same(whole, read_trace(packed))
    assert same(whole, read_trace(written(tmp_path, listed)))
    assert same(whole, read_trace(written(tmp_path, listed[:-1]))), "the format lets a bare array end without a bracket"
    assert same(whole, read_trace(written(tmp_path, "\ufeff" + listed)))
    old = listed.replace('"cat": "kernel"', '"cat": "Kernel"').replace('"cat": "cuda_runtime"', '"cat": "Runtime"')
    assert same(whole, read_trace(written(tmp_path, old)))


def test_times_keep_their_nanoseconds() -> None:
    assert nanoseconds(1740461679470692) == 1_740_461_679_470_692_000
    assert nanoseconds(Decimal("1740461679470692.125")) == 1_740_461_679_470_692_125
    assert nanoseconds(0.001) == 1 and nanoseconds("2.5") == 2500
    for bad in (float("nan"), float("inf"), "soon"):
        with pytest.raises((ValueError, ArithmeticError)):
            nanoseconds(bad)


def test_long_fractions_survive_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, KERNEL.replace('"ts": 1', '"ts": 1740461679470692.125').join("[]"))
    assert read_trace(path).device["start_ns"].tolist() == [1_740_461_679_470_692_125]


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.dictionaries(st.text(max_size=5), values, max_size=4), max_size=12), st.integers(1, 70), st.booleans()
)
def test_a_window_of_any_size_reads_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory, found: list[dict[str, object]], chunk: int, ascii_only: bool
) -> None:
    path = tmp_path_factory.mktemp("window") / "trace.json"
    whole = {"before": [1, {"a": "é"}], "traceEvents": found, "after": "x"}
    path.write_text(json.dumps(whole, ensure_ascii=ascii_only, indent=chunk % 3 or None), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "CHUNK_BYTES", chunk)
        reader = EventReader(path)
        assert list(reader) == found
    assert reader.head == {"before": [1, {"a": "é"}], "after": "x"}


@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_every_cut_is_an_error_of_one_line_with_a_byte(
    tmp_path: Path, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window, "CHUNK_BYTES", chunk)
    text = f'{{"a": [1, "b\\u00e9"], "traceEvents": [{KERNEL}, {KERNEL}], "n": 12}}'
    assert read_trace(written(tmp_path, text)).kernels == 2
    for size in range(1, len(text)):
        with pytest.raises(TraceError) as found:
            read_trace(written(tmp_path, text[:size]))
        message = str(found.value)
        assert "cut short" in message and f"byte {size}:" in message and "\n" not in message, message


def test_a_cut_or_damaged_gzip_is_an_error(tmp_path: Path) -> None:
    packed = gzip.compress(json.dumps([json.loads(KERNEL) | {"name": str(i)} for i in range(500)]).encode())
    with pytest.raises(TraceError, match="cut short"):
        read_trace(written(tmp_path, packed[: len(packed) // 2]))
    flipped = packed[:200] + bytes([packed[200] ^ 255]) + packed[201:]
    with pytest.raises(TraceError, match=r"damaged|malformed|cut short|UTF-8"):
        read_trace(written(tmp_path, flipped))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\t ", "is empty"),
        (b"<html></html>", r"byte 0: not a Chrome trace: begins with '<html>"),
        (b"\n phase,us\n", r"byte 2: not a Chrome trace"),
        (b"PK\x03\x04rest", "a zip archive"),
        (b"BZh91AY&SY", "packed with bzip2; unpack it first"),
        (b"\x28\xb5\x2f\xfd\x04", "packed with zstd; unpack it first"),
        (b"SQLite format 3\x00", "an SQLite database .Nsight Systems"),
        ('{"traceEvents": []}'.encode("utf-16"), "is UTF-16 text; save it as UTF-8"),
        (b"\x0a\x0b\x08\x01\x12\x07android\x1a\x00", "is a binary file, begins with 0a 0b 08 01"),  # Perfetto
        (b"\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7f", "is a binary file, begins with 18 00"),  # TensorBoard
        (b"[" + b" " * 80 + b"\xff]", "byte 81: not UTF-8 text"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(b"\x00binary", mtime=0), "is a binary file, begins with 00 62"),
        (b"\x1f\x8b", "the gzip stream is cut short at byte 2; copy it again"),
        (gzip.compress(b"[]", mtime=0) + b"garbage", "is damaged before byte .*; copy it again"),
        (b'"text"', "not a Chrome trace: begins with '\"text"),
        (b"null", "not a Chrome trace: begins with 'null'"),
        (b'{"traceEvents": null}', r"byte 16: traceEvents is not a list of events, found 'null"),
        (b'{"traceEvents": "no"}', "byte 16: traceEvents is not a list of events"),
        (b'{"traceEvents": [null]}', "byte 17: an event is an object, found NoneType"),
        (b'[{"ts": ' + b"1" * 5000 + b"}]", "byte 1: malformed: a number of thousands of digits"),
        (b"\x0a\xff\xfe\x01binary", "is a binary file, begins with 0a ff fe 01"),
        (b'{"displayTimeUnit": "ms"}', r"no traceEvents \(keys found: displayTimeUnit\)"),
        (b"[]", "0 events, but no kernels"),
        (b'[{"ph": "X", "cat": "gc", "ts": 1, "dur": 1}]', r"no kernels and no CPU operators \(categories found: gc\)"),
        (b"[1, 2]", r"byte 1: an event is an object, found int '1'"),
        (b'[{"ph": "X"} {"ph": "X"}]', r"byte 13: malformed: expected ',', found '\{\"ph\""),
        (
            b'[{"ph": "X", "ts": oops, "name": "padding so long that it cannot be a cut"}]',
            "byte 19: malformed: Expecting",
        ),
        (b'{"traceEvents": {}}', r"byte 16: traceEvents is not a list of events, found '\{\}\}'"),
        (b'{"traceEvents": []} more', "byte 20: text after the end"),
        (KERNEL.replace('"dur": 2, ', "").join("[]").encode(), r"byte 1: kernel event 'k': .*no 'dur'"),
        (KERNEL.replace('"ts": 1, ', "").join("[]").encode(), r"byte 1: kernel event 'k': .*no 'ts'"),
        (broken('"dur": 2', '"dur": -2'), r"byte 1: kernel event 'k': .*'dur' -2 is negative"),
        (broken('"ts": 1', '"ts": true'), "byte 1: kernel event 'k': .*not a time"),
        (broken('"ts": 1', '"ts": "soon"'), "byte 1: kernel event 'k': .*'soon' is not a time"),
        (broken('"ts": 1', '"ts": 1e999999'), "byte 1: kernel event 'k': .*not a time"),
        (broken('"ts": 1', '"ts": 5e15'), "byte 1: kernel event 'k': .*over a hundred years"),
        (broken('"pid": 0', '"pid": 0, "args": {"grid": 5}'), "byte 1: kernel event 'k'"),
        (broken('"pid": 0', '"pid": 0, "args": {"grid": [4e9]}'), "byte 1: kernel event 'k'"),
        (broken('"ts": 1', '"ts": NaN'), "byte 1: kernel event 'k': .*not a time"),
        (broken('"tid": 7', '"tid": "main"'), "byte 1: kernel event 'k'"),
        (broken('"ts": 1', '"ts": 1' + "0" * 30), "byte 1: kernel event 'k'"),
        (b"[" * 200_000, "nested too deeply|cut short|found list"),
    ],
)
def test_what_is_no_trace_is_said_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(TraceError, match=says) as found:
        read_trace(path)
    assert "\n" not in str(found.value) and str(path) in str(found.value)


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="cannot be read: No such file"):
        read_trace(tmp_path / "none.json")


def test_what_is_no_file_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TraceError, match="is a directory; expected a trace"):
        read_trace(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(TraceError, match="is not a regular file"):
        read_trace(tmp_path / "pipe")

    def forbidden(self: Path, mode: str) -> None:
        raise PermissionError(13, "Permission denied")

    path = written(tmp_path, "[]")
    monkeypatch.setattr(Path, "open", forbidden)  # root, which may run this, can read everything
    with pytest.raises(TraceError, match=r"trace\.json: cannot be read: Permission denied"):
        read_trace(path)


def test_numbers_may_be_texts_and_texts_may_hold_what_no_file_can(tmp_path: Path) -> None:
    odd = KERNEL.replace('"k"', '"\\ud800k"').replace('"ts": 1', '"ts": "1.5"').replace('"tid": 7', '"tid": "7.0"')
    trace = read_trace(written(tmp_path, f"[{odd}]"))
    assert trace.texts == ("?k",) and trace.device["start_ns"].tolist() == [1500]
    assert trace.device["stream"].tolist() == [7]


def test_the_share_that_was_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "CHUNK_BYTES", 4096)
    monkeypatch.setattr("numerics.traces.trace.WATCHED_EVENTS", 100)
    text = f"[{', '.join([KERNEL] * 5000)}]".encode()
    for content in (text, gzip.compress(text, 0, mtime=0)):
        shares: list[float] = []
        read_trace(written(tmp_path, content), shares.append)
        assert len(shares) == 50 and shares == sorted(shares)
        assert shares[0] < 0.1 and 0.4 < shares[25] < 0.6 and 0.9 < shares[-1] <= 1


def test_the_byte_counts_bytes_over_windows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(window, "CHUNK_BYTES", 64)
    good = KERNEL.replace('"k"', '"ééé"')
    text = f"[{', '.join([good] * 50)}, 17]"
    with pytest.raises(TraceError, match=f"byte {len(text.encode()) - 3}: an event is an object"):
        read_trace(written(tmp_path, text))


def test_an_event_without_end_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "VALUE_CHARACTERS", 2 << 20)
    path = written(tmp_path, '[{"name": "' + "x" * (9 << 20))
    tracemalloc.start()
    with pytest.raises(TraceError, match=r"byte 1: a value of more than 2 MiB \(keys found: name\); is this"):
        read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_a_file_of_nothing_but_names_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numerics.traces.trace.TEXT_CHARACTERS", 1 << 20)
    text = "[" + ", ".join(KERNEL.replace('"k"', f'"{i} {LONG}"') for i in range(3000)) + "]"
    with pytest.raises(TraceError, match=r"more than 1 MiB .*is this a trace\?"):
        read_trace(written(tmp_path, text))


# --- files of other forms, of any size --------------------------------------------------------------------------------

NODE = {"id": 1, "name": 'a "quoted\\" {[ name', "inputs": {"values": [0] * 40, "of": [{"deep": "}"}]}}
EIGHTH = {(events, "HEAD_CHARACTERS"): MIB // 2, (window, "CHUNK_BYTES"): MIB // 8}
"""Limits an eighth of those that stand, so that a file beyond them is an eighth as large."""


@pytest.fixture
def eighth(monkeypatch: pytest.MonkeyPatch) -> None:
    for (module, name), size in EIGHTH.items():
        assert getattr(module, name) == 8 * size
        monkeypatch.setattr(module, name, size)


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        ({"schema": "1.1", "pid": 1, "nodes": [NODE] * 7_500}, r"\(keys found: nodes, pid, schema\); it is an exec"),
        ({"rocprofiler-sdk-tool": [NODE] * 7_500}, r"\(keys found: rocprofiler-sdk-tool\); it is an output of"),
        ({"first": "x" * (9 * MIB // 8), "second": 5}, r"\(keys found: first, second\); expected"),
        ({f"key {i:04}": LONG for i in range(2_500)}, r"keys found: key 0000, .*, key 0007 and 2492 more\)"),
        ({"k" * 5000: 1, "many": [1] * (3 * MIB // 8), "n": 12}, r"\(keys found: k{60}\.\.\., many, n\)"),
    ],
)  # fmt: skip
def test_the_keys_of_a_file_that_is_no_trace_are_said_however_large_it_is(
    tmp_path: Path, eighth: None, head: dict[str, object], keys: str
) -> None:
    path = written(tmp_path, json.dumps(head))
    assert path.stat().st_size > 9 * MIB // 8
    tracemalloc.start()
    with pytest.raises(TraceError, match=f"not a Chrome trace: it has no traceEvents .*{keys}") as found:
        read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "\n" not in str(found.value) and len(str(found.value)) < 900
    assert peak < 60 * MIB // 8, "the text alone has twice as many bytes for a 4 MB file, its objects ten times"


def test_a_large_value_beside_the_events_is_passed_over(tmp_path: Path, eighth: None) -> None:
    big, long = json.dumps([NODE] * 2_500), json.dumps("é" * (5 * MIB // 8))
    text = f'{{"big": {big}, "n": 1, "traceEvents": [{KERNEL}], "after": {long}}}'
    trace = read_trace(written(tmp_path, text))
    assert trace.kernels == 1 and trace.head == {"n": 1}


@settings(max_examples=40, deadline=None)
@given(values, st.integers(1, 40), st.integers(0, 30))
def test_what_is_passed_over_ends_where_the_value_ends(
    tmp_path_factory: pytest.TempPathFactory, value: object, chunk: int, room: int
) -> None:
    path = tmp_path_factory.mktemp("over") / "trace.json"
    whole = {"a": value, "b": 12, "c": "end"}
    path.write_text(json.dumps({"a": value, "b": 12, "traceEvents": [json.loads(KERNEL)], "c": "end"}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(window, "CHUNK_BYTES", chunk)
        patch.setattr(events, "HEAD_CHARACTERS", room)
        reader = EventReader(path)
        assert [event["name"] for event in reader] == ["k"]
    assert reader.head == {key: whole[key] for key in reader.head}, "what is kept is whole"


# --- devices, other categories, lost kernels --------------------------------------------------------------------------


def kernel(ts: int, device: object = 0, pid: object = 0, **args: object) -> dict[str, object]:
    return {"ph": "X", "cat": "kernel", "name": "k", "ts": ts, "dur": 10, "pid": pid, "tid": 7,
            "args": {"device": device, **args}}  # fmt: skip


def launch(name: str, correlation: int, category: str = "cuda_runtime") -> dict[str, object]:
    return {"ph": "X", "cat": category, "name": name, "ts": 1, "dur": 1, "pid": 9, "tid": 9,
            "args": {"correlation": correlation}}  # fmt: skip


def of(folder: Path, rows: list[dict[str, object]], *properties: dict[str, object]) -> Trace:
    return read_trace(written(folder, json.dumps({"deviceProperties": list(properties), "traceEvents": rows})))


H100, MI300X = {"name": "H100", "numSms": 132}, {"name": "MI300X", "numSms": 304}


@pytest.mark.parametrize(
    ("properties", "said"),
    [
        ([{"id": 0, **MI300X}], ("MI300X", 304)),
        ([{"id": 0, **MI300X}, {"id": 1, **MI300X}], ("MI300X", 304)),
        ([{"id": 3, **H100}, {"id": 0, **MI300X}], ("H100", 132)),
        ([{"id": 0, **H100}, {"id": 1, **MI300X}], ("", 0)),
        ([{"id": 0, "name": "H100"}], ("H100", 0)),
        ([], ("", 0)),
    ],
)  # fmt: skip
def test_a_device_that_is_not_numbered_as_its_properties_is_the_one_that_is_named(
    tmp_path: Path, properties: list[dict[str, object]], said: tuple[str, int]
) -> None:
    trace = of(tmp_path, [kernel(1, device=3, pid=3)], *properties)
    assert (trace.device_name(), trace.sms()) == said


def test_devices_are_told_apart_by_number_and_process(tmp_path: Path) -> None:
    trace = of(tmp_path, [kernel(1), kernel(2, 1, 1), kernel(3)], {"id": 0, **H100}, {"id": 1, **MI300X})
    assert trace.labels() == ("0", "1") and trace.device["device"].tolist() == [0, 1, 0]
    assert [trace.device_name(i) for i in (0, 1)] == ["H100", "MI300X"]
    assert trace.of_device("1").kernels == 1 and trace.of_device("1").device_name() == "MI300X"
    merged = of(tmp_path, [kernel(1, 0, "rank 0"), kernel(2, 0, "rank 1")])
    assert merged.labels() == ("0@rank 0", "0@rank 1")
    with pytest.raises(TraceError, match="nothing ran on device '2'; legal: 0, 1"):
        trace.of_device("2")


def test_events_of_other_categories_are_counted_with_their_time(tmp_path: Path) -> None:
    odd = {"ph": "X", "name": "x", "ts": 1, "dur": 2.5}
    rows = [kernel(1), *({**odd, "cat": cat} for cat in ("mtia_ccp_events", "mtia_ccp_events", "python_function")),
            {**odd, "cat": "hpu_op", "dur": "soon"}, {**odd, "cat": "ac2g", "ph": "s"}]  # fmt: skip
    assert of(tmp_path, rows).left_out == (("mtia_ccp_events", 2, 5000), ("hpu_op", 1, 0))


def test_launches_without_kernels_are_counted(tmp_path: Path) -> None:
    """Of calls that start kernels, graphs included; copies may move nothing, and host functions run on the host."""
    calls = [launch("cudaLaunchKernel", 1), launch("cuLaunchKernelEx", 2, "cuda_driver"), launch("cudaGraphLaunch", 3),
             launch("cudaLaunchHostFunc", 4), launch("cudaMemcpyAsync", 5),
             launch("urEnqueueKernelLaunch", 6, "xpu_runtime")]  # fmt: skip
    trace = of(tmp_path, [*calls, kernel(1, correlation=1), kernel(2, correlation=3), kernel(3, correlation=3)])
    assert (trace.launches, trace.lost) == (4, 2)
    assert of(tmp_path, [*calls, kernel(1)]).lost == 0, "kernels without ids say nothing"
    assert of(tmp_path, [*calls, {**kernel(1), "cat": "cpu_op"}]).lost == 4
    assert (read_trace(TINY).launches, read_trace(TINY).lost) == (4, 0)


def peak_of(path: Path) -> int:
    """Bytes that reading a trace takes at most, by tracemalloc."""
    tracemalloc.start()
    read_trace(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_a_longer_run_takes_no_more_memory_than_its_rows(tmp_path: Path) -> None:
    """Steps of a real trace again and again, 2 and 10 MB: what is added is the packed rows, an eighth of the text."""
    spec = importlib.util.spec_from_file_location("importing", Path(__file__).parents[2] / "bench" / "importing.py")
    assert spec and spec.loader
    importing = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(importing)
    sizes, peaks = [], []
    for mb in (2, 10):
        importing.write(tmp_path / "steps.json", mb * 1_000_000)
        sizes.append((tmp_path / "steps.json").stat().st_size)
        peaks.append(peak_of(tmp_path / "steps.json"))
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 6
    importing.write(tmp_path / "steps.json.gz", 1_000_000)
    assert same(read_trace(tmp_path / "steps.json.gz"), reread(importing, tmp_path)), "both forms hold the same steps"


def reread(importing: Any, folder: Path) -> Trace:
    importing.write(folder / "plain.json", 1_000_000)
    return read_trace(folder / "plain.json")


def test_memory_does_not_grow_with_the_text(tmp_path: Path) -> None:
    """15 MB of events, of which a few bytes each are kept (200 MB: 100 MB at most, by the same measure)."""
    path = tmp_path / "large.json"
    event = {"ph": "X", "cat": "kernel", "name": "k" * 300, "ts": 1.5, "dur": 2.5, "pid": 0, "tid": 7}
    event["args"] = {"stream": 7, "grid": [1, 2, 3], "note": "n" * 600}
    block = ",\n".join([json.dumps(event)] * 1000)
    count = (15 << 20) // len(block) + 1
    with path.open("w") as file:
        file.write('{"traceEvents": [' + ",\n".join([block] * count) + "]}")
    assert path.stat().st_size > 15 << 20
    assert peak_of(path) < 12 << 20
    assert read_trace(path).kernels == count * 1000
