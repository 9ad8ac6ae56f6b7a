"""The command line of the numerics core: `python -m numerics check | bench | study | calibrate`.

Exit codes: 0 done, 1 a check failed, 2 wrong input, 3 nothing can be measured on this machine. Results go to stdout
and to files, progress to stderr. torch and triton are imported by the command that needs them; `calibrate` needs none.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

DONE, FAILED, WRONG, UNMEASURABLE = 0, 1, 2, 3
STUDIES = ("accumulation",)
TABLES = Path(__file__).resolve().parents[1] / "hwmodels" / "tables" / "h800"


class WrongInput(Exception):  # noqa: N818 - it names what the user gave
    """Input that cannot be used; its text says what to write instead."""


class Parser(argparse.ArgumentParser):
    """argparse that reports a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        raise WrongInput(f"{message}; see python -m numerics --help")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command that `words` (default: the process's arguments) say; the answer is the exit code."""
    try:
        asked = parser().parse_args(words)
        return int(asked.run(asked))
    except (WrongInput, OSError) as error:
        print(f"{type(error).__name__}: {error}" if isinstance(error, OSError) else error, file=sys.stderr)
        return WRONG


def parser() -> Parser:
    """The commands and their options."""
    whole = Parser(prog="python -m numerics", description="FP8 kernels: check, time, study, calibrate.")
    commands = whole.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    check = commands.add_parser("check", help="run every correctness leg that can run here, and say which cannot")
    check.set_defaults(run=_check)
    bench = commands.add_parser("bench", help="time every kernel at DeepSeek-V3's shapes (needs a CUDA device)")
    bench.add_argument("--out", type=Path, metavar="FILE", default=Path("out/bench.json"), help="JSON with provenance")
    bench.add_argument("--quick", action="store_true", help="one shape a family, 10 repetitions")
    bench.set_defaults(run=_bench)
    study = commands.add_parser("study", help="write a study's page and figures")
    study.add_argument("name", choices=STUDIES)
    study.add_argument("--out", type=Path, metavar="DIR", help="default: out/<name>")
    study.set_defaults(run=_study)
    calibrate = commands.add_parser("calibrate", help="rewrite the H800 tables from the published profile's analysis")
    calibrate.add_argument("--facts", nargs=2, type=Path, metavar=("OPS.csv", "SUMMARY.json"), required=True)
    calibrate.add_argument("--model", type=Path, metavar="MODEL.yaml", required=True)
    calibrate.add_argument("--out", type=Path, metavar="DIR", default=TABLES, help="default: hwmodels/tables/h800")
    calibrate.set_defaults(run=_calibrate)
    return whole


def _check(asked: argparse.Namespace) -> int:
    from numerics import check

    return DONE if check.run(lambda text: print(text, flush=True)) else FAILED


def _bench(asked: argparse.Namespace) -> int:
    from numerics.measure import NoDevice, require_device

    try:
        require_device()
    except NoDevice as none:
        print(none, file=sys.stderr)
        return UNMEASURABLE
    from numerics import bench

    document = bench.run(asked.quick, lambda text: print(text, flush=True))
    bench.write(document, asked.out)
    print(f"written to {asked.out}", file=sys.stderr)
    refused = [row for row in document["rows"] if row["kind"] == "ours" and "refused" in row]
    return FAILED if refused else DONE


def _study(asked: argparse.Namespace) -> int:
    try:
        from numerics.studies import accumulation
    except ImportError as error:
        raise WrongInput(f"study {asked.name} needs {error.name}; pip install trainyard[numerics]") from None
    folder = asked.out or Path("out", asked.name)
    accumulation.main(folder)
    print(f"written to {folder}", file=sys.stderr)
    return DONE


def _calibrate(asked: argparse.Namespace) -> int:
    from hwmodels.document import DocumentError, read
    from numerics import calibrate
    from sim.models.shape import ModelShape

    for path in (*asked.facts, asked.model):
        if not path.is_file():
            raise WrongInput(f"{path}: no such file")
    try:
        shape = ModelShape(**read(asked.model).content)
        found = calibrate.tables(*asked.facts, shape)
    except DocumentError as error:
        raise WrongInput(str(error)) from None
    except (ValueError, KeyError, TypeError) as error:
        raise WrongInput(f"{asked.model} and {asked.facts[0]}: {' '.join(str(error).split())}") from None
    calibrate.write(found, asked.out)
    print(f"written to {asked.out}: {', '.join(sorted(found))}", file=sys.stderr)
    return DONE


if __name__ == "__main__":
    sys.exit(main())
