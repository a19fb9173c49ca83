"""The boundary head: where a feature map sees the edges of objects (paper 3.3)."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sazs_jax.models.convolutions import Conv

LOGIT_STRIDE = 4  # pixels a logit, whatever the stride of the feature map


class BoundaryHead(nnx.Module):
    """A 1x1 convolution on a middle feature map.

    A cell of the map is wider than an edge, so it gives one logit for each LOGIT_STRIDE pixels rather than one in all.
    """

    def __init__(self, channels: int, stride: int, *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.cells = max(stride // LOGIT_STRIDE, 1)  # logits a side of one feature cell
        self.norm = nnx.LayerNorm(channels, dtype=dtype, rngs=rngs)
        self.conv = Conv(channels, self.cells**2, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(self, features: Float[Array, "B h w C"]) -> Float[Array, "B h2 w2"]:
        """Boundary logits, float32, (h2, w2) = `cells` times (h, w)."""
        logits = self.conv(self.norm(features)).astype(jnp.float32)
        batch, height, width, _ = logits.shape
        logits = logits.reshape(batch, height, width, self.cells, self.cells).swapaxes(2, 3)  # (B, h, n, w, n)
        return logits.reshape(batch, height * self.cells, width * self.cells)
