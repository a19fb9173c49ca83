"""Edges of a label map, and the tiles that true and predicted edges are compared in (paper 3.3)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Shaped, UInt8
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.label_map import VOID, is_void

TILE = 32  # raster of a tile, samples a side, whatever its size in the image
GROUND_DISTANCE = 4  # pixels from a true edge, beyond which a soft prediction of it has faded


def check_edge_settings(config: ConfigDict) -> None:
    """Raise a UserError where `patches`, `edge_width` or `void_band` of the `loss` group cannot work."""
    whole = all(isinstance(n, int) and n > 0 for n in config.patches)
    if len(config.patches) != 2 or not whole or config.edge_width not in range(2, 33, 2) or not config.void_band >= 0:
        raise UserError(
            f"loss.patches={tuple(config.patches)}, loss.edge_width={config.edge_width}, "
            f"loss.void_band={config.void_band}: expected rows and columns, an even width from 2 to 32, a band from 0"
        )


def edge_targets(
    labels: UInt8[Array, "B H W"], *, void_band: int, width: int
) -> tuple[Bool[Array, "B H W"], Bool[Array, "B H W"]]:
    """Where two labelled regions meet: pixels at which Sobel's operator on the mask of some label is not 0.

    Thin void is closed first (`close_thin_void`). Void that stays and the image's frame give no edge.

    Args:
      labels: a remapped label map.
      void_band: half of the widest void band that is sure to be closed, pixels.
      width: of the edges in pixels, even; Sobel's own is 2.

    Returns:
      The edges, and the pixels whose target is known: those out of reach of void. No edge is outside them.
    """
    labels = close_thin_void(labels, void_band)
    void = is_void(labels)
    known = ~_dilate(void)
    edges = _sobel_is_nonzero(labels) & known
    unknown = ~known
    for _ in range(width // 2 - 1):
        edges, unknown = _dilate(edges), _dilate(unknown)
    known = (edges | ~unknown) & ~void
    return edges & known, known


def close_thin_void(labels: UInt8[Array, "B H W"], band: int) -> UInt8[Array, "B H W"]:
    """Grow the labels on both sides into void bands; void that they do not fill stays as it was.

    Bands up to 2 * `band` pixels wide close in every direction, none that is wider than 3 * `band` does; between these
    the slant decides. VOC's masks draw such a band on every outline: closed, the regions meet in its middle. `IGNORED`
    grows as a label does, so that this holds beside an unseen object too, and no label grows into it. Steps to eight
    and to four neighbours take turns: an octagon.
    """

    def grow(step, grown):  # void is the largest value
        nearest = _around(grown, step, VOID, jnp.minimum)
        return jnp.where(grown == VOID, nearest, grown)

    def recover(step, wide):
        return wide | (void & _around(wide, step, False, jnp.logical_or))

    void = labels == VOID
    grown = jax.lax.fori_loop(0, band, grow, labels)
    # What growth did not reach is the core of wide void; twice the band reaches its corners again.
    wide = jax.lax.fori_loop(0, 2 * band, recover, grown == VOID)
    return jnp.where(wide, jnp.uint8(VOID), grown)


def holds_edge(edges: Bool[Array, "B H W"], patches: tuple[int, int]) -> Bool[Array, "B T"]:
    """Whether a pixel on an edge lies in each of rows x columns patches."""
    _, height, width = edges.shape
    row, column = (
        jnp.arange(count)[:, None] == jnp.arange(size) * count // size
        for count, size in zip(patches, (height, width), strict=True)
    )  # (rows, H) and (columns, W), the patch of each pixel
    counts = jnp.einsum("rh,bhw,cw->brc", *(x.astype(jnp.float32) for x in (row, edges, column)))
    return counts.reshape(len(edges), -1) > 0


def edge_tiles(edges: Float[Array, "B H W"], patches: tuple[int, int]) -> Float[Array, "B T R R"]:
    """Split edge maps into rows x columns patches, each resampled (antialiased) to one raster of TILE x TILE."""
    rows, columns = patches
    batch = edges.shape[0]
    raster = jax.image.resize(edges, (batch, rows * TILE, columns * TILE), "linear")
    tiles = raster.reshape(batch, rows, TILE, columns, TILE).swapaxes(2, 3)  # (B, rows, columns, R, R)
    return tiles.reshape(batch, rows * columns, TILE, TILE)


def known_tiles(
    predicted: Float[Array, "B H W"],
    edges: Bool[Array, "B H W"],
    known: Bool[Array, "B H W"],
    patches: tuple[int, int],
) -> Float[Array, "B T R R"]:
    """`edge_tiles` of a prediction whose unknown pixels are filled with its ground in that tile.

    So the border of what is known shows no edge, and nothing that is predicted beyond it has any effect. The ground is
    the mean over known pixels farther than GROUND_DISTANCE from a true edge; over nearer ones where there are no such.
    """
    near = edges
    for _ in range(GROUND_DISTANCE):
        near = _dilate(near)
    is_known = known.astype(jnp.float32)
    weight = jnp.where(known & ~edges, jnp.where(near, 1e-3, 1.0), 0.0)
    maps = jnp.stack([predicted * is_known, is_known, predicted * weight, weight])
    shown, share, ground, weights = jax.vmap(lambda x: edge_tiles(x, patches))(maps)
    ground, weights = (jnp.sum(x, axis=(2, 3), keepdims=True) for x in (ground, weights))  # (B, T, 1, 1)
    return shown + (1 - share) * ground / jnp.maximum(weights, 1e-6)


def blur_tiles(tiles: Float[Array, "*N R R"], sigma: float | Float[Array, ""]) -> Float[Array, "*N R R"]:
    """Gaussian blur, `sigma` in samples of a tile, cut off at 6; beyond its frame a tile repeats its border."""
    offsets = jnp.arange(-6, 7)
    kernel = jnp.exp(-0.5 * (offsets / jnp.maximum(sigma, 1e-3)) ** 2)
    taps = jnp.clip(jnp.arange(TILE)[:, None] + offsets, 0, TILE - 1)  # (R, 13)
    weights = jnp.zeros((TILE, TILE)).at[jnp.arange(TILE)[:, None], taps].add(kernel / kernel.sum())
    return jnp.einsum("ab,...bc,dc->...ad", weights, tiles, weights)


def _sobel_is_nonzero(labels: UInt8[Array, "B H W"]) -> Bool[Array, "B H W"]:
    """Whether, for the mask of any label, one of Sobel's two derivatives is not 0; the frame repeats outwards."""
    _, height, width = labels.shape
    padded = jnp.pad(labels, ((0, 0), (1, 1), (1, 1)), mode="edge")
    at = [[padded[:, y : y + height, x : x + width] for x in range(3)] for y in range(3)]
    return _differ([at[y][0] for y in range(3)], [at[y][2] for y in range(3)]) | _differ(at[0], at[2])


