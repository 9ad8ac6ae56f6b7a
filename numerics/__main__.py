"""The command line of the numerics core: `python -m numerics check | bench | study | train | corpus |
calibrate | tables | accuracy | collectives | census`.

Exit codes: 0 done, 1 a check failed (or a trace and a model do not join, or a table is stale), 2 wrong input, 3 nothing
can be measured on this machine, 130 interrupted. Results go to stdout and to files, progress to stderr. Each command
imports the torch and triton that it needs; `calibrate --trace`, `calibrate --stale`, `tables`, `accuracy` and
`collectives` need neither.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from hwmodels.refused import Refused
from numerics.card.measure import NoDevice
from numerics.training import command as training

DONE, FAILED, WRONG, UNMEASURABLE, INTERRUPTED = 0, 1, 2, 3, 130
ROOT = Path(__file__).resolve().parents[1]
TABLES, MODEL = ROOT / "hwmodels" / "tables", ROOT / "scenarios" / "models" / "deepseek_v3.yaml"
SCENARIO = ROOT / "scenarios" / "v3_2048gpu.yaml"
DATA = Path("..", "shared", "data", "kernels")


class Parser(argparse.ArgumentParser):
    """argparse that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise Refused(f"{message}; see python -m numerics --help")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (default: the process's arguments) say; the answer is the exit code."""
    try:
        asked = parser().parse_args(words)
        return int(asked.run(asked))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except NoDevice as none:
        print(none, file=sys.stderr)
        return UNMEASURABLE
    except (Refused, OSError) as error:
        print(f"{type(error).__name__}: {error}" if isinstance(error, OSError) else error, file=sys.stderr)
        return WRONG


def parser() -> Parser:
    """The commands and their options."""
    whole = Parser(
        prog="python -m numerics", description="FP8 kernels and what they cost: check, time, study, calibrate."
    )
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    check = commands.add_parser("check", help="run every correctness leg that can run here, and say which cannot")
    check.set_defaults(run=_check)
    bench = commands.add_parser("bench", help="time every kernel at DeepSeek-V3's shapes (needs a CUDA device)")
    bench.add_argument("--out", type=Path, metavar="FILE", default=Path("out/bench.json"), help="JSON with provenance")
    bench.add_argument("--quick", action="store_true", help="one shape a family, 10 repetitions")
    bench.add_argument("--rivals", type=Path, metavar="FOLDER", help="holds deep_gemm or flash_attn, timed beside ours")
    bench.add_argument(
        "--only", metavar="FAMILIES", default="", help="of kernels, with commas between: attention,casts"
    )
    bench.add_argument("--page", action="store_true", help="write docs/KERNELS.md from docs/kernels/, time nothing")
    bench.set_defaults(run=_bench)
    training.add(commands)
    _calibrate_options(commands.add_parser("calibrate", help="write calibration tables, from a trace or from a GPU"))
    made = commands.add_parser(
        "tables", help="library kernels on cards that were not measured here, from published ones"
    )
    made.add_argument("--data", type=Path, metavar="DIR", default=DATA, help=f"CSV files of kernels; default: {DATA}")
    made.add_argument("--out", type=Path, metavar="DIR", help="default: hwmodels/tables; <device>/torch is made there")
    made.set_defaults(run=_tables)
    accuracy = commands.add_parser("accuracy", help="the page on how good prices are (docs/PRICES.md)")
    accuracy.add_argument("--write", action="store_true", help="write docs/PRICES.md instead of printing it")
    accuracy.set_defaults(run=_accuracy)
    collectives = commands.add_parser("collectives", help="the page on how good collectives are (docs/COLLECTIVES.md)")
    collectives.add_argument(
        "file", type=Path, metavar="FILE.csv", help="measured ones: gpu, op, ranks, nodes, bytes, ..."
    )
    collectives.add_argument("--fit", action="store_true", help="fit hwmodels/nccl/figures.json to them first")
    collectives.add_argument("--write", action="store_true", help="write the page instead of printing it")
    collectives.set_defaults(run=_collectives)
    census = commands.add_parser("census", help="ops recorded from the real layers against those the simulator lowers")
    census.add_argument("--model", type=Path, metavar="YAML", default=MODEL, help="dimensions; default: DeepSeek-V3's")
    census.set_defaults(run=_census)
    return whole


def _calibrate_options(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Calibration tables (hwmodels/tables/<device>) with their provenance, written by program only."
    )
    _sources(command.add_mutually_exclusive_group(required=True))
    command.add_argument(
        "--map", type=Path, metavar="RULES.yaml",
        help="with --trace: what kernels are, by name; default: the shipped rules that know most",
    )  # fmt: skip
    command.add_argument(
        "--device", metavar="NUMBER", default="", help="with --trace: of several devices in the file, only this one"
    )
    command.add_argument("--model", type=Path, metavar="YAML", help="with --trace: dimensions; default: DeepSeek-V3's")
    command.add_argument("--for", metavar="SCENARIO", help="with --trace: which of its operations that prices")
    command.add_argument(
        "--scenario", type=Path, metavar="YAML", help="with --gpu: whose ops; default: scenarios/v3_2048gpu.yaml"
    )
    command.add_argument(
        "--quick", action="store_true", help="with --gpu: the scenario's own shapes only, 10 repetitions"
    )
    command.add_argument(
        "--out", type=Path, metavar="DIR", help="default: hwmodels/tables/<device> of the trace or the GPU"
    )
    command.add_argument("--only", nargs="+", metavar="RUN", default=[], help="with --torch: library, heads, ...")
    command.set_defaults(run=_calibrate)


def _sources(source: argparse._MutuallyExclusiveGroup) -> None:
    """Where tables come from."""
    source.add_argument("--trace", type=Path, metavar="FILE", help="from a torch.profiler trace, JSON or gzip")
    source.add_argument("--gpu", action="store_true", help="from the CUDA device at hand, under eight minutes")
    source.add_argument(
        "--again", metavar="DEVICE", help="from a card's measured rows, what follows from them: contention; no GPU"
    )
    source.add_argument(
        "--torch",
        action="store_true",
        help="time torch's own kernels on the CUDA device at hand, a quarter of an hour, to --out",
    )
    source.add_argument(
        "--node",
        action="store_true",
        help="time collectives, exchanges, copies, steps over the GPUs at hand, to --out",
    )
    source.add_argument(
        "--node-rows",
        type=Path,
        metavar="DIR",
        help="how far each row that --node wrote is off the rest; no GPU",
    )
    source.add_argument(
        "--timed", type=Path, metavar="DIR", help="tables of torch's kernels from what --torch wrote; no GPU"
    )
    source.add_argument(
        "--attention", type=Path, metavar="DIR", help="from timed backends, how long attention takes by kernel; no GPU"
    )
    source.add_argument("--stale", action="store_true", help="list tables that another program wrote; exit 1 if any")
    source.add_argument(
        "--moved", action="store_true", help="where files only moved, tell their tables the new places; then as --stale"
    )


def _check(asked: argparse.Namespace) -> int:
    from numerics.card import check

    return DONE if check.run(lambda text: print(text, flush=True)) else FAILED


def _bench(asked: argparse.Namespace) -> int:
    if asked.page:
        from numerics.card import bench_page

        bench_page.PAGE.write_text(bench_page.page(), encoding="utf-8")
        print(f"written to {bench_page.PAGE}", file=sys.stderr)
        return DONE
    from numerics.card.measure import require_device

    require_device()
    from numerics.card import bench

    only = tuple(asked.only.split(",")) if asked.only else ()
    document = bench.run(asked.quick, lambda text: print(text, flush=True), asked.rivals, only)
    bench.write(document, asked.out)
    print(f"written to {asked.out}", file=sys.stderr)
    return FAILED if any(row["kind"] == "ours" and "refused" in row for row in document["rows"]) else DONE


def _calibrate(asked: argparse.Namespace) -> int:
    source = next(name for name in SOURCES if getattr(asked, name))
    fits = {"map": "trace", "model": "trace", "device": "trace", "for": "trace", "scenario": "gpu", "quick": "gpu"}
    for option, only in (fits | {"only": "torch"}).items():
        if getattr(asked, option) and source != only:
            raise Refused(f"--{option} goes with --{only}, not with --{source}")
    if source == "stale" and asked.out:
        raise Refused("--out goes with --trace and --gpu; --stale writes nothing")
    if source == "moved" and asked.out:
        raise Refused("--out goes with --trace and --gpu; --moved writes where the tables are")
    return SOURCES[source](asked)


def _from_trace(asked: argparse.Namespace) -> int:
    from numerics.progress import bar
    from numerics.tables import calibrate, recording
    from numerics.traces.samples import JoinError

    if asked.out and asked.out.exists() and not asked.out.is_dir():
        raise Refused(f"--out {asked.out}: is a file; a folder for the tables is needed")
    try:
        with bar(f"reading {asked.trace.name}", sys.stderr) as watch:
            result = recording.calibrated(asked.trace, asked.map, asked.model or MODEL, watch, asked.device)
    except JoinError as error:
        print(f"{asked.trace}: {error}", file=sys.stderr)
        return FAILED
    except Refused as error:  # TraceError, DocumentError, UnknownCardError: each says what is wrong
        raise Refused(_line(asked.trace, error)) from None
    print("\n".join(recording.report(result)))
    scenario = getattr(asked, "for")
    if not (asked.out or result.whole or scenario):
        print("nothing written: say where with --out DIR", file=sys.stderr)
        return DONE
    own = TABLES / result.device if result.whole else Path("out", "traces", asked.trace.name.partition(".")[0])
    folder = asked.out or own
    calibrate.write(result.tables, folder)
    print(f"written to {folder}: {', '.join(sorted(result.tables))}", file=sys.stderr)
    if scenario:
        from numerics.tables import coverage

        print("\n".join(coverage.lines(scenario, folder)))
        print(f"priced so: python -m sim {scenario} tables={folder}", file=sys.stderr)
    return DONE


def _line(path: Path, error: Exception) -> str:
    """An error in one line that names the file."""
    text = "; ".join(str(error).splitlines())
    return text if path.name in text or ".yaml" in text else f"{path}: {text}"


def _from_gpu(asked: argparse.Namespace) -> int:
    from numerics.card.measure import require_device

    require_device()
    from numerics.card import campaign
    from numerics.tables import calibrate

    try:
        result = campaign.run(asked.scenario or SCENARIO, asked.quick, lambda text: print(text, flush=True))
    except (ValueError, Refused) as error:
        raise Refused("; ".join(str(error).splitlines())) from None
    if not result.tables:
        return FAILED
    folder = asked.out or TABLES / result.device
    calibrate.write(result.tables, folder)
    print(f"written to {folder}: {', '.join(sorted(result.tables))}", file=sys.stderr)
    return FAILED if result.refused else DONE


def _torch(asked: argparse.Namespace) -> int:
    from numerics.card.measure import require_device

    require_device()
    from numerics.card import torch_runs

    folder = asked.out or Path("out") / "torch"
    files = ", ".join(torch_runs.run(folder, asked.only, lambda text: print(text, flush=True)))
    print(f"written to {folder}: {files}", file=sys.stderr)
    return DONE


def _node(asked: argparse.Namespace) -> int:
    from numerics.card import node_runs

    return node_runs.run(asked.out or Path("out") / "node")


def _node_rows(asked: argparse.Namespace) -> int:
    from numerics.tables import node_curves

    print(node_curves.report(asked.node_rows, asked.out))
    return DONE


def _timed(asked: argparse.Namespace) -> int:
    from numerics.tables import calibrate, library

    device, tables = library.calibrated(asked.timed)
    folder = asked.out or TABLES / device / "torch"
    calibrate.write(tables, folder)
    print(f"written to {folder}: {', '.join(sorted(tables))}", file=sys.stderr)
    return DONE


def _tables(asked: argparse.Namespace) -> int:
    from numerics.tables import kernel_models

    print(f"written: {', '.join(kernel_models.write(asked.data, asked.out or TABLES))}", file=sys.stderr)
    return DONE


def _attention(asked: argparse.Namespace) -> int:
    from numerics.tables import attentions, calibrate

    made = attentions.compared(asked.attention)
    calibrate.write(made, asked.out or TABLES)
    print(f"written to {asked.out or TABLES}: {', '.join(made)}", file=sys.stderr)
    return DONE


def _again(asked: argparse.Namespace) -> int:
    from numerics.card import contention
    from numerics.tables import calibrate

    folder = TABLES / asked.again
    if not (folder / "beside.json").is_file():
        known = sorted(path.parent.name for path in TABLES.glob("*/beside.json"))
        raise Refused(f"--again {asked.again}: no rows beside communication; legal: {', '.join(known)}")
    calibrate.write(contention.again(folder), asked.out or folder)
    print(f"written to {asked.out or folder}: contention", file=sys.stderr)
    return DONE


def _measured() -> list[str]:
    """Devices with tables, and libraries on them; twins are of kernels that are gone."""
    from hwmodels.tables import TWINS

    files = (file for file in TABLES.rglob("*.json") if file.parent.name != TWINS)
    folders = {file.parent.relative_to(TABLES).as_posix() for file in files}
    return sorted(folders - {"."})


def _moved(asked: argparse.Namespace) -> int:
    from numerics.tables import calibrate
    from numerics.tables.provenance import moved

    for device in _measured():
        if tables := moved(device):
            calibrate.write(tables, TABLES / device)
            print(f"new places in {TABLES / device}: {', '.join(tables)}", file=sys.stderr)
    return _stale(asked)


def _stale(asked: argparse.Namespace) -> int:
    from numerics.tables.provenance import stale

    devices = _measured()
    lines = [line for device in devices for line in stale(device)]
    print("\n".join(lines) or f"fresh: {', '.join(devices)}")
    return FAILED if lines else DONE


def _accuracy(asked: argparse.Namespace) -> int:
    from numerics.accuracy import page

    return _page(page.page(), page.PAGE, asked.write)


def _collectives(asked: argparse.Namespace) -> int:
    from numerics.accuracy.nccl import page
    from numerics.accuracy.nccl.rows import FAR, read

    rows = read(asked.file) + read(FAR)
    if asked.fit:
        page.renew(rows)
    return _page(page.page(rows), page.PAGE, asked.write)


def _page(text: str, file: Path, write: bool) -> int:
    """Print a page, or write it to its file."""
    if write:
        file.write_text(text, encoding="utf-8")
        print(f"written to {file}", file=sys.stderr)
    else:
        print(text, end="")
    return DONE


def _census(asked: argparse.Namespace) -> int:
    from numerics.tables.recording import shape_of

    try:
        shape = shape_of(asked.model)
    except Refused as error:
        raise Refused(_line(asked.model, error)) from None
    try:
        from numerics.census import census
    except ImportError as error:
        raise Refused(f"census needs {error.name}; pip install trainyard[numerics]") from None
    return int(census.main(shape))


SOURCES = {
    "trace": _from_trace, "gpu": _from_gpu, "again": _again, "torch": _torch, "node": _node,
    "node_rows": _node_rows, "timed": _timed,
    "attention": _attention, "stale": _stale, "moved": _moved,
}  # fmt: skip
"""What `calibrate` makes tables of, by its option."""


if __name__ == "__main__":
    sys.exit(main())
