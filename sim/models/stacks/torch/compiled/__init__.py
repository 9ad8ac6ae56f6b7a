"""What torch.compile makes of blocks: products and attention as they are, all else in few fused kernels."""

from sim.models.stacks.torch.compiled import attention, ends, feed_forward, latent

__all__ = ["attention", "ends", "feed_forward", "latent"]
