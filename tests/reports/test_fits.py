"""In a browser, at the width of a phone, a laptop and a large screen: nothing of a figure is cut.

Skipped where there is no Chromium.
"""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html import escape, unescape
from pathlib import Path

import pytest

from reports import page
from tests.reports import sample

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """
<script>
const frame = document.querySelector("iframe");
const cut = (doc) => {
  const found = [];
  for (const node of doc.querySelectorAll(".figures dt, .figures dd")) {
    if (node.scrollWidth > node.clientWidth + 1) found.push("headline: " + node.textContent);
  }
  for (const plot of doc.querySelectorAll(".plot")) {
    const box = plot.getBoundingClientRect(), card = plot.closest("section").getBoundingClientRect();
    if (box.right > card.right) found.push(plot.id + " is wider than its card");
    for (const text of plot.querySelectorAll("text")) {
      const part = text.getBoundingClientRect(), outside = part.right > box.right + 1 || part.left < box.left - 1;
      if (part.width && outside) found.push(plot.id + ": " + text.textContent);
    }
  }
  const count = (what) => doc.querySelectorAll(what).length;
  return { figures: count(".figures dd"), texts: count(".plot text"), found };
};
const wait = setInterval(() => {
  const doc = frame.contentDocument;
  if (!doc || !doc.body || doc.body.dataset.ready !== "yes") return;
  clearInterval(wait);
  const said = document.createElement("pre");
  said.id = "said";
  said.textContent = JSON.stringify(cut(doc));
  document.body.append(said);
}, 50);
</script>
"""


def looked_at(html: str, width: int, folder: Path) -> dict[str, object]:
    """What is cut on a page of that width. A frame holds it, as windows of a browser have a least width."""
    (folder / "frame.html").write_text(
        f'<!doctype html><body><iframe width="{width}" height="4000" style="border:0" srcdoc="{escape(html)}"></iframe>'
        + PROBE
    )
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    size = f"--window-size={max(600, width + 40)},4200"
    done = subprocess.run([str(BROWSER), *words, size, f"file://{folder}/frame.html"], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr[-2000:]
    return dict(json.loads(unescape(said[1])))


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
@pytest.mark.parametrize("width", [420, 1280, 1920])
def test_nothing_is_cut(width: int, tmp_path: Path) -> None:
    """Of a run whose ranks differ, which has the most figures, with a few long ones."""
    run = sample.differing()
    rates = {"tokens_per_day": 2.119e12, "gpu_hours_per_trillion_tokens": 12_345_678.0, "overrides": ["seed=1"]}
    html = page.render(replace(run, summary=run.summary | rates))
    seen = looked_at(html, width, tmp_path)
    assert seen["found"] == [] and seen["figures"] >= 16 and seen["texts"] > 100
