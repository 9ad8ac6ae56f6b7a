"""Serving scenarios in files: what is right, what is wrong (all of it at once, a line each), traces, and the door."""

import json
import time
from pathlib import Path

import pytest

from hwmodels.document import DocumentError
from hwmodels.refused import Refused
from sim.__main__ import main
from sim.experiments import kinds
from sim.result.figures import legal
from sim.scenario.shelves import SCENARIOS
from sim.serving import files, system, traces
from tests.sim.result.test_figures import leaves
from tests.sim.serving.loads import closed, document, loaded, poisson

SHIPPED = sorted(path for path in SCENARIOS.glob("*.yaml") if kinds.kind(str(path)) == kinds.SERVE)
BASE = document(poisson(10, 1.0, 100, 10))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_what_ships_is_right(path: Path) -> None:
    assert files.load(path).scenario_hash and path.stem.startswith("serve_")


def test_others_are_no_serving_scenarios(tmp_path: Path) -> None:
    (tmp_path / "broken.yaml").write_text("serve: [")
    assert SHIPPED and not any(map(kinds.kind, ("v3_2048gpu", "nothing", str(tmp_path / "broken.yaml"))))
    assert kinds.kind("campaign_v3") == kinds.CAMPAIGN


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    (path := tmp_path / "mine.yaml").write_text("name: a\n")
    assert kinds.kind(str(path)) == ""
    path.write_text("serve: {}\n")
    assert kinds.kind(str(path)) == kinds.SERVE


def test_all_mistakes_come_at_once_with_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(
        "serve:\n  model: deepseek_v4\n  node: h800x9\n  pools: [{does: prefil, expert: 7}]\n"
        "  requests: {arivals: poisson}\n"
    )
    with pytest.raises(DocumentError) as error:
        files.load(path)
    text = str(error.value)
    for line, word in ((2, "'deepseek_v3'"), (3, "'h800x8'"), (4, "'prefill'"), (5, "'arrivals'")):
        assert any(f"bad.yaml:{line}:" in each and f"did you mean {word}" in each for each in text.splitlines())


