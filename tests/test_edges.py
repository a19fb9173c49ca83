"""Edge targets against a reference written pixel by pixel, and what void does to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from sazs_jax.edges import TILE, close_thin_void, edge_targets, edge_tiles, holds_edge, known_tiles
from sazs_jax.label_map import IGNORED, VOID


def reference_closed(labels: np.ndarray, band: int) -> np.ndarray:
    """`close_thin_void` of one map, by breadth-first search."""
    height, width = labels.shape

    def beside(y, x, step):
        for dy, dx in np.ndindex(3, 3):
            near = abs(dy - 1) + abs(dx - 1) <= (1 if step % 2 else 2)
            if near and 0 <= y + dy - 1 < height and 0 <= x + dx - 1 < width:
                yield y + dy - 1, x + dx - 1

    grown = labels.copy()
    for step in range(band):
        before = grown.copy()
        for y, x in zip(*np.nonzero(before == VOID), strict=True):
            grown[y, x] = min((before[p] for p in beside(y, x, step)), default=VOID)
    wide = grown == VOID
    for step in range(2 * band):
        before = wide.copy()
        for y, x in zip(*np.nonzero((labels == VOID) & ~before), strict=True):
            wide[y, x] = any(before[p] for p in beside(y, x, step))
    return np.where(wide, VOID, grown).astype(np.uint8)


def reference_edges(labels: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Edges and known pixels of one map whose thin void is closed: SciPy's Sobel on each label's mask."""
    sobel = np.zeros(labels.shape, bool)
    for value in np.unique(labels):
        mask = (labels == value).astype(float)
        sobel |= (ndimage.sobel(mask, 0, mode="nearest") != 0) | (ndimage.sobel(mask, 1, mode="nearest") != 0)
    square = np.ones((3, 3))
    known = np.logical_not(ndimage.binary_dilation(labels >= IGNORED, square))
    edges, unknown = sobel & known, ~known
    if width > 2:
        edges, unknown = (ndimage.binary_dilation(x, square, iterations=width // 2 - 1) for x in (edges, unknown))
    known = (edges | ~unknown) & (labels < IGNORED)
    return edges & known, known


def random_maps(seed: int) -> np.ndarray:
    """Blocks and single pixels of four labels, thin and wide void, some at the frame, ignored blocks and pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, (6, 40, 48)).astype(np.uint8)
    labels[:4] = rng.integers(0, 4, (4, 5, 6)).repeat(8, 1).repeat(8, 2)
    labels[1][rng.random((40, 48)) < 0.1] = 3
    labels[2][rng.random((40, 48)) < 0.2] = VOID
    labels[3][:, 20:23] = VOID  # thin
    labels[3][10:30, 30:48] = VOID  # wide, at the frame
    labels[4][rng.random((40, 48)) < 0.1] = IGNORED
    labels[3:5, 8:16, 16:24] = IGNORED  # beside and under the thin void
    labels[5][:12] = VOID
    return labels


@pytest.mark.parametrize("band", [0, 1, 3])
def test_thin_void_is_closed_as_in_the_reference(band):
    labels = random_maps(0)
    closed = np.asarray(close_thin_void(jnp.asarray(labels), band))
    for ours, source in zip(closed, labels, strict=True):
        np.testing.assert_array_equal(ours, reference_closed(source, band))


@pytest.mark.parametrize(("width", "band"), [(2, 0), (2, 3), (6, 2)])
def test_edges_are_sobels_on_every_mask(width, band):
    labels = random_maps(1)
    edges, known = edge_targets(jnp.asarray(labels), void_band=band, width=width)
    for i, source in enumerate(labels):
        expected_edges, expected_known = reference_edges(reference_closed(source, band), width)
        np.testing.assert_array_equal(edges[i], expected_edges)
        np.testing.assert_array_equal(known[i], expected_known)
    assert edges.any()
    assert not known.all()


def test_an_edge_does_not_depend_on_the_numbers_of_the_labels():
    labels = random_maps(2)
    renumbered = np.array([2, 0, 3, 1, *range(4, 256)], np.uint8)[labels]
    for ours, theirs in zip(
        edge_targets(jnp.asarray(labels), void_band=0, width=2),
        edge_targets(jnp.asarray(renumbered), void_band=0, width=2),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


def two_halves(void_columns: slice) -> np.ndarray:
    labels = np.zeros((1, 32, 64), np.uint8)
    labels[..., 32:] = 1
    labels[..., void_columns] = VOID
    return labels


def test_an_outline_under_a_thin_band_stays_an_edge_in_its_middle():
    edges, known = edge_targets(jnp.asarray(two_halves(slice(29, 34))), void_band=3, width=2)  # 5 pixels, VOC's
    assert known.all()
    np.testing.assert_array_equal(np.flatnonzero(edges[0, 16]), [31, 32])


@pytest.mark.parametrize("band_width", [4, 6, 8])
def test_a_band_closes_in_every_direction(band_width):
    y, x = np.mgrid[:128, :128] - 63.5
    radius = np.hypot(y, x)
    labels = np.where(radius < 40, 1, 0).astype(np.uint8)
    labels[np.abs(radius - 40) < band_width / 2] = VOID
    edges, known = edge_targets(jnp.asarray(labels)[None], void_band=5, width=2)
    assert known.all()
    assert edges.any()
    assert np.abs(radius[np.asarray(edges[0])] - 40).max() < 3  # all of the outline, and nothing else
    angles = np.rad2deg(np.arctan2(y, x))[np.asarray(edges[0])]
    assert np.diff(np.sort(angles)).max() < 3


@pytest.mark.parametrize("angle", np.arange(0, 180, 22.5))
@pytest.mark.parametrize("band", [1, 2, 5, 8])
def test_straight_bands_close_up_to_the_stated_width_whatever_their_direction(angle, band):
    y, x = np.mgrid[:120, :120] - 59.5
    away = np.cos(np.deg2rad(angle)) * x + np.sin(np.deg2rad(angle)) * y  # from the band's middle
    middle = np.hypot(x, y) < 25  # the frame is out of reach
    for offset in (0.0, 0.3, 0.5):
        side = (away > offset).astype(np.uint8)
        narrow, wide = (np.where(np.abs(away - offset) < half, VOID, side) for half in (band, 1.5 * band + 0.51))
        closed = np.asarray(close_thin_void(jnp.asarray(np.stack([narrow, wide])), band))
        clear = middle & (np.abs(away - offset) > 1.5)  # the regions meet in the middle
        np.testing.assert_array_equal(closed[0][clear], side[clear])
        assert (closed[0][middle] != VOID).all()
        np.testing.assert_array_equal(closed[1][middle], wide[middle])


def test_a_patch_holds_the_edges_of_its_own_pixels():
    edges = np.zeros((1, 50, 100), bool)
    edges[0, 16, 33] = True  # rows end at 17 and 34, columns at 17, 34, 50, ...
    assert np.flatnonzero(holds_edge(jnp.asarray(edges), (3, 6))).tolist() == [1]


def test_wide_void_and_the_frame_give_no_edge_and_no_target():
    edges, known = edge_targets(jnp.asarray(two_halves(slice(24, 40))), void_band=3, width=2)
    assert not edges.any()
    np.testing.assert_array_equal(np.flatnonzero(~known[0, 16]), np.arange(23, 41))  # Sobel reaches one pixel farther
    padded = np.full((1, 32, 64), VOID, np.uint8)
    padded[:, :20, :40] = 2  # an image in the corner of a crop
    edges, known = edge_targets(jnp.asarray(padded), void_band=5, width=4)
    assert not edges.any()
    assert known[0, :17, :37].all()
    assert not known[0, 20:].any()


def test_an_ignored_object_gives_no_edge_where_a_labelled_one_does():
    y, x = np.mgrid[:64, :64]
    disc = (y - 32) ** 2 + (x - 32) ** 2 < 18**2
    for value, has_edge in ((1, True), (IGNORED, False), (VOID, False)):
        edges, known = edge_targets(jnp.asarray(np.where(disc, value, 0)[None].astype(np.uint8)), void_band=5, width=2)
        assert edges.any() == has_edge
        assert known[0, 32, 32] == has_edge


@pytest.mark.parametrize("outline", [0, 5])  # SBD's, VOC's
@pytest.mark.parametrize("thickness", [1, 4, 30])
def test_no_target_on_an_unseen_object_however_thin_it_is(thickness, outline):
    labels = np.zeros((1, 48, 96), np.uint8)
    start = 60 - thickness // 2
    end = start + thickness
    labels[..., 20:30] = 1  # a seen object beside it
    labels[..., start - outline : end + outline] = VOID
    labels[..., start:end] = IGNORED
    edges, known = edge_targets(jnp.asarray(labels), void_band=5, width=2)
    np.testing.assert_array_equal(np.flatnonzero(edges[0, 24]), [19, 20, 29, 30])
    reach = outline // 2 + 1  # the middle of the band, where its edge would be
    np.testing.assert_array_equal(np.flatnonzero(~known[0, 24]), np.arange(start - reach, end + reach))


def test_tiles_are_the_patches_of_the_map_each_on_one_raster():
    edges = np.zeros((2, 48, 96), np.float32)
    edges[1, 16:32, 32:48] = np.arange(16)[:, None] / 15  # row 1, column 2 of 3x6
    tiles = np.asarray(edge_tiles(jnp.asarray(edges), (3, 6)))
    assert tiles.shape == (2, 18, TILE, TILE)
    picture = Image.fromarray(edges[1]).resize((6 * TILE, 3 * TILE), Image.Resampling.BILINEAR)
    np.testing.assert_allclose(tiles[1, 8], np.asarray(picture)[32:64, 64:96], atol=1e-5)
    assert np.flatnonzero(tiles[1].max(axis=(1, 2)) > 0.5).tolist() == [8]


def test_unknown_pixels_show_no_edge_in_a_tile_and_what_is_predicted_there_has_no_effect():
    labels = np.zeros((1, 96, 96), np.uint8)
    labels[:, :, 20:70] = 1
    labels[:, 40:, 50:] = IGNORED
    edges, known = edge_targets(jnp.asarray(labels), void_band=0, width=2)
    perfect = jnp.where(edges, 0.9, 0.2)  # on a grey ground
    there = np.asarray(known.reshape(1, 3, 32, 2, 48).any(axis=(2, 4))).ravel()
    for beyond in (0.0, 0.7):
        predicted = jnp.where(known, perfect, beyond)
        tiles = known_tiles(predicted, edges, known, (3, 2))
        np.testing.assert_allclose(tiles[0, there], edge_tiles(perfect, (3, 2))[0, there], atol=1e-5)
    slope = jax.grad(lambda p: jnp.sum(known_tiles(p, edges, known, (3, 2)) ** 2))(perfect)
    np.testing.assert_array_equal(slope[~known], 0)
    assert np.isfinite(slope).all()
