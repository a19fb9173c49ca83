"""Random affine pairs of edge tiles, made on the device: what the affine MLP of paper 3.3 learns from.

A pair is a tile of true edges and the same place of the map as a network might predict it: moved by a random affine
theta (see `models.affine_mlp` for its direction), blurred, weaker, with edges missing and edges that are not there.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key
from ml_collections import ConfigDict

from sazs_jax.edges import TILE, blur_tiles, edge_tiles
from sazs_jax.errors import UserError

MIN_EDGE = 16.0  # summed edge of a tile that motion can be told from, in raster samples
MIN_ANISOTROPY = 0.1  # least ratio of its structure tensor's eigenvalues: along a straight line motion cannot be seen


class AffinePairs(NamedTuple):
    """Tiles in [0, 1] and the theta between them; `usable` says of which it can be learnt."""

    true: Float[Array, "N R R"]
    predicted: Float[Array, "N R R"]
    theta: Float[Array, "N 3 3"]
    usable: Bool[Array, "N"]


def check_affine_settings(config: ConfigDict) -> None:
    """Raise a UserError where the `affine` group holds a range that cannot work, or no motion at all."""
    motions = ("rotation", "log_scale", "shear", "shift")
    largest = dict.fromkeys((*motions, "blur"), math.inf) | dict.fromkeys(("missing", "spurious", "weakest"), 1.0)
    largest |= {"rotation": 180.0, "floor": 0.99}
    for key, most in largest.items():
        if not (0 <= config[key] <= most and config[key] < math.inf):  # nor NaN
            wanted = f"from 0 to {most:g}" if most < math.inf else "of at least 0"
            raise UserError(f"affine.{key}={config[key]}: expected a number {wanted}")
    if not any(config[key] for key in motions):
        raise UserError(f"affine.{', affine.'.join(motions)} are all 0: expected one above 0, or nothing can be learnt")


def affine_pairs(
    edges: Float[Array, "B H W"], keys: Key[Array, "B"], patches: tuple[int, int], config: ConfigDict
) -> AffinePairs:
    """A pair for half of the tiles of each edge map: those that show motion, as far as there are as many.

    Args:
      edges: edge maps in [0, 1].
      keys: one an image.
      patches: rows and columns of tiles.
      config: the `affine` group: ranges of the transforms and of the disturbances.
    """
    tiles = edge_tiles(edges, patches)  # (B, T, R, R)
    batch, count = tiles.shape[0], -(-tiles.shape[1] // 2)
    usable = shows_motion(tiles)
    places = jnp.argsort(~usable, axis=1)[:, :count]  # about a third is usable
    true = jnp.take_along_axis(tiles, places[..., None, None], axis=1)
    keys = jax.vmap(lambda key: jax.random.split(key, count))(keys)  # (B, count)
    theta = jax.vmap(jax.vmap(lambda key: random_theta(jax.random.fold_in(key, 0), config)))(keys)
    moved = move_tiles(tiles, places, theta, patches)
    other = jnp.roll(moved, count // 2, axis=1)  # edges of another place of the image, for those that are not there
    predicted = jax.vmap(jax.vmap(lambda key, a, b: disturb(jax.random.fold_in(key, 1), a, b, config)))(
        keys, moved, other
    )
    pairs = AffinePairs(true, predicted, theta, jnp.take_along_axis(usable, places, axis=1))
    return jax.tree.map(lambda x: x.reshape(batch * count, *x.shape[2:]), pairs)


def random_theta(key: Key[Array, ""], config: ConfigDict) -> Float[Array, "3 3"]:
    """Rotation x shear x scale and a shift, each uniform within +- its range."""
    turn, shear, log_x, log_y, x, y = jax.random.uniform(key, (6,), minval=-1.0)
    return make_theta(
        rotation=turn * config.rotation,
        shear=shear * config.shear,
        log_scale=(log_x * config.log_scale, log_y * config.log_scale),
        shift=(x * config.shift, y * config.shift),
    )


def make_theta(*, rotation=0.0, shear=0.0, log_scale=(0.0, 0.0), shift=(0.0, 0.0)) -> Float[Array, "3 3"]:
    """The 3x3 matrix of a rotation (degrees) x shear x scale (natural logarithms) and a shift (half tiles)."""
    angle = jnp.deg2rad(rotation)
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    linear = jnp.array([[cos, -sin], [sin, cos]]) @ jnp.array([[1.0, shear], [0.0, 1.0]])
    linear = linear * jnp.exp(jnp.array(log_scale))
    top = jnp.concatenate([linear, jnp.array(shift)[:, None]], axis=1)
    return jnp.concatenate([top, jnp.array([[0.0, 0.0, 1.0]])])


def move_tiles(
    tiles: Float[Array, "B T R R"], places: Int[Array, "B N"], theta: Float[Array, "B N 3 3"], patches: tuple[int, int]
) -> Float[Array, "B N R R"]:
    """The tiles at `places` (of 0..T-1) moved by their theta, bilinear; what comes in is what the map shows there."""
    batch, _, size, _ = tiles.shape
    rows, columns = patches
    whole = tiles.reshape(batch, rows, columns, size, size).swapaxes(2, 3).reshape(batch, rows * size, columns * size)
    line = (jnp.arange(size) + 0.5) * 2 / size - 1  # centres of the samples in [-1, 1]
    y, x = jnp.meshgrid(line, line, indexing="ij")
    positions = jnp.stack([x, y, jnp.ones_like(x)], axis=-1)  # (R, R, 3)

    def move(image, theta, index):
        row, column = jnp.divmod(index, columns)
        at_x, at_y, _ = jnp.moveaxis(jnp.einsum("ij,yxj->yxi", theta, positions), -1, 0)
        at_y = row * size + (at_y + 1) * size / 2 - 0.5
        at_x = column * size + (at_x + 1) * size / 2 - 0.5
        return jax.scipy.ndimage.map_coordinates(image, [at_y, at_x], order=1)

    of_image = jax.vmap(move, in_axes=(None, 0, 0))
    return jax.vmap(of_image)(whole, theta, places)


def disturb(
    key: Key[Array, ""], tile: Float[Array, "R R"], other: Float[Array, "R R"], config: ConfigDict
) -> Float[Array, "R R"]:
    """A tile as a network might predict it: parts missing, parts of `other` added, blurred, weaker, on grey."""
    missing_key, spurious_key, key = jax.random.split(key, 3)
    missing, spurious, strength, blur, factor, floor = jax.random.uniform(key, (6,))
    tile = tile * (_blotches(missing_key) >= missing * config.missing)
    shown = other * (_blotches(spurious_key) < spurious * config.spurious)
    tile = jnp.maximum(tile, shown * strength)
    tile = blur_tiles(tile, blur * config.blur)
    floor = floor * config.floor
    return floor + (1 - floor) * tile * (config.weakest + (1 - config.weakest) * factor)


def shows_motion(tiles: Float[Array, "B T R R"]) -> Bool[Array, "B T"]:
    """Whether a tile holds enough edge, running in more than one direction, to see any motion of it."""
    dy, dx = jnp.gradient(tiles, axis=(-2, -1))
    xx, yy, xy = (jnp.sum(p, axis=(-2, -1)) for p in (dx * dx, dy * dy, dx * dy))
    mean, spread = (xx + yy) / 2, jnp.sqrt(((xx - yy) / 2) ** 2 + xy**2)
    enough = jnp.sum(tiles, axis=(-2, -1)) >= MIN_EDGE
    return enough & (mean - spread >= MIN_ANISOTROPY * (mean + spread))


def _blotches(key: Key[Array, ""]) -> Float[Array, "R R"]:
    """A smooth random field over a tile, in [0, 1]."""
    return jax.image.resize(jax.random.uniform(key, (5, 5)), (TILE, TILE), "linear")
