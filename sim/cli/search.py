"""The command `search`: the best of a space of scenarios, what binds it, and scenario files that run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hwmodels.refused import Refused
from sim.cli.command import DONE, INTERRUPTED, Parser, heard, progress

if TYPE_CHECKING:
    from sim.experiments.answer import Answer

PROG = "python -m sim search"
HELP = """\
usage: python -m sim search SEARCH.yaml [key=value ...] [--executor local:N | dask:HOST:PORT] [--out DIR]
                            [--format text|json] [-q]

The best of a space of scenarios: which points are legal, which can be among the best, which fit in memory, and runs of
those; the best are run again in full, with intervals. A search names a scenario, a space of axes, constraints and
objectives; see scenarios/searches and docs/PLANNING.md. Overrides come last at every point.

options:
  --executor WORD      where runs run: local:N, processes of this machine (default: local:1), or dask:HOST:PORT, a
                       scheduler that `dask scheduler` started (extra `cluster`). The answer is the same.
  --out DIR            where it goes (default: out/searches/<search>): points.jsonl and full.jsonl, a line a run as it
                       ends (what they hold already is not run again, so an interrupted search goes on), search.html,
                       answer.json, and best-1.yaml ... to run
  --format text|json   json: print answer.json on stdout instead of tables
  -q, --quiet          no progress

exit codes: 0 done; 2 wrong input, no point is legal, or none keeps the constraints; 130 interrupted
"""


def search(words: list[str]) -> int:
    """Run what `words` say; the answer is the exit code."""
    parser = Parser(PROG, worded=True)
    parser.add_argument("--executor", default="local:1")
    parser.add_argument("--out", type=Path)
    parser.tells()
    args = parser.parse_intermixed_args(words)
    if not args.words:
        raise Refused(f"a search file is missing; see {PROG} --help")
    from sim.cli import pages
    from sim.experiments.executors import jobs

    jobs(args.executor)
    folder = args.out or Path("out", "searches", Path(args.words[0]).stem)
    pages.check(folder, _marks(folder))
    shown = not args.quiet and sys.stderr.isatty()
    try:
        answer = _answer(args.words, args.executor, folder, shown)
    except KeyboardInterrupt:
        print(f"interrupted; what was run is in {folder}, and the same command goes on from there", file=sys.stderr)
        return INTERRUPTED
    finally:
        progress("", shown)
    _tell(answer, folder, args.format)
    return DONE


def _answer(words: list[str], where: str, folder: Path, shown: bool) -> "Answer":
    from sim.experiments.executors import executor
    from sim.experiments.explore import explored
    from sim.experiments.search import read_search

    read = read_search(Path(words[0]), words[1:])
    with executor(where) as ready:
        return explored(read, ready, folder, heard(shown))


def _marks(folder: Path) -> dict[str, str]:
    """Files that a search writes and may find there -> what one of ours holds."""
    from reports.search import MARK
    from sim.experiments.answer import FIRST, HEAD

    older = [path.name for path in sorted(folder.glob("best-*.yaml"))]
    return {"search.html": MARK, "answer.json": f'"{FIRST}"', **dict.fromkeys(older, HEAD)}


def _tell(answer: "Answer", folder: Path, form: str) -> None:
    """Write the page, the answer and the scenarios; print the tables."""
    import json

    from reports import search as page
    from sim.cli import pages
    from sim.experiments import answer as telling
    from sim.experiments.table import text

    plain, marks = telling.plain(answer), _marks(folder)
    texts = {"answer.json": json.dumps(plain, indent=1) + "\n", "search.html": page.render(plain)}
    texts |= {f"best-{number}.yaml": content for number, content in enumerate(telling.scenarios(answer), 1)}
    pages.write(folder, {name: pages.Page(content, marks.get(name, telling.HEAD)) for name, content in texts.items()})
    for name in marks.keys() - texts.keys():
        (folder / name).unlink()  # of a search that looked for more
    if form == "json":
        print(json.dumps(plain, indent=1))
        return
    print(text(telling.table(answer)))
    print(*("", *telling.counts(answer), telling.correlated(answer), *telling.binding(answer)), sep="\n")
    print(f"written to {folder}: search.html, answer.json, best-1.yaml ...", file=sys.stderr)
