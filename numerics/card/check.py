"""`python -m numerics check`: the three correctness legs of every kernel, those that this machine can run.

1. semantics: the kernels in Triton's interpreter against the reference, on the CPU (the tests of this repository)
2. code: every variant that the bench would launch, cross-compiled for sm_90a: FP8 or BF16 wgmma there, no spills
3. device: the kernels on the CUDA device against the reference, at the bench's quick shapes

What cannot run is said, with the reason; it does not fail the check.
"""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from numerics.kernels.launches import Launch

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests" / "numerics"
WGMMA = {
    "wgmma._products": "QGMMA", "gemm._gemm": "QGMMA", "wgrad._wgrad": "QGMMA", "grouped._grouped": "QGMMA",
    "attention._forward": "HGMMA", "attention._queries": "HGMMA", "attention._keys": "HGMMA",
    "flash._forward": "HGMMA", "flash_backward._backward": "HGMMA",
}  # fmt: skip
"""SASS opcode of the warp-group product that a kernel must use: QGMMA for FP8, HGMMA for BF16."""
SPILLS = {"flash._forward": 32, "flash_backward._backward": 112}
"""Bytes of spills a thread that a kernel may have: what is fixed for a tile, stored before its loop and read once a
tile or in the branch that masks (Triton 3.6.0 and 3.7.1)."""

Show = Callable[[str], None]


class Impossible(Exception):  # noqa: N818 - it names what cannot be done here
    """A leg that this machine cannot run; its text says why."""


def run(show: Show) -> bool:
    """Run what can be run; whether all of it passed."""
    legs: dict[str, Callable[[Show], bool]] = {"semantics": semantics, "code": code, "device": device}
    passed = True
    for name, leg in legs.items():
        try:
            good = leg(show)
            show(f"{name}: {'passed' if good else 'FAILED'}")
            passed &= good
        except Impossible as why:
            show(f"{name}: not run here: {why}")
    return passed


def semantics(show: Show) -> bool:
    """Leg 1, as pytest runs it: in a process of its own, since the interpreter is chosen before triton is imported."""
    _need("torch", "triton", "pytest")
    if not TESTS.is_dir():
        raise Impossible(f"the tests are not installed ({TESTS} is missing); run from a checkout")
    if _release("triton") < (3, 7) and _release("numpy") >= (2, 4):
        raise Impossible("the interpreter of Triton 3.6 cannot loop to a computed bound with NumPy 2.4 or later")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "--no-header", str(TESTS / "kernels")]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        show(done.stdout[-4000:])
    else:
        show("  " + (done.stdout.strip().splitlines() or ["no test ran"])[-1])
    return done.returncode == 0


def code(show: Show) -> bool:
    """Leg 2."""
    _need("torch", "triton")
    from numerics.kernels.compile import compiler_available

    if not compiler_available():
        raise Impossible("this Triton ships no ptxas, cuobjdump or nvdisasm")
    variants = list(compiled())
    wrong = [(where, failures) for where, failures in variants if failures]
    for where, failures in wrong:
        show(f"  {where}: {'; '.join(failures)}")
    show(f"  {len(variants)} variants compiled for sm_90a, {len(wrong)} of them wrong")
    return not wrong


def compiled(quick: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Every distinct launch of the bench: where it is used, and what is wrong with its code."""
    from numerics.card.workload import cases
    from numerics.kernels.launches import variants

    seen: set[str] = set()
    for case in cases(quick):
        for name, call in case.build("meta").ours.items():
            for launch in variants(call):
                if launch.key not in seen:
                    seen.add(launch.key)
                    yield f"{case.family} {case.name} {name}: {launch.kernel.__name__}", faults(launch)


def faults(launch: "Launch") -> list[str]:
    """What is wrong with the code of a launch: no wgmma where there must be, or spilled registers."""
    report = launch.compile()
    function = launch.kernel.fn
    name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
    defects = [f"{report.spills} bytes of spills a thread"] if report.spills > SPILLS.get(name, 0) else []
    opcode = WGMMA.get(name)
    if opcode and not report.instructions(opcode):
        defects.append(f"no {opcode}")
    return defects


def device(show: Show) -> bool:
    """Leg 3."""
    from numerics.card.measure import NoDevice, require_device

    try:
        require_device()
    except NoDevice as none:
        raise Impossible(str(none).partition(": ")[2]) from None
    _need("triton")
    from numerics.card import sums
    from numerics.card.bench import verify
    from numerics.card.workload import cases

    wrong = tensor_core(show) + layers(show)
    for name, failure in sums.differing("cuda"):
        show(f"  bits of {name}: {failure or 'passed'}")
        wrong += bool(failure)
    for case in cases(quick=True):
        work = case.build("cuda")
        for name, call in work.ours.items():
            failure = "" if name in work.unverified else verify(work, call)
            show(f"  {case.family} {case.name} {name}: {failure or 'passed'}")
            wrong += bool(failure)
    return not wrong


def layers(show: Show) -> int:
    """Whether a training step on the kernels is the reference's: the tests that need the card, in a process of their
    own, since the tests of this repository hide it otherwise."""
    path = TESTS / "layers" / "test_layers_device.py"
    if not path.is_file() or importlib.util.find_spec("pytest") is None:
        show("  layers: not run here: the tests or pytest are not installed")
        return 0
    command = [sys.executable, "-m", "pytest", "--no-header", "-p", "no:cacheprovider", str(path)]
    environment = {**os.environ, "TRAINYARD_CARD": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines() or ["no test ran"]
    for line in [line for line in lines if line.startswith("E  ")][:6] + lines[-1:]:
        show("  layers: " + line)
    return done.returncode


def multiplied(a: "Tensor", b: "Tensor", device: str = "cuda") -> "Tensor":
    """e4m3 a [M, 128], b [N, 128] -> a b^T float32 by our kernel, unscaled and not promoted."""
    import torch

    from numerics.kernels.wgrad import wgrad_gemm

    ones = [torch.ones(len(x), 1, device=device) for x in (a, b)]
    out = torch.zeros(len(a), len(b), device=device)
    return wgrad_gemm(a.to(device), ones[0], b.to(device), ones[1], out).cpu()


def tensor_core(show: Show, multiply: "Callable[[Tensor, Tensor], Tensor]" = multiplied) -> int:
    """Whether FP8 products are added as the model of Hopper says: how many of the probes and random sums differ."""
    import torch

    from numerics.reference import hopper

    readings = hopper.ask(multiply).values()
    odd = sum(hopper.HOPPER.accumulator not in reading for reading in readings)
    for spread, sign in ((1.0, 0), (4.0, 0), (0.25, 0), (1.0, 1)):
        draws = [torch.randn(256, hopper.TILE) * spread for _ in "ab"]
        a, b = ((x.abs() if sign else x).to(torch.float8_e4m3fn) for x in draws)
        odd += bool((multiply(a, b) != hopper.gemm(a, b)).any())
    show(f"  tensor core: {f'{odd} answers are not' if odd else 'every sum is'} the model's of reference.hopper")
    return odd


def _release(package: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(number) for number in version(package).split(".")[:2])


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Impossible(f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed")