def _differ(a: list[jax.Array], b: list[jax.Array]) -> Bool[Array, "B H W"]:
    """Whether two triples of labels, weighted 1, 2, 1 as in Sobel's operator, hold different amounts of some label."""
    ends_agree = ((a[0] == b[0]) & (a[2] == b[2])) | ((a[0] == b[2]) & (a[2] == b[0]))
    exchanged = (a[0] == a[2]) & (a[0] == b[1]) & (b[0] == b[2]) & (b[0] == a[1])  # x y x against y x y
    return ~(((a[1] == b[1]) & ends_agree) | exchanged)


def _dilate(mask: Bool[Array, "B H W"]) -> Bool[Array, "B H W"]:
    """The mask and its eight neighbours."""
    return _around(mask, 0, False, jnp.logical_or)


def _around(x: Shaped[Array, "B H W"], step: int | Int[Array, ""], outside: int | bool, join: Callable) -> jax.Array:
    """`join` of every pixel and its eight neighbours (even `step`) or four (odd); `outside` beyond the frame."""
    vertical = jnp.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=outside)
    vertical = join(join(vertical[:, :-2], vertical[:, 2:]), x)
    centre = jnp.where(step % 2 == 0, vertical, x)
    beside = jnp.pad(centre, ((0, 0), (0, 0), (1, 1)), constant_values=outside)
    return join(join(beside[..., :-2], beside[..., 2:]), vertical)
