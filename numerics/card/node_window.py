"""Memory of this GPU that all GPUs of a node may write (torch's symmetric memory), where there is any.

It is torch's private module and was never run by this project: whatever it raises is told in a line, and the caller
goes on without. NVLink multicast stays off (`numerics.card.node.begin`).
"""

import sys
from typing import Any, NamedTuple

import torch
import torch.distributed as dist


class Window(NamedTuple):
    """mine: int64 [words] of this rank; pointers: int64 [ranks], where each rank's begins, as seen from here."""

    mine: torch.Tensor
    pointers: torch.Tensor
    handle: Any

    def meet(self) -> None:
        """Until every rank's kernels before this one are through, on the current stream."""
        self.handle.barrier()

    def of(self, rank: int) -> torch.Tensor:
        """Another rank's, as a tensor; copies into it take the copy engine."""
        held: torch.Tensor = self.handle.get_buffer(rank, tuple(self.mine.shape), torch.int64)
        return held


def opened(words: int, device: str) -> Window | None:
    """A window of as many words on every rank, or none on all if a rank has none; rank 0 says why."""
    held = _tried(words) if device != "cpu" else "symmetric memory is of GPUs, these are CPU processes"
    reason = held if isinstance(held, str) else ""
    reasons: list[str | None] = [None] * dist.get_world_size()
    dist.all_gather_object(reasons, reason)
    if absent := [each for each in reasons if each]:
        if dist.get_rank() == 0:
            print(f"no symmetric memory: {absent[0]}; what would use it goes without", file=sys.stderr, flush=True)
        return None
    assert not isinstance(held, str)
    return held


def _tried(words: int) -> Window | str:
    """A window, or why there is none."""
    try:
        import torch.distributed._symmetric_memory as symmetric

        here = torch.device("cuda", torch.cuda.current_device())
        mine = symmetric.empty(words, dtype=torch.int64, device=here)
        handle = symmetric.rendezvous(mine, dist.group.WORLD)
        pointers = torch.tensor(list(handle.buffer_ptrs), dtype=torch.int64, device=here)
    except (ImportError, AttributeError, RuntimeError, TypeError, ValueError) as error:
        return " ".join(str(error).split())[:200] or type(error).__name__
    return Window(mine, pointers, handle)