@pytest.mark.parametrize(
    "changes, line",
    [
        (["serve.requests.rate=null"], "missing; requests that arrive by poisson need it"),
        (["serve.requests.clients=4"], "requests that arrive by poisson have none"),
        (["serve.requests={arrivals: trace, file: x.csv, prompt: 5}"], "requests that arrive by trace have none"),
        (["serve.routing={kind: sampled, max_vio: 2}"], "sampled routing has none; legal with routing.kind: skewed"),
        (["serve.routing.kind=skewed"], "missing; skewed routing needs it"),
        (["serve.routing.drift=0.1"], "has no experts to choose; legal: 0"),
        (["serve.failures.mtbf=0 s"], "found 0 s; legal: above 0, or no failures where none happen"),
        (["serve.pools=[{does: prefill}]"], "found prefill; legal: pools that do both"),
        (["serve.pools.0.tensor=3"], "model.heads 32 cannot be divided by tensor 3"),
        (["serve.node={base: h800x8, gpus: 6}", "serve.pools.0.tensor=8"], "legal: 1 to 6 (the GPUs of a node)"),
        (["serve.pools.0.expert=8"], "the model has no experts; legal: 1"),
        (["serve.model=deepseek_v3", "serve.pools.0.expert=512"], "512 ranks for 256 experts and 0 copies"),
        (["serve.model=deepseek_v3", "serve.pools.0.expert=24"], "cannot be divided by expert 24"),
        (["serve.model=deepseek_v3"], "weights take"),
        (["serve.requests.prompt=9000000"], "does not fit: the cache of an attention group holds"),
        (["serve.model=nemotron_h_8b"], "layers of Mamba-2, which are not served"),
        (["serve.node=a100x8", "serve.precision=fp8"], "has no fp8 tensor cores; legal: bf16"),
        (["serve.speculation.depth=1"], "has no prediction heads to draft by; legal: 0"),
        (["serve.cache.attention=fp8"], "found bf16; attention in fp8 needs fp8"),
        (["serve.cache.attention=fp8", "serve.cache.format=fp8"], "has no attention on latents; legal: bf16"),
        (["serve.cache.preempt=swap"], "missing; sequences that are swapped go there"),
        (["serve.cache.host=10 GB"], "nothing goes there; legal: 0 unless prefix is above 0 or preempt is swap"),
        (["serve.pools.0.overlap=true"], "nothing is exchanged"),
        (["serve.pools.0.redundant_experts=8"], "copies need ranks of their own"),
        (["serve.routing.kind=sampled"], "has no experts to choose; legal: balanced"),
        (["serve.fabric=null", "serve.model=deepseek_v3", "serve.pools.0.expert=16"], "instances of more than a node"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_a_line(changes: list[str], line: str) -> None:
    with pytest.raises(DocumentError) as error:
        loaded(BASE, *changes)
    assert line in str(error.value) and len(str(error.value).splitlines()) <= 3


def test_the_hash_is_of_what_decides() -> None:
    one, named, other = loaded(BASE), loaded(BASE, name="other"), loaded(BASE, seed=1)
    assert one.scenario_hash == named.scenario_hash != other.scenario_hash
    assert loaded(document(closed(4, 2, 10, 10))).scenario_hash != one.scenario_hash


FORMATS = {
    "csv": "arrival_s,prompt,output\n0.5,100,10\n1.5,200,0\n",
    "azure": "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.5000000,100,10\n"
             "2023-11-16 18:15:47.5000000,200,0\n",
    "burstgpt": "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
                "5,ChatGPT,100,10,110,Conversation log\n6,GPT-4,200,0,200,API log\n",
    "mooncake": '{"timestamp": 0, "input_length": 100, "output_length": 10, "hash_ids": [1]}\n'
                '{"timestamp": 1000, "input_length": 200, "output_length": 0, "hash_ids": [1]}\n',
}  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_traces_of_each_kind(form: str, tmp_path: Path) -> None:
    """A second apart; an answer of no tokens counts as one."""
    path = tmp_path / "trace"
    path.write_text(FORMATS[form])
    one, other = traces.read(str(path), form)
    assert other.arrival_s - one.arrival_s == 1.0
    assert (one.prompt, one.output, other.prompt, other.output) == (100, 10, 200, 1)
    assert one.blocks == ((1,) if form == "mooncake" else ())


def test_traces_that_ship() -> None:
    """As the facts measured them: requests, duration, and means of prompts and answers; compressed ones are read."""
    code = traces.read(str(SCENARIOS / "traces" / "azure_2023_code.csv.xz"), "azure")
    asked = traces.read(str(SCENARIOS / "traces" / "mooncake_conversation.jsonl.xz"), "mooncake")
    assert (len(code), len(asked)) == (8819, 12031)
    prompts, answers = ([sum(row[i] for row in rows) / len(rows) for rows in (code, asked)] for i in (1, 2))
    assert [round(mean) for mean in prompts] == [2048, 12035] and [round(mean) for mean in answers] == [28, 343]
    assert 56 < (code[-1].arrival_s - code[0].arrival_s) / 60 < 58 and asked[-1].arrival_s < 3600
    seen: set[int] = set()
    hits = sum(sum(name in seen or bool(seen.add(name)) for name in row.blocks) for row in asked)  # type: ignore[func-returns-value]
    assert round(100 * hits / sum(len(row.blocks) for row in asked), 1) == 36.6


def test_a_broken_archive_is_a_line(tmp_path: Path) -> None:
    for name in ("trace.xz", "trace.gz"):
        (path := tmp_path / name).write_bytes(b"no archive")
        with pytest.raises(Refused, match="cannot be read"):
            traces.read(str(path), "csv")


@pytest.mark.parametrize(
    "form, text, line",
    [
        ("csv", "arrival,prompt,output\n", ":1: has no column arrival_s, did you mean 'arrival'?"),
        ("csv", "arrival_s,prompt,output\n1,two,3\n", ": prompt: expected a whole number; found 'two'"),
        ("csv", "arrival_s,prompt,output\n1,2\n", ":2: is no request: output: expected a whole number; found ''"),
        ("csv", "arrival_s,prompt,output\n1,2,1e9\n", ":2: is no request: output: expected a whole number"),
        ("csv", "arrival_s,prompt,output\n1,99999999999,1\n", "legal: 0 or more each, up to 4e+09 s and 2147483648"),
        ("csv", "arrival_s,prompt,output\ninf,1,1\n", ":2: is no request: found inf s"),
        ("csv", f"arrival_s,prompt,output\n1,{'2' * 200_000},1\n", ":2: is no line of a table: field larger"),
        ("csv", "\0arrival_s,prompt,output\n1,1,1\n", "has no column arrival_s"),
        ("mooncake", '{"timestamp": 1, "input_length": [1], "output_length": 1}\n', "input_length: expected a whole"),
        ("mooncake", '{"timestamp": 1, "input_length": 1, "output_length": 1, "hash_ids": 3}', "hash_ids: expected a"),
        ("mooncake", "[" * 100_000, ":1: is no request of a mooncake trace"),
        ("csv", "arrival_s,prompt,output\n1,2,-3\n", ":2: is no request: found 1 s, 2 and -3 tokens"),
        ("csv", "arrival_s,prompt,output\n", "has no requests"),
        ("csv", "arrival_s,prompt,output\nnan,1,1\n", ":2: is no request"),
        ("mooncake", '{"timestamp": 1}\n', ":1: is no request of a mooncake trace: 'input_length' is missing"),
        ("mooncake", "[]\n{", ":1: is no request of a mooncake trace"),
        ("azure", "TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,1\n", "TIMESTAMP: expected a date and a time"),
        ("csv", "arrival_s,prompt,output\n1,5,100,10\n", ":2: is no request: found 4 values for 3 columns"),
        ("csv", "arrival_s,prompt,output,prompt\n1,5,100,10\n", ":1: has 2 columns prompt; legal: one"),
        ("mooncake", '{"timestamp": 1, "input_length": 1024, "output_length": 1, "hash_ids": [1, 2, 3]}\n',
         ":1: is no request of a mooncake trace: hash_ids: found 3 blocks of 512 tokens for a prompt of 1024"),
    ],
)  # fmt: skip
def test_bad_traces_are_a_line(form: str, text: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text(text)
    with pytest.raises(Refused) as error:
        traces.read(str(path), form)
    assert line in str(error.value) and "\n" not in str(error.value)


def test_dates_are_utc_wherever_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Azure writes them: a whole second has no fraction, seven digits are cut to microseconds, a zone is kept."""
    lines = "2024-05-10 00:00:00.500000+00:00,1,1\n2024-05-10 00:00:01+00:00,1,1\n2024-05-10 00:00:02.0000009,1,1\n"
    (path := tmp_path / "trace").write_text(f"TIMESTAMP,ContextTokens,GeneratedTokens\n{lines}"
                                            "2024-05-10 02:00:03.00+02:00,1,1\n")  # fmt: skip
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        times = [row.arrival_s for row in traces.read(str(path), "azure")]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert [each - 1715299200 for each in times] == [0.5, 1, 2, 3]


@pytest.mark.parametrize(
    "requests, line",
    [
        ({"speed": 1e-15}, "serve.requests.speed: the last request would come after 1e+15 s; legal: up to 4e+09 s"),
        ({"count": 3}, "serve.requests.count: found 3; the trace has 2; legal: up to that, 0 for all of it"),
    ],
)
def test_a_trace_that_cannot_be_asked_so_is_a_line(requests: dict[str, float], line: str, tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("arrival_s,prompt,output\n0,1,1\n1,1,1\n")
    own = {"arrivals": "trace", "file": str(tmp_path / "trace.csv"), "format": "csv", **requests}
    with pytest.raises(Refused) as error:
        system.run(loaded(document(own)))
    assert line in str(error.value)


def test_arrivals_beyond_all_clocks_are_a_line() -> None:
    with pytest.raises(
        Refused, match=r"serve.requests.rate: the last request would come after .* legal: up to 4e\+09 s"
    ):
        system.run(loaded(document(poisson(3, 1e-12, 1, 1))))


def test_columns_with_blanks_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("\ufeff arrival_s , prompt, output\n\n 1.5, 3 ,4\n", encoding="utf-8")
    assert traces.read(str(path), "csv") == [traces.Row(1.5, 3, 4)]


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run answers under `serve`, the same bytes again; check says what is wrong; a trace that is not there is one
    line and exit 2."""
    path = tmp_path / "small.yaml"
    path.write_text(json.dumps(BASE))
    folders = tmp_path / "one", tmp_path / "two"
    assert [main([str(path), "--out", str(folder), "-q"]) for folder in folders] == [0, 0]
    for name in ("result.json", "scenario.yaml", "requests.csv", "trace.json.gz", "report.html"):
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    told = json.loads((folders[0] / "result.json").read_text())
    keys = set(leaves({"serve": told["serve"]}))
    assert [key for key in keys if not legal(key)] == []
    assert told["serve"]["requests"] == 10 and told["scenario_hash"] == loaded(BASE).scenario_hash
    assert main(["run", str(path), "--out", str(folders[0])]) == 0 and "time to first token" in capsys.readouterr().err
    assert main(["check", str(path)]) == 0 and "nothing wrong" in capsys.readouterr().out
    path.write_text(json.dumps(document({"arrivals": "trace", "file": "gone.csv"})))
    assert main(["check", str(path)]) == 2 and "gone.csv: cannot be read" in capsys.readouterr().err
    (tmp_path / "long.csv").write_text("arrival_s,prompt,output\n0,9000000,5\n")
    long = ["serve.requests.file=long.csv"]
    assert (
        main(["check", str(path), *long]) == 2
        and "request 0 of 9,000,005 tokens does not fit" in capsys.readouterr().err
    )
    assert main([str(path), "--out", str(tmp_path / "three")]) == 2
    error = capsys.readouterr().err.strip()
    assert "gone.csv" in error and "\n" not in error and not (tmp_path / "three").exists()


def test_the_scenario_in_a_folder_is_read_from_anywhere(tmp_path: Path) -> None:
    """A trace and a model that lie beside a scenario are found from where the run was written."""
    (tmp_path / "own.yaml").write_text("{base: deepseek_v2_lite, layers: 5}")
    (tmp_path / "trace.csv").write_text(FORMATS["csv"])
    whole = document({"arrivals": "trace", "file": "trace.csv"})
    whole["serve"]["model"] = "own.yaml"
    path, folder = tmp_path / "small.yaml", tmp_path / "out" / "deep"
    path.write_text(json.dumps(whole))
    assert main([str(path), "serve.cache.block=32", "--out", str(folder), "-q"]) == 0
    again = files.load(folder / "scenario.yaml")
    assert again.model.layers == 5 and again.cache.block == 32 and Path(again.requests.file).is_absolute()
    told = main(["compare", str(folder), str(folder), "--out", str(tmp_path / "both"), "-q"])
    assert told == 0 and (tmp_path / "both" / "compare.html").exists()


@pytest.mark.parametrize("sms", [24, 25])
def test_exchanges_of_prompts_leave_compute_an_sm(sms: int) -> None:
    """They hold 24 beside it; a card of no more has none left (sensitivity looks as far as that)."""
    path = next(path for path in SHIPPED if path.stem == "serve_v3_h800")
    words = [f"serve.node.device.sms={sms}"]
    if sms > 24:
        assert kinds.load(str(path), words)
        return
    with pytest.raises(DocumentError, match="exchanges of prompts hold 24 SMs beside compute, and H800 SXM has 24"):
        kinds.load(str(path), words)
