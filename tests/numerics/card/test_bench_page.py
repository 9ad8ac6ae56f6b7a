"""The page of a bench holds what its JSON holds, and the committed page is what the program writes."""

import json

from numerics.card import bench_page


def test_the_page_is_what_the_program_writes():
    assert bench_page.PAGE.read_text(encoding="utf-8") == bench_page.page()


def test_every_row_of_a_last_run_is_there_and_none_was_refused():
    files = sorted(bench_page.MEASURED.glob("*.json"))
    assert [f.stem for f in files] == ["h100", "h200", "h200_attention", "h200_casts"]
    text = bench_page.page()
    runs = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in files}
    later = {row["family"] for name in ("h200_attention", "h200_casts") for row in runs[name]["rows"]}
    for name, run in runs.items():
        assert f"## {run['provenance']['device']}" in text
        ours = [row for row in run["rows"] if row["kind"] == "ours"]
        least = 8 if "--only" in run["provenance"]["command"] else 100
        assert len(ours) >= least and not [row for row in ours if "refused" in row]
        if name != "h200":
            for row in ours:
                assert f"| {row['case']} | {row['variant']} | {row['median_us']:,.1f} | {row['low_us']:,.1f} |" in text
    left = text.split("## NVIDIA H200: ")[1].split("\n## ")[0]
    assert not [family for family in later if f"\n| {family} |" in left]


def test_other_kernels_stand_beside_by_the_mean_of_their_ratios(tmp_path):
    """By hand: 2.0 and 0.5 over two shapes of one kernel; a rowwise product is other work and stands in no mean."""
    document = json.loads((bench_page.MEASURED / "h200.json").read_text(encoding="utf-8"))
    some = {(r["family"], r["case"]): r for r in document["rows"] if r["variant"] == "default"}
    times = {"2112x7168x4096": 2.0, "24576x1536x4096": 0.5}
    own = [{**some["wgrad", case], "median_us": 10.0} for case in times]
    others = [{**row, "kind": "rival", "variant": name, "median_us": 10.0 * times[row["case"]]}
              for row in own for name in ("theirs", "torch _scaled_mm by row")]  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps(document | {"rows": [*own, *others], "summary": []}))
    text = bench_page.page(tmp_path).partition("least of them:")[2].partition("Every form")[0]
    assert "| wgrad |  | theirs | 2 | 1.000 | 0.500 |" in text and "by row" not in text


def test_a_refused_row_says_why(tmp_path):
    document = json.loads((bench_page.MEASURED / "h200.json").read_text(encoding="utf-8"))
    row = next(r for r in document["rows"] if r["kind"] == "library")
    row["refused"] = "RuntimeError: no | such call"
    (tmp_path / "x.json").write_text(json.dumps(document))
    assert "not timed: RuntimeError: no / such call" in bench_page.page(tmp_path)
