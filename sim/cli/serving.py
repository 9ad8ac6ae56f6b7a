"""A serving scenario from the command line: run it, or check it."""

import argparse
import sys
from pathlib import Path

from hwmodels.refused import Refused
from sim.cli import pages
from sim.cli.command import DONE, PROG, Parser, progress, refusals, reported, unread


def run(args: argparse.Namespace, folder: Path) -> int:
    """Serve, and write the results as a folder."""
    from reports import served as trace
    from reports import serving as shown
    from sim.result import archive
    from sim.result.folder import replacing, writing
    from sim.serving import files
    from sim.serving import folder as results
    from sim.serving.answers import answers, waits
    from sim.serving.system import run as served

    path, visible = args.words[0], not args.quiet and sys.stderr.isatty()
    serve = files.load(path, args.words[1:])
    try:
        with replacing(folder, archive.FILES) as fresh:
            progress(f"serving {serve.name} ...", visible)
            with refusals(path):
                asked, log = served(serve)
            summary = results.summary(serve, answers(serve, asked, log))
            with writing(folder):
                trace.write(fresh / results.TRACE, results.names(serve), log.spans, log.load, results.marks(log))
                (fresh / "report.html").write_text(shown.page(summary, log.load, waits(asked, log)), encoding="utf-8")
                results.write(fresh, summary, files.portable(path, args.words[1:]), asked, log)
    finally:
        progress("", visible)
    for line in (*serve.unfelt, *unread(serve)):
        print(f"{path}: {line}", file=sys.stderr)
    reported(args, folder, lambda: print(shown.headline(summary), file=sys.stderr))
    return DONE


def check(words: list[str]) -> int:
    """Whether a scenario is right, its trace can be read, and its weights and longest request fit."""
    from sim.serving import files
    from sim.serving.asked import asked
    from sim.serving.system import System

    serve = files.load(words[0], words[1:])
    with refusals(words[0]):
        System(serve, asked(serve.requests, serve.seed)).check()
    for line in (*serve.unfelt, *unread(serve)):
        print(f"{words[0]}: {line}", file=sys.stderr)
    print(f"{words[0]}: nothing wrong ({serve.name}; hash {serve.scenario_hash})")
    return DONE


def serving(words: list[str]) -> int:
    """Published rows beside ours, and what serving depends on: the page goes to stdout; --write renews
    docs/SERVING.md of a checkout."""
    from sim.serving.page import PAGE, page

    return pages.document(words, PAGE, page)


def load(words: list[str]) -> int:
    """The largest load of a serving scenario within its objectives, and what others came to, as a table."""
    from hwmodels.units import MS_PER_S
    from sim.serving import files, limit
    from sim.serving.values import TRACE

    words = Parser(worded=True).parse_intermixed_args(words).words
    if not words:
        raise Refused(f"a serving scenario is missing, e.g. {PROG} load serve_v3_h800")
    serve = files.load(words[0], words[1:])
    with refusals(words[0]):
        *tried, best = limit.search(serve)
    for line in (*serve.unfelt, *unread(serve)):
        print(f"{words[0]}: {line}", file=sys.stderr)
    trace = serve.requests.arrivals == TRACE
    unit = "times fast" if trace else "requests/s"
    print(f"{unit}  within objectives  TTFT p99, ms  TPOT p50, ms  tokens/s a decoding GPU")
    for each in sorted({*tried, best}):
        times = f"{each.ttft_s * MS_PER_S:12,.0f}  {each.tpot_s * MS_PER_S:12,.1f}"
        print(f"{each.rate:10.4g}  {each.part:17.1%}  {times}  {each.output:23,.0f}")
    unit = "times as fast as the trace" if trace else "requests/s"
    print(f"most within objectives: {best.rate:.4g} {unit} ({best.part:.1%} of requests keep both)")
    return DONE
