"""The page of a bench holds what its JSON holds, and the committed page is what the program writes."""

import json

from numerics.card import bench_page


def test_the_page_is_what_the_program_writes():
    assert bench_page.PAGE.read_text(encoding="utf-8") == bench_page.page()


def test_every_row_of_a_last_run_is_there_and_none_was_refused():
    files = sorted(bench_page.MEASURED.glob("*.json"))
    assert [f.stem for f in files] == ["h100", "h200", "h200_memory", "h200_products"]
    text = bench_page.page()
    runs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    later = {row["family"] for name in ("h200_memory", "h200_products") for row in runs[name]["rows"]}
    for name, run in runs.items():
        assert f"## {run['provenance']['device']}" in text
        ours = [row for row in run["rows"] if row["kind"] == "ours"]
        least = 18 if "--only" in run["provenance"]["command"] else 100
        assert len(ours) >= least and not [row for row in ours if "refused" in row]
        if name != "h200":
            for row in ours:
                assert f"| {row['case']} | {row['variant']} | {row['median_us']:,.1f} | {row['low_us']:,.1f} |" in text
    left = text.split("## NVIDIA H200: ")[1].split("\n## ")[0]
    assert left.startswith("masked\n") and not [family for family in later if f"\n| {family} |" in left]


def test_a_refused_row_says_why(tmp_path):
    document = json.loads((bench_page.MEASURED / "h200.json").read_text(encoding="utf-8"))
    row = next(r for r in document["rows"] if r["kind"] == "library")
    row["refused"] = "RuntimeError: no | such call"
    (tmp_path / "x.json").write_text(json.dumps(document))
    assert "not timed: RuntimeError: no / such call" in bench_page.page(tmp_path)
