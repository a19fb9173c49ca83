"""Affinities between the cells of an image's grid (paper 3.4): Eq. 4, 5 and 6, all in float32 on the device.

A grid of rows x columns cells makes a graph of N = rows * columns nodes, row by row.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8

SELF_AFFINITY = 1e-6  # added to each node's affinity with itself: its degree is never 0, and D - Z stays as it was


def semantic_affinity(features: Float[Array, "B N C"]) -> Float[Array, "B N N"]:
    """Eq. 4 on unit features, negative values cut off: max(F F^T, 0), in [0, 1].

    A node without features (all 0) has affinity 0 with every node.
    """
    unit = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
    return jnp.maximum(jnp.einsum("bic,bjc->bij", unit, unit, precision="highest"), 0.0)


def colour_positions(images: UInt8[Array, "B H W 3"], grid: int) -> Float[Array, "B N 6"]:
    """X of Eq. 5 for the cells of a grid x grid raster: (cos h, sin h, s, v, x, y) of each cell's mean colour.

    Hue is an angle; saturation, value and the position of the cell's centre are in [0, 1].
    """
    batch = len(images)
    cells = jax.image.resize(images.astype(jnp.float32) / 255, (batch, grid, grid, 3), "linear")
    hue, saturation, value = jnp.moveaxis(rgb_to_hsv(cells), -1, 0)
    centres = (jnp.arange(grid) + 0.5) / grid
    y, x = (jnp.broadcast_to(p, hue.shape) for p in (centres[:, None], centres[None, :]))
    stacked = jnp.stack([jnp.cos(hue), jnp.sin(hue), saturation, value, x, y], axis=-1)
    return stacked.reshape(batch, grid * grid, 6)


def rgb_to_hsv(rgb: Float[Array, "*shape 3"]) -> Float[Array, "*shape 3"]:
    """Hue in radians [0, 2 pi), saturation and value in [0, 1], of colours in [0, 1]. Grey has hue 0."""
    red, green, blue = jnp.moveaxis(rgb, -1, 0)
    value = rgb.max(axis=-1)
    chroma = value - rgb.min(axis=-1)
    safe = jnp.where(chroma > 0, chroma, 1.0)
    sixth = jnp.where(
        value == red,
        ((green - blue) / safe) % 6,
        jnp.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    hue = jnp.where(chroma > 0, sixth, 0.0) * (jnp.pi / 3)
    return jnp.stack([hue, chroma / jnp.where(value > 0, value, 1.0), value], axis=-1)


def shape_affinity(x: Float[Array, "B N 6"], neighbours: int) -> Float[Array, "B N N"]:
    """Eq. 5: max(1 - |X_i - X_j|, 0) where j is among the k nearest of i or i among those of j; else 0.

    Args:
      x: of `colour_positions`.
      neighbours: k, the node itself not counted; of equally near nodes the first ones are taken. At most N - 1.
    """
    squares = jnp.sum((x[:, :, None] - x[:, None]) ** 2, axis=-1)  # (B, N, N), exact where colours are equal
    nodes = x.shape[1]
    others = squares + jnp.where(jnp.eye(nodes, dtype=bool), jnp.inf, 0.0)
    _, nearest = jax.lax.top_k(-others, min(neighbours, nodes - 1))  # (B, N, k)
    rows = jnp.arange(nodes)[:, None]
    near = jax.vmap(lambda index: jnp.zeros((nodes, nodes), bool).at[rows, index].set(True))(nearest)
    near = near | near.swapaxes(1, 2)
    return jnp.where(near, jnp.maximum(1 - jnp.sqrt(squares), 0.0), 0.0)


def affinity(
    features: Float[Array, "B N C"], x: Float[Array, "B N 6"], *, color_weight: float, neighbours: int
) -> Float[Array, "B N N"]:
    """Eq. 6: Z_sem + lambda Z_shape, symmetric and not negative, every node's degree above 0.

    Args:
      features: of Eq. 4.
      x: of Eq. 5.
      color_weight: lambda; 0 leaves Eq. 5 out of the program.
      neighbours: k of Eq. 5.
    """
    z = semantic_affinity(features)
    if color_weight:
        z = z + color_weight * shape_affinity(x, neighbours)
    return z + SELF_AFFINITY * jnp.eye(z.shape[1])
