"""A moving average of the weights, kept on the host beside training (DeepSeek-V3, arXiv 2412.19437 sec 3.2.3)."""

import torch
from torch import Tensor


class Average:
    """weights FP32 [n] on the host: decay * weights + (1 - decay) * the device's, each time they are taken.

    The copy goes into pinned memory on a stream of its own; training waits for it only where it is not done when the
    next is asked for, the sum for the copy alone.
    """

    def __init__(self, weights: Tensor, decay: float) -> None:
        self.decay = decay
        self.weights = weights.detach().to("cpu", copy=True)
        self.fresh = torch.empty_like(self.weights, pin_memory=weights.is_cuda)
        self.stream = torch.cuda.Stream() if weights.is_cuda else None
        self.pending = False

    def take(self, weights: Tensor) -> None:
        """Begin to take the device's weights in; finish what was begun before."""
        self.wait()
        if self.stream is None:
            self.fresh.copy_(weights)
        else:
            self.stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.stream):
                self.fresh.copy_(weights, non_blocking=True)
            torch.cuda.current_stream().wait_stream(self.stream)  # the next update changes what is being copied
        self.pending = True

    def wait(self) -> None:
        """Until nothing is on its way."""
        if self.pending:
            if self.stream is not None:
                self.stream.synchronize()
            self.weights.lerp_(self.fresh, 1 - self.decay)
            self.pending = False
