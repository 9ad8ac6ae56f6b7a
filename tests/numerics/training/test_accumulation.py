"""The accumulation study: its shortcuts equal the model, its figures say what the page says, the page works offline."""

import json
import re

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("plotly")
from numerics.reference import hopper  # noqa: E402
from numerics.training import accumulation, accumulation_page  # noqa: E402

LENGTHS = (256, 1024, 4096)


@pytest.fixture(scope="module")
def rows():
    return accumulation.study(LENGTHS, seeds=(0,))


@pytest.fixture(scope="module")
def page(rows):
    return accumulation_page.render(rows, accumulation.document(rows, seeds=(0,)))


def figure(rows, data, k, promote, metric="max_to_max", accumulator="joins"):
    wanted = (data, k, promote, accumulator)
    (row,) = [r for r in rows if (r.data, r.k, r.promote, r.accumulator) == wanted]
    return row.median(metric)


@pytest.mark.parametrize("promote", [hopper.NEVER, 128])
@pytest.mark.parametrize("data", accumulation.DATA)
def test_prefixes_equal_products_of_shorter_operands(data, promote):
    a, b = (x[:8] for x in accumulation.matrices(data, 512, seed=3))
    for k, product in accumulation.prefixes(a, b, (128, 256, 512), promote, hopper.HOPPER):
        assert torch.equal(product, hopper.gemm(a[:, :k], b[:, :k], promote))


def test_every_point_is_there_once(rows):
    keys = [(row.data, row.k, row.promote, row.accumulator) for row in rows]
    assert len(keys) == len(set(keys))
    per_data = len(LENGTHS) * 2 * 2 + len(accumulation.INTERVALS) - 2
    assert len(keys) == len(accumulation.DATA) * per_data


def test_data_sets_are_what_they_say():
    a, b = accumulation.matrices("uniform", 512, 0)
    assert a.float().min() >= 0 and a.float().max() <= 1
    a, b = accumulation.matrices("outliers", 1024, 0)
    assert a.float().abs().max() == b.float().abs().max() == 448
    columns = a.float().square().mean(0).sqrt()
    assert torch.argsort(columns, descending=True)[:2].sort().values.tolist() == [7, 519]
    assert not torch.equal(*(accumulation.matrices("gaussian", 64, seed)[0].float() for seed in (0, 1)))


def test_errors_by_hand():
    exact = torch.tensor([[4.0, -2.0], [0.1, 0.0]], dtype=torch.float64)
    actual = torch.tensor([[3.8, -2.0], [0.11, 0.0]])
    got = accumulation.errors(actual, exact)
    assert got["max_to_max"] == pytest.approx(0.05) and got["max_relative"] == pytest.approx(0.1)
    assert got["max_relative_large"] == pytest.approx(0.05) and got["mean_relative"] == pytest.approx(0.15 / 4)
    assert got["bias"] == pytest.approx(-0.19 / 6.1, rel=1e-5) and set(got) == set(accumulation.METRICS)


def test_the_claims_hold_in_the_figures(rows):
    assert figure(rows, "uniform", 4096, hopper.NEVER) == pytest.approx(0.067, rel=0.1)
    assert figure(rows, "uniform", 4096, 128) < 0.0007
    assert figure(rows, "uniform", 4096, hopper.NEVER) > 8 * figure(rows, "uniform", 1024, hopper.NEVER) / 2
    assert figure(rows, "uniform", 4096, hopper.NEVER, "bias") < -0.05
    assert figure(rows, "uniform", 4096, hopper.NEVER, accumulator="after") < 0.006
    by_interval = [figure(rows, "uniform", 4096, promote) for promote in accumulation.INTERVALS]
    assert by_interval == sorted(by_interval)


def test_candidates_are_those_within_the_band(rows):
    low, high = accumulation.REPORTED_ERROR
    near = accumulation.near_reported(rows)
    for data in accumulation.DATA:
        for metric in accumulation.METRICS:
            inside = low <= abs(figure(rows, data, 4096, hopper.NEVER, metric)) <= high
            assert inside == ((data, metric) in near)
    row = accumulation.Row("gaussian", 4096, hopper.NEVER, "joins", {key: [0.02] for key in accumulation.METRICS})
    assert len(accumulation.near_reported([row])) == len(accumulation.METRICS)


def test_page_needs_no_network_and_holds_plotly_once(page):
    assert page.count("<script>/**\n* plotly.js") == 1
    assert not re.search(r"<(script|link|img)[^>]*(src|href)=", page)
    assert page.count('id="chart-') == 3


def test_page_says_what_is_reproduced_and_what_is_not(page):
    text = page[page.index("<h1>") :]
    assert "seeds 0;" in text
    assert "<b>Reproduced: around 14 bits.</b>" in text
    assert text.count("<b>Cannot be pinned down:") == 3 and "nearly 2 %" in text
    assert "nothing measured on a GPU" in text and "nan %" not in text


def test_page_admits_a_failed_probe(rows):
    document = accumulation.document(rows)
    document["probes"][0]["joins"] = 1.0
    assert "NOT reproduced: around 14 bits" in accumulation_page.render(rows, document)


def test_main_writes_both_files_alike_each_time(rows, tmp_path, monkeypatch):
    monkeypatch.setattr(accumulation, "study", lambda: rows)
    first, second = (accumulation.main(tmp_path / name) for name in ("a/b", "c"))
    assert first.name == "accumulation.html" and first.read_bytes() == second.read_bytes()
    document = json.loads((tmp_path / "c" / "accumulation.json").read_text())
    assert document["reported"] == {
        "source": "arXiv 2412.19437 sec 3.3.2", "bits": 14, "error": 0.02, "k": 4096, "interval": 128
    }  # fmt: skip
    assert len(document["rows"]) == len(rows) and document["rows"][0]["figures"]["bias"]
