"""The MLP of paper 3.3: a pair of edge tiles in, the affine transform between them out."""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sazs_jax.edges import blur_tiles

HIDDEN = (1000, 512, 128)
SMOOTHING = 2.0  # standard deviation of the blur that comes first, in samples of a tile


class AffineMLP(nnx.Module):
    """Estimates theta: the predicted tile at position u shows what the true tile shows at theta u.

    Positions are homogeneous (x, y, 1), x to the right and y down, in [-1, 1] over the tile; theta is 3x3 with last row
    (0, 0, 1), the identity where the tiles agree. Parameters and arithmetic are float32.
    """

    def __init__(self, tile: int, *, rngs: nnx.Rngs):
        widths = (2 * tile * tile, *HIDDEN)
        self.hidden = nnx.List(
            nnx.Linear(width, following, rngs=rngs) for width, following in zip(widths, HIDDEN, strict=False)
        )
        self.norms = nnx.List(nnx.LayerNorm(width, rngs=rngs) for width in HIDDEN)
        self.out = nnx.Linear(HIDDEN[-1], 6, kernel_init=nnx.initializers.zeros, rngs=rngs)  # starts at the identity

    def __call__(self, true: Float[Array, "N R R"], predicted: Float[Array, "N R R"]) -> Float[Array, "N 3 3"]:
        """Theta of each pair of tiles with values in [0, 1]."""
        # Thin lines that moved no longer overlap; blurred, they do, and the difference grows smoothly with the motion.
        pair = [unit_contrast(blur_tiles(tiles, SMOOTHING)) for tiles in (true, predicted)]
        x = jnp.concatenate([tiles.reshape(len(tiles), -1) for tiles in pair], axis=-1)
        for layer, norm in zip(self.hidden, self.norms, strict=True):
            x = nnx.relu(norm(layer(x)))
        theta = jnp.eye(2, 3) + self.out(x).reshape(-1, 2, 3)
        last = jnp.broadcast_to(jnp.array([0.0, 0.0, 1.0]), (len(theta), 1, 3))
        return jnp.concatenate([theta, last], axis=1)


def unit_contrast(tiles: Float[Array, "N R R"]) -> Float[Array, "N R R"]:
    """Tiles less their mean, over their standard deviation: how strong an edge is says nothing of its place."""
    tiles = tiles - jnp.mean(tiles, axis=(1, 2), keepdims=True)
    return tiles * (jnp.mean(tiles**2, axis=(1, 2), keepdims=True) + 1e-3) ** -0.5
