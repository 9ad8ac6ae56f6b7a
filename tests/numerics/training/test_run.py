"""A run learns, resumes bit for bit, and counts what it says it counts."""

from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from hwmodels.refused import Refused  # noqa: E402
from numerics.training.run import LOSS, MAXVIO, Run, violation  # noqa: E402
from numerics.training.schedules import Ramp, Switch  # noqa: E402
from tests.numerics.training import small  # noqa: E402


def test_a_run_learns():
    run = Run(small.SETTINGS, small.corpus())
    before = run.evaluate()["loss"]
    run.train()
    assert run.evaluate()["loss"] < before - 0.2
    assert run.history[-1, LOSS] < run.history[0, LOSS]


@pytest.mark.parametrize("precision, moments", [("bf16", "bf16"), ("fp8", "fp32"), ("E5M2 gradients", "bf16")])
def test_a_run_resumes_bit_for_bit(tmp_path, precision, moments):
    settings = replace(small.SETTINGS, precision=precision, moments=moments, steps=6, average=0.9, average_every=2)
    whole = Run(settings, small.corpus())
    whole.train()
    first = Run(settings, small.corpus())
    first.train(3)
    first.save(tmp_path / "at.pt")
    second = Run(settings, small.corpus())
    second.resume(tmp_path / "at.pt")
    second.train()
    one, other = whole.state()["tensors"], second.state()["tensors"]
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    run = Run(small.SETTINGS, small.corpus())
    run.save(tmp_path / "at.pt")
    with pytest.raises(Refused, match="seed differ"):
        Run(replace(small.SETTINGS, seed=1), small.corpus()).resume(tmp_path / "at.pt")


def test_micro_batches_are_one_batch():
    """Two micro-batches of two sequences give the gradient of one of four."""
    settings = replace(small.SETTINGS, precision="fp32", balance=0.0)
    halves = Run(replace(settings, batch=2, micro_batches=Ramp(2, 2)), small.corpus())
    whole = Run(replace(settings, batch=4, micro_batches=Ramp(1, 1)), small.corpus())
    assert torch.equal(halves.order[:8], whole.order[:8])
    halves.micro(), halves.micro(), whole.micro()
    torch.testing.assert_close(halves.flat.gradients / 2, whole.flat.gradients, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(halves.loss / 2, whole.loss)


def test_a_run_reads_every_window_once_before_any_twice():
    run = Run(small.SETTINGS, small.corpus())
    length, batch = small.SETTINGS.length, small.SETTINGS.batch
    assert len(set(run.order.tolist())) == len(run.order) == (3000 - 1) // length // batch * batch
    assert all(place % length == 0 for place in run.order.tolist())


def test_clipping_bounds_what_the_optimizer_sees():
    """With a first step of AdamW from zero moments, the moment is (1 - beta1) times the clipped gradient."""
    settings = replace(small.SETTINGS, clip=0.01, moments="fp32", micro_batches=Ramp(1, 1))
    run = Run(settings, small.corpus())
    run.micro()
    run.update()
    seen = run.moments[0] / (1 - settings.beta1)
    assert abs(float(seen.norm()) - 0.01) < 1e-4 and run.flat.gradients.abs().max() == 0


def test_moving_weights_by_an_ulp():
    run, moved = Run(small.SETTINGS, small.corpus()), Run(small.SETTINGS, small.corpus(), moved=1)
    a, b = run.flat.weights, moved.flat.weights
    assert ((a != b) == (a != 0)).all()
    steps = (a.view(torch.int32) - b.view(torch.int32))[a != 0].abs()
    assert (steps == 1).all()
    assert torch.equal(run.order, moved.order)


def test_maxvio_of_an_even_and_a_crowded_load():
    assert violation(torch.tensor([5.0, 5.0, 5.0, 5.0])) == 0
    assert violation(torch.tensor([20.0, 0.0, 0.0, 0.0])) == 3


def test_the_history_has_the_load_of_every_mixture_layer():
    run = Run(replace(small.SETTINGS, steps=2), small.corpus())
    run.train()
    assert run.history.shape[1] == MAXVIO + len(run.gates) and (run.history[:, MAXVIO:] > 0).any()
    assert all(gate.load.sum() == 0 for gate in run.gates)


def test_the_average_follows_the_weights():
    settings = replace(small.SETTINGS, average=0.5, average_every=1, steps=1, micro_batches=Ramp(1, 1))
    run = Run(settings, small.corpus())
    start = run.flat.weights.clone()
    run.train()
    run.average.wait()
    torch.testing.assert_close(run.average.weights, (start + run.flat.weights) / 2)


def test_a_step_is_of_the_mean_of_its_micro_batches():
    settings = replace(small.SETTINGS, clip=1e9, moments="fp32", micro_batches=Ramp(2, 2))
    run = Run(settings, small.corpus())
    run.micro()
    run.micro()
    mean = run.flat.gradients / 2
    run.update()
    torch.testing.assert_close(run.moments[0], (1 - settings.beta1) * mean)


def test_norms_do_not_decay():
    """With gradients of zero a matrix shrinks by rate times decay, and a norm's weight stays."""
    run = Run(small.SETTINGS, small.corpus())
    before, rate = run.flat.weights.clone(), small.SETTINGS.rate.at(0, small.SETTINGS.steps)
    run.update()
    kept = 1 - rate * small.SETTINGS.decay
    torch.testing.assert_close(run.flat.weights[: run.flat.decayed], before[: run.flat.decayed] * kept)
    assert torch.equal(run.flat.weights[run.flat.decayed :], before[run.flat.decayed :])
    assert (run.model.norm.weight == 1).all()


def test_prediction_modules_learn_while_their_weight_lasts():
    """lambda 0.3 gives their weights gradients, lambda 0 none, and the model's own loss is the same number."""
    model = replace(small.MODEL, mtp_depth=1)
    runs = [Run(replace(small.SETTINGS, model=model, balance=0.0, mtp_weight=Switch(weight, 0.0, 1.0)), small.corpus())
            for weight in (0.3, 0.0)]  # fmt: skip
    for run in runs:
        run.micro()
    heads = [run.model.predictions[0].projection.weight.grad for run in runs]
    assert heads[0].abs().max() > 0 and heads[1].abs().max() == 0
    assert torch.equal(runs[0].loss, runs[1].loss)
