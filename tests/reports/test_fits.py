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

WIDTHS = (420, 1280, 1920)
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PROBE = """
<script>
const frames = [...document.querySelectorAll("iframe")];
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
  const docs = frames.map((frame) => frame.contentDocument);
  if (docs.some((doc) => !doc || !doc.body || doc.body.dataset.ready !== "yes")) return;
  clearInterval(wait);
  const said = document.createElement("pre");
  said.id = "said";
  said.textContent = JSON.stringify(docs.map(cut));
  document.body.append(said);
}, 50);
</script>
"""


def looked_at(html: str, folder: Path) -> dict[int, dict[str, object]]:
    """What is cut on a page of each of WIDTHS. Frames hold it, as windows of a browser have a least width, and one
    browser all of them."""
    frames = (f'<iframe width="{width}" height="4000" style="border:0" srcdoc="{escape(html)}"></iframe><br>'
              for width in WIDTHS)  # fmt: skip
    (folder / "frame.html").write_text("<!doctype html><body>" + "".join(frames) + PROBE)
    words = ["--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]
    size = f"--window-size={max(WIDTHS) + 40},1000"
    done = subprocess.run([str(BROWSER), *words, size, f"file://{folder}/frame.html"], capture_output=True, text=True,
                          timeout=120)  # fmt: skip
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said, done.stderr[-2000:]
    return dict(zip(WIDTHS, json.loads(unescape(said[1])), strict=True))


@pytest.mark.skipif(not BROWSER, reason="no Chromium")
def test_nothing_is_cut(tmp_path: Path) -> None:
    """Of a run whose ranks differ, which has the most figures, with a few long ones."""
    run = sample.differing()
    rates = {"tokens_per_day": 2.119e12, "gpu_hours_per_trillion_tokens": 12_345_678.0, "overrides": ["seed=1"]}
    html = page.render(replace(run, summary=run.summary | rates))
    for width, seen in looked_at(html, tmp_path).items():
        assert seen["found"] == [], width
        assert int(str(seen["figures"])) >= 16 and int(str(seen["texts"])) > 100
