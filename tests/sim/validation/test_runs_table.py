"""Outcomes of published runs as tables, a CSV file and a page; a sample of them simulated."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from sim.__main__ import main
from sim.validation import records
from sim.validation.runs import outcome as outcomes
from sim.validation.runs import page, table, views, words
from sim.validation.runs.outcome import Answer, Outcome, outcome
from sim.validation.runs.rows import FILE, asked, read

ROOT = Path(__file__).parents[3]
ROWS = read(FILE)
ASKED = list(asked(ROWS))
BY_ID = {run.id: run for run in ROWS}
SAMPLE = (
    "MB-186", "MB-234", "MB-239", "MB-247", "MB-255", "MB-273", "NEMO-013", "MLP-024", "MLP-027", "MLP-038", "MLP-039",
    "SMX-007", "SMX-017", "LF-023", "LF-026", "AUTO-007", "AUTO-008", "AB-001", "AB-002", "AB-005",
)  # fmt: skip
"""Runs of several families, stacks and precisions that take a second or less."""


def made(name, off, rival_s=None, fits=True, **more):
    """An outcome that is off by so much; its interval is 10 % to either side."""
    run = BY_ID[name]
    step = run.step_s * (1 + off)
    return Outcome(run, Answer(step, step * 0.9, step * 1.1, rival_s=rival_s, fits=fits), **more)


def refused(name, why):
    return Outcome(BY_ID[name], Answer(refused=why))


OUTCOMES = [
    made("TT-001", -0.2), made("TT-002", 0.05, fits=False, defaults=("recompute", "placement")), made("TT-003", 0.1),
    refused("TT-004", "parallel.zero: 3 is not built yet; legal: 1"),
    refused("TT-005", "parallel.zero: 2 is not built yet; legal: 1"),
]  # fmt: skip


def test_a_family_is_summed_by_medians():
    part = table.total("torchtitan", 7, OUTCOMES)
    assert (part.rows, part.asked, part.ran, part.inside, part.large) == (7, 5, 3, 2, 1)
    assert part.layouts == 2  # the first two ran one, whose error is the mean of both
    assert part.error == pytest.approx(0.0875) and part.bias == pytest.approx(0.0125) and part.defaults == 0
    assert table.cells(part)[3:10] == ["3", "2", "2", "8.8%", "+1.3%", "2 (67%)", ""]


def test_a_layout_counts_once_however_many_releases_ran_it():
    same = [replace(BY_ID[name], group="one") for name in ("TT-001", "TT-002", "TT-003")]
    step = [
        Outcome(run, Answer(run.step_s * off, rival_s=run.step_s))
        for run, off in zip(same, (0.5, 0.9, 1.1), strict=True)
    ]
    other = Outcome(replace(BY_ID["TT-011"], group="two"), Answer(BY_ID["TT-011"].step_s * 1.3))
    part = table.total("torchtitan", 4, [*step, other])
    assert (part.ran, part.layouts) == (4, 2)
    assert part.error == pytest.approx((0.1 + 0.3) / 2) and part.bias == pytest.approx((-0.1 + 0.3) / 2)
    assert part.rival == 0


def test_json_has_a_value_a_row_whether_it_ran_or_not():
    rows = [BY_ID[name] for name in ("TT-001", "TT-004", "PRI-002")]
    ran, told, unasked = json.loads(json.dumps(table.plain(rows, OUTCOMES[:4])))
    assert ran["id"] == "TT-001" and ran["error"] == pytest.approx(-0.2) and ran["reason"] is None
    assert ran["published"] == BY_ID["TT-001"].step_s and ran["predicted"] == pytest.approx(0.8 * ran["published"])
    assert ran["interval_90"] == pytest.approx([0.9 * ran["predicted"], 1.1 * ran["predicted"]])
    assert (ran["family"], ran["group"]) == ("torchtitan", BY_ID["TT-001"].group)
    assert told["predicted"] is None and told["interval_90"] is None and "not built" in told["reason"]
    assert unasked["reason"].startswith("not asked: the row does not say: ")


def test_a_file_of_nothing_that_ran_has_empty_figures():
    part = table.total("none", 2, [OUTCOMES[3]])
    assert (part.ran, part.error, part.bias) == (0, None, None)
    assert table.cells(part)[6:10] == ["", "", "", ""]


def test_reasons_are_counted_without_what_differs():
    assert table.reasons(OUTCOMES) == [(2, "parallel.zero: .. is not built yet; legal: ..", "TT-004")]
    (only,) = table.reasons(OUTCOMES[:4])
    assert only == (1, "parallel.zero: 3 is not built yet; legal: 1", "TT-004")


def test_the_worst_are_by_ratio_so_half_is_as_bad_as_double():
    rows = [made("TT-001", -0.45), made("TT-002", 0.8), made("TT-003", 0.3)]
    assert [each.run.id for each in table.worst(rows, 2)] == ["TT-001", "TT-002"]  # 1.82 times, 1.8 times


def test_the_csv_file_has_a_row_a_run_in_order():
    rows = list(csv.DictReader(io.StringIO(table.written([o.run for o in OUTCOMES] + [BY_ID["PRI-002"]], OUTCOMES))))
    assert [row["id"] for row in rows] == [*(o.run.id for o in OUTCOMES), "PRI-002"]
    assert float(rows[0]["error"]) == pytest.approx(-0.2) and rows[0]["inside_90"] == "False"
    assert rows[1]["defaults"] == "recompute; placement" and rows[1]["fits"] == "False"
    assert rows[3]["refused"].startswith("parallel.zero") and rows[3]["predicted_s"] == rows[3]["fits"] == ""
    assert rows[5]["refused"].startswith("not asked: the row does not say: ")


def test_pairs_are_of_rows_that_are_there_and_signs_are_told():
    listed = words.table("pairs")
    assert all(said[end] in BY_ID and not BY_ID[said[end]].lacking for said in listed for end in ("from", "to"))
    first, second = BY_ID["TT-001"], BY_ID["TT-002"]  # torch.compile: 2.843 to 2.457 s
    right = views.pairs([Outcome(first, Answer(2.0)), Outcome(second, Answer(1.5))])
    (pair,) = right
    assert pair.measured == pytest.approx(2.457 / 2.843 - 1) and pair.simulated == -0.25 and pair.signed
    (wrong,) = views.pairs([Outcome(first, Answer(2.0)), Outcome(second, Answer(2.1))])
    assert not wrong.signed


def test_weak_scaling_takes_runs_with_as_many_sequences_a_gpu():
    base = replace(BY_ID["TT-001"], gpus=8, sequences=16, step_s=2.0)
    larger = replace(base, id="b", gpus=64, sequences=128, step_s=2.2)
    other = replace(base, id="c", gpus=64, sequences=64, step_s=1.0)
    (series,) = views.weak([Outcome(base, Answer(1.0)), Outcome(larger, Answer(1.05)), Outcome(other, Answer(0.5))])
    assert (series.fewest, series.most) == (8, 64)
    assert series.measured == pytest.approx(0.1) and series.simulated == pytest.approx(0.05)


def test_strong_scaling_is_in_sequences_a_second():
    """The batch grows a little with the GPUs: what counts is time a sequence."""
    rows = {run.gpus: run for run in ROWS if run.family == "mlperf-v6" and run.gpu == "GB200"}
    few, many = rows[512], rows[8192]
    steps = few.step_s, few.step_s * (many.sequences / few.sequences) / 8
    (gain,) = views.gains([Outcome(run, Answer(step)) for run, step in zip((few, many), steps, strict=True)])
    assert (gain.fewest, gain.most, gain.rival) == (512, 8192, None)
    assert gain.simulated == pytest.approx(8) and gain.measured == pytest.approx(9.46, rel=0.01)


def test_memory_is_what_was_allocated_in_any_unit():
    smx, ab = replace(BY_ID["SMX-007"]), replace(BY_ID["TT-001"], memory_published="68,704 MB")
    sizes = [size for _, size in views.memory([Outcome(each, Answer(1.0, peak_bytes=1)) for each in (smx, ab)])]
    assert sizes == [104.3 * 2**30, 68_704e6]


def test_every_row_is_in_one_kind():
    kinds = [each for _, rows in views.kinds([Outcome(run) for run in ASKED]) for each in rows]
    assert len(kinds) == len(ASKED) == len({each.run.id for each in kinds})


def test_the_page_has_every_family_and_no_line_that_breaks_a_table():
    text = page.page(ROWS, OUTCOMES)
    for family in dict.fromkeys(run.family for run in ROWS):
        assert f"| {family} | {sum(run.family == family for run in ROWS)} |" in text
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}) == 1, block


@pytest.mark.parametrize("name", SAMPLE)
def test_a_sample_runs(name):
    ran = outcome(BY_ID[name])
    low, high = ran.answer.low_s, ran.answer.high_s
    assert ran.refused == "" and ran.predicted_s and low and high and ran.answer.peak_bytes
    assert low < high  # prices that are bounds are only dearer: the interval may lie above the step
    assert 1 / 3 < ran.predicted_s / BY_ID[name].step_s < 3  # a slip of a unit, of GPUs or of a batch is larger


def test_a_row_that_cannot_be_said_is_refused_with_the_reason_and_the_others_run(tmp_path, capsys):
    with FILE.open(newline="") as file:
        head, *lines = list(csv.reader(file))
    path, out = tmp_path / "runs.csv", tmp_path / "new" / "out.csv"
    keep = [line for line in lines if line[0] in ("MLP-039", "MB-014", "PRI-002")]
    keep = [[cell.replace("nemotron-3-super", "mystery-9b") for cell in line] for line in keep]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *keep])
    assert main(["validate", "--runs", str(path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "1 x model 'mystery-9b' is none that is known here" in printed and "MLP-039" in printed
    rows = {row["id"]: row for row in csv.DictReader(out.open())}
    assert rows["MLP-039"]["predicted_s"] and not rows["MLP-039"]["refused"]
    assert rows["MB-014"]["refused"].startswith("model 'mystery-9b' is none that is known here")
    assert rows["PRI-002"]["refused"].startswith("not asked: the row does not say: ")
    assert main(["validate", "--runs", str(path), "--out", str(tmp_path)]) == 2


def test_a_row_that_fails_is_told_as_a_bug_and_the_others_are_answered(tmp_path, capsys, monkeypatch):
    simulate = outcomes.simulate

    def failing(scenario, interval):
        if scenario.name.startswith("LF-085"):
            raise ZeroDivisionError("by hand")
        return simulate(scenario, interval)

    monkeypatch.setattr(outcomes, "simulate", failing)
    with FILE.open(newline="") as file:
        head, *lines = list(csv.reader(file))
    path, out = tmp_path / "runs.csv", tmp_path / "out.csv"
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *(line for line in lines if line[0] in ("MLP-039", "LF-085"))])
    assert main(["validate", "--runs", str(path), "--out", str(out)]) == 70
    assert "ZeroDivisionError: by hand" in capsys.readouterr().err
    rows = {row["id"]: row for row in csv.DictReader(out.open())}
    assert rows["LF-085"]["refused"] == "a bug of ours: ZeroDivisionError: by hand" and rows["MLP-039"]["predicted_s"]


def test_processes_give_what_one_gives():
    from sim.validation.runs.outcome import outcomes

    rows = [BY_ID["MLP-039"], replace(BY_ID["MB-014"], model="mystery"), BY_ID["MLP-041"]]
    both = (outcomes(rows, where) for where in ("local:1", "local:2"))
    one, two = ({o.run.id: (o.predicted_s, o.refused) for o in each} for each in both)
    assert one == two and set(one) == {run.id for run in rows}


COUNTS = re.compile(r"^\| (\S+) \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", re.MULTILINE)


def test_the_page_of_the_checkout_counts_the_rows_that_ship():
    written = {
        name: tuple(map(int, counts)) for name, *counts in COUNTS.findall((ROOT / records.RUNS).read_text("utf-8"))
    }
    for family in dict.fromkeys(run.family for run in ROWS):
        given = sum(run.family == family for run in ROWS)
        wanted = sum(run.family == family for run in ASKED)
        assert written[family][:2] == (given, wanted), f"{family}: run validate --runs {FILE.name} --write"
        assert written[family][2] + written[family][3] == wanted
    assert written["all"][:2] == (633, 537) and written["all"][2] >= 480
