"""Random affine pairs: what theta means, against SciPy; which tiles count; what the disturbances may do."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from scipy import ndimage

from configs import defaults
from sazs_jax.affine_pairs import (
    affine_pairs,
    check_affine_settings,
    disturb,
    make_theta,
    move_tiles,
    random_theta,
    shows_motion,
)
from sazs_jax.edges import TILE, edge_tiles
from sazs_jax.errors import UserError

CONFIG = defaults.get_config().affine


def blob(seed: int, size: int = TILE) -> np.ndarray:
    """A smooth picture in [0, 1]."""
    picture = ndimage.gaussian_filter(np.random.default_rng(seed).random((size, size)), 2)
    return ((picture - picture.min()) / np.ptp(picture)).astype(np.float32)


def test_the_moved_tile_shows_at_u_what_the_tile_shows_at_theta_u():
    tile = blob(0)
    theta = np.asarray(make_theta(rotation=15.0, shear=0.1, log_scale=(0.2, -0.1), shift=(0.2, -0.15)))
    first = jnp.zeros((1, 1), jnp.int32)
    moved = np.asarray(move_tiles(jnp.asarray(tile)[None, None], first, jnp.asarray(theta)[None, None], (1, 1)))[0, 0]
    # SciPy works in (row, column) samples: u = (index + 0.5) * 2 / R - 1.
    swap = np.array([[0, 1], [1, 0]])
    linear = swap @ theta[:2, :2] @ swap
    shift = theta[:2, 2][::-1] * TILE / 2
    centre = (TILE - 1) / 2
    offset: Any = centre + shift - linear @ [centre, centre]
    expected = ndimage.affine_transform(tile, linear, offset, order=1)
    np.testing.assert_allclose(moved[8:-8, 8:-8], expected[8:-8, 8:-8], atol=1e-4)


def test_a_shift_of_a_quarter_brings_in_what_lies_beside_the_tile():
    whole = np.stack([blob(i) for i in range(4)])[None]  # 2 rows, 2 columns of tiles
    theta = make_theta(shift=(0.5, 0.0))[None, None]  # half a tile is a shift of 1
    moved = np.asarray(move_tiles(jnp.asarray(whole), jnp.zeros((1, 1), jnp.int32), theta, (2, 2)))[0, 0]
    np.testing.assert_allclose(moved[:, :-8], whole[0, 0][:, 8:], atol=1e-5)
    np.testing.assert_allclose(moved[:, -8:], whole[0, 1][:, :8], atol=1e-5)


def test_transforms_are_within_their_ranges_and_fill_them():
    thetas = np.asarray(jax.vmap(lambda key: random_theta(key, CONFIG))(jax.random.split(jax.random.key(0), 2000)))
    np.testing.assert_array_equal(thetas[:, 2], np.tile([0, 0, 1], (2000, 1)))
    shifts = thetas[:, :2, 2]
    assert 0.95 * CONFIG.shift < np.abs(shifts).max() <= CONFIG.shift
    angle = np.rad2deg(np.arctan2(thetas[:, 1, 0], thetas[:, 0, 0]))
    assert 0.95 * CONFIG.rotation < np.abs(angle).max() <= CONFIG.rotation + 1e-3
    log_area = np.log(np.linalg.det(thetas))
    assert CONFIG.log_scale < np.abs(log_area).max() <= 2 * CONFIG.log_scale + 1e-5
    np.testing.assert_allclose(make_theta(), np.eye(3))


def line(angle: float) -> np.ndarray:
    y, x = np.mgrid[:TILE, :TILE] - (TILE - 1) / 2
    return (np.abs(np.cos(angle) * x + np.sin(angle) * y) < 1.5).astype(np.float32)


def test_tiles_of_one_straight_line_or_too_little_edge_show_no_motion():
    corner = np.maximum(line(0.3), line(0.3 + np.pi / 3))
    speck = np.zeros((TILE, TILE), np.float32)
    speck[10:12, 10:12] = 1
    tiles = np.stack([line(0.0), line(0.7), corner, speck, np.zeros((TILE, TILE), np.float32)])
    assert shows_motion(jnp.asarray(tiles)[None])[0].tolist() == [False, False, True, False, False]


def test_without_disturbances_the_predicted_tile_is_the_moved_one():
    quiet = defaults.get_config().affine
    quiet.missing = quiet.spurious = quiet.blur = quiet.floor = 0.0
    quiet.weakest = 1.0
    edges = np.stack([np.kron(blob(i, 24) > 0.5, np.ones((4, 4))) for i in range(2)]).astype(np.float32)
    pairs = affine_pairs(jnp.asarray(edges), jax.random.split(jax.random.key(3), 2), (3, 6), quiet)
    tiles = np.asarray(edge_tiles(jnp.asarray(edges), (3, 6)))  # (2, 18, R, R)
    theta, true, usable = (np.asarray(x).reshape(2, 9, *x.shape[1:]) for x in (pairs.theta, pairs.true, pairs.usable))
    for i in range(2):
        shows = np.asarray(shows_motion(jnp.asarray(tiles[i : i + 1])))[0]
        places = np.argsort(~shows, kind="stable")[:9]  # the usable ones first, as far as there are as many
        np.testing.assert_array_equal(tiles[i][places], true[i])
        np.testing.assert_array_equal(usable[i], shows[places])
        moved = move_tiles(
            jnp.asarray(tiles[i : i + 1]), jnp.asarray(places[None]), jnp.asarray(theta[i : i + 1]), (3, 6)
        )
        np.testing.assert_allclose(pairs.predicted.reshape(2, 9, TILE, TILE)[i], moved[0], atol=1e-5)


def only(**settings):
    """Disturbances that are all off but these."""
    config = defaults.get_config().affine
    config.update(missing=0.0, spurious=0.0, blur=0.0, floor=0.0, weakest=1.0)
    config.update(settings)
    return config


def test_each_disturbance_does_what_it_says():
    tile, other = np.full((TILE, TILE), 0.5, np.float32), np.ones((TILE, TILE), np.float32)
    keys = jax.random.split(jax.random.key(0), 200)

    def run(**settings):
        return np.asarray(
            jax.vmap(lambda key: disturb(key, jnp.asarray(tile), jnp.asarray(other), only(**settings)))(keys)
        )

    left_out = (run(missing=0.8) < 1e-3).mean(axis=(1, 2))
    added = run(spurious=0.8)
    shown = (added > 0.501).mean(axis=(1, 2))
    assert left_out.max() > 0.3
    assert shown.max() > 0.3
    assert added.max() > 0.9
    both = [(run(missing=0.8, spurious=0.8) < 1e-3).mean(axis=(1, 2)), shown]
    assert abs(np.corrcoef(both)[0, 1]) < 0.5  # what is missing says nothing of what is added
    weaker = run(weakest=0.3).max(axis=(1, 2))
    assert 0.14 < weaker.min() < 0.25 < 0.4 < weaker.max() <= 0.5
    np.testing.assert_allclose(run(), tile[None].repeat(200, 0), atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_a_disturbed_tile_stays_within_0_and_1_and_is_another(seed):
    tile, other = jnp.asarray(line(0.3)), jnp.asarray(line(1.8))
    result = np.asarray(disturb(jax.random.key(seed), tile, other, CONFIG))
    assert 0 <= result.min() <= result.max() <= 1
    assert np.abs(result - tile).max() > 0.1


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1])
@pytest.mark.parametrize("key", list(CONFIG))
def test_a_range_that_cannot_work_is_the_users_error(key, value):
    check_affine_settings(CONFIG)
    with pytest.raises(UserError, match=f"affine.{key}={value}: expected a number"):
        check_affine_settings(ConfigDict({**CONFIG, key: value}))


def test_no_motion_at_all_is_the_users_error():
    still = defaults.get_config().affine
    still.update(rotation=0.0, log_scale=0.0, shear=0.0, shift=0.0)
    with pytest.raises(UserError, match="affine.shift are all 0: expected one above 0"):
        check_affine_settings(still)
