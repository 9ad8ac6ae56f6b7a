"""What a folder of a run has beside its data: the page and the Chrome traces."""

from collections.abc import Sequence
from pathlib import Path

from sim.result import Result


def write(result: Result, folder: Path, outputs: Sequence[str]) -> None:
    """Write a run's page and traces, as far as `outputs` asks for them, into `folder`, which exists."""
    if "report" in outputs:
        from reports import page  # each when it is asked for: figures alone take a third of the time

        (folder / "report.html").write_text(page.render(result), encoding="utf-8")
    if "trace" in outputs:
        from reports import chrome

        (folder / "trace").mkdir()
        chrome.write(result.spans, folder / "trace")
