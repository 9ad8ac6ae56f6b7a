"""A training run whose steps ask the host for nothing: data, schedules and counters lie on the device.

A step is one or more micro-batches and an update, each a CUDA graph on a GPU; on a CPU the same functions run as they
are. The next batch is found by a counter on the device in an order drawn by the seed, a schedule's value by another.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hwmodels.refused import Refused
from numerics import ops
from numerics.layers.model import Losses, Model
from numerics.training.average import Average
from numerics.training.corpus import Corpus, windows
from numerics.training.flat import Flat
from numerics.training.settings import Settings

LOSS, NORM, MAXVIO = 0, 1, 2
"""Columns of a history: next-token loss in nats, the gradient's norm before clipping, MaxVio of mixture layers."""
WARM = 3
"""Steps before a capture: every kernel is compiled, every library has its workspace."""


class Run:
    """Settings and a corpus on a device, at some step."""

    def __init__(
        self, settings: Settings, corpus: Corpus, device: str = "cpu", moved: int | None = None,
        start: Path | None = None,
    ) -> None:  # fmt: skip
        """start: a checkpoint to begin from. moved: seed of signs with which every weight is moved by one ulp."""
        self.settings, self.device = settings, torch.device(device)
        s = settings
        torch.manual_seed(s.seed)
        self.model = Model(s.config).to(self.device)
        self.flat = Flat(self.model)
        kind = torch.bfloat16 if s.moments == "bf16" else torch.float32
        self.moments = [torch.zeros_like(self.flat.weights, dtype=kind) for _ in range(2)]
        self.gates = self.model.gates
        self.step, self.done = self._number(0), 0
        self.cursor, self.loss = self._number(0), torch.zeros((), device=self.device)
        self.history = torch.zeros(s.steps, MAXVIO + len(self.gates), device=self.device)
        self.tables = self._tables()
        self.stream, self.order = self._data(corpus.train, torch.Generator().manual_seed(s.seed))
        self.held = self._held(corpus)
        self.evaluations: list[dict[str, Any]] = []
        self.average = Average(self.flat.weights, s.average) if s.average else None
        if start is not None:
            self.begin(start)
        if moved is not None:
            self.flat.moved(torch.Generator().manual_seed(moved))
        self._micro: Callable[[], object] = self.micro
        self._update: Callable[[], object] = self.update
        self._score: Callable[[], object] = self.score
        self.batch = torch.zeros(s.batch, s.length + 1 + s.model.mtp_depth, dtype=torch.int64, device=self.device)
        self.scored = torch.zeros((), device=self.device)

    def _number(self, value: int) -> Tensor:
        return torch.full((1,), value, dtype=torch.int64, device=self.device)

    def _tables(self) -> Tensor:
        """FP32 [steps, 6]: rate, two corrections of moments, 1 / micro-batches, bias speed, prediction weight."""
        s, rows = self.settings, []
        for i in range(s.steps):
            corrections = 1 / (1 - s.beta1 ** (i + 1)), 1 / (1 - s.beta2 ** (i + 1))
            aims = s.bias_speed.at(i, s.steps), s.mtp_weight.at(i, s.steps)
            rows.append((s.rate.at(i, s.steps), *corrections, 1 / s.micro_batches.at(i), *aims))
        return torch.tensor(rows, dtype=torch.float32).to(self.device)

    def _data(self, tokens: Any, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The stream on the device, and the order of its windows (a whole number of micro-batches of them)."""
        s = self.settings
        every = len(windows(tokens, s.length, 1 + s.model.mtp_depth))
        count = every // s.batch * s.batch
        if not count:
            raise Refused(f"{len(tokens)} tokens hold no batch of {s.batch} sequences of {s.length}; use smaller ones")
        order = torch.randperm(every, generator=generator)[:count] * s.length
        return torch.from_numpy(tokens.astype("int32")).to(self.device), order.to(self.device)

    def _held(self, corpus: Corpus) -> Tensor:
        """[batches, B, S + ahead]: the first windows of the held-out side, always the same."""
        s = self.settings
        rows = torch.from_numpy(windows(corpus.held, s.length, 1 + s.model.mtp_depth).astype("int64"))
        count = min(s.held, len(rows) // s.batch)
        if not count:
            raise Refused(f"{len(corpus.held)} held-out tokens hold no batch of {s.batch} sequences of {s.length}")
        return rows[: count * s.batch].view(count, s.batch, -1).to(self.device)

    # --- what a step does ---------------------------------------------------------------------------------------------

    def micro(self) -> None:
        """Gradients of the next micro-batch, added to what is there."""
        s = self.settings
        place = (self.cursor * s.batch + torch.arange(s.batch, device=self.device)) % len(self.order)
        ahead = torch.arange(s.length + 1 + s.model.mtp_depth, device=self.device)
        losses = self.model.losses(self.stream[self.order[place][:, None] + ahead].long())
        self._total(losses).backward()
        self.loss += losses.next_token.detach()
        self.cursor += 1

    def _total(self, losses: Losses) -> Tensor:
        ahead = sum(losses.mtp) / len(losses.mtp) * self.tables[self.step, 5][0] if losses.mtp else 0.0
        return losses.next_token + losses.balance + ahead

    @torch.no_grad()
    def update(self) -> None:
        """Clip, AdamW, the gates' biases, and a row of the history."""
        s, row = self.settings, self.tables[self.step][0]
        norm = torch.linalg.vector_norm(self.flat.gradients) * row[3]
        factor = row[3] * torch.clamp(s.clip / (norm + 1e-6), max=1.0)
        scalars = torch.cat([row[:3], factor[None]])
        for part, decay in ((slice(None, self.flat.decayed), s.decay), (slice(self.flat.decayed, None), 0.0)):
            state = (x[part] for x in (self.flat.weights, self.flat.gradients, *self.moments))
            ops.adamw(*state, scalars, (s.beta1, s.beta2), s.eps, decay)
        figures = torch.stack([self.loss * row[3], norm, *(violation(gate.load) for gate in self.gates)])
        self.history.index_copy_(0, self.step, figures[None])
        self.model.update_biases(row[4])
        self.loss.zero_()
        self.step += 1

    @torch.no_grad()
    def score(self) -> None:
        """The loss on `batch`, into `scored`."""
        self.scored.copy_(self.model.losses(self.batch).next_token)

    # --- many steps ---------------------------------------------------------------------------------------------------

    def train(self, until: int | None = None) -> None:
        """Steps up to number `until` (all of them), without waiting for any."""
        s = self.settings
        for i in range(self.done, s.steps if until is None else min(s.steps, until)):
            for _ in range(s.micro_batches.at(i)):
                self._micro()
            self._update()
            self.done = i + 1
            if self.average and self.done % s.average_every == 0:
                self.average.take(self.flat.weights)

    def evaluate(self) -> dict[str, Any]:
        """Mean loss of the held-out tokens, nats, and MaxVio of each mixture layer over all of them."""
        losses = []
        for batch in self.held:
            self.batch.copy_(batch)
            self._score()
            losses.append(self.scored.clone())
        skewed = [float(violation(gate.load)) for gate in self.gates]
        for gate in self.gates:
            gate.load.zero_()
        return {"loss": float(torch.stack(losses).mean()), "maxvio": skewed}

    def capture(self) -> None:
        """Micro-batch, update and score as CUDA graphs; the run's state is as before."""
        before = self.state()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM):
                self.micro()
                self.update()
                self.score()
        torch.cuda.current_stream().wait_stream(side)
        self._micro, self._update, self._score = graph(self.micro), graph(self.update), graph(self.score)
        self.restore(before)

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def _places(self) -> dict[str, Tensor]:
        """Every tensor that a run changes."""
        biases = {f"bias {i}": gate.bias for i, gate in enumerate(self.gates) if gate.bias is not None}
        loads = {f"load {i}": gate.load for i, gate in enumerate(self.gates)}
        own = {"weights": self.flat.weights, "gradients": self.flat.gradients, "first": self.moments[0],
               "second": self.moments[1], "step": self.step, "cursor": self.cursor, "loss": self.loss,
               "history": self.history}  # fmt: skip
        return own | biases | loads | ({"average": self.average.weights} if self.average else {})

    def state(self) -> dict[str, Any]:
        """Copies of all that a run changes, on the host, and what it is a run of."""
        if self.average:
            self.average.wait()
        tensors = {name: x.detach().to("cpu", copy=True) for name, x in self._places().items()}
        held = list(self.evaluations)
        return {"tensors": tensors, "done": self.done, "settings": asdict(self.settings), "held": held}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from there. Raises Refused where it is the state of another run."""
        if state["settings"] != asdict(self.settings):
            odd = [key for key, value in asdict(self.settings).items() if state["settings"].get(key) != value]
            raise Refused(f"a checkpoint of another run: {', '.join(odd)} differ")
        for name, x in self._places().items():
            x.detach().copy_(state["tensors"][name])
        self.done, self.evaluations = state["done"], list(state.get("held", ()))

    def save(self, path: Path) -> None:
        """A checkpoint; the file is whole or not there."""
        part = path.with_suffix(".part")
        torch.save(self.state(), part)
        part.replace(path)

    def begin(self, path: Path) -> None:
        """Start from the weights and biases of another run's checkpoint, with its own moments, order and schedules."""
        tensors = torch.load(path, weights_only=True)["tensors"]
        for name, x in self._places().items():
            if name == "weights" or name.startswith("bias"):
                x.detach().copy_(tensors[name])

    def resume(self, path: Path) -> None:
        self.restore(torch.load(path, weights_only=True))


def violation(load: Tensor) -> Tensor:
    """MaxVio (arXiv 2408.15664 sec 4.1): by how much of the mean the fullest expert's load is above it."""
    return load.max() / load.mean().clamp(min=1.0) - 1.0


def graph(call: Callable[[], object]) -> Callable[[], object]:
    """`call` recorded once, to be replayed."""
    recorded = torch.cuda.CUDAGraph()
    with torch.cuda.graph(recorded):
        call()
    return recorded.replay
