"""Eq. 4, 5 and 6 against NumPy and the standard library's colorsys, written from the paper."""

import colorsys

import jax.numpy as jnp
import numpy as np
import pytest

from sazs_jax.spectral.affinity import affinity, colour_positions, rgb_to_hsv, semantic_affinity, shape_affinity

GRID = 6


def x_by_hand(image: np.ndarray) -> np.ndarray:
    """X of Eq. 5 for an image whose pixels are the cells."""
    size = len(image)
    rows = []
    for i in range(size):
        for j in range(size):
            h, s, v = colorsys.rgb_to_hsv(*(image[i, j] / 255))
            angle = 2 * np.pi * h
            rows.append([np.cos(angle), np.sin(angle), s, v, (j + 0.5) / size, (i + 0.5) / size])
    return np.array(rows)


def shape_by_hand(x: np.ndarray, neighbours: int) -> np.ndarray:
    n = len(x)
    distance = np.array([[np.linalg.norm(a - b) for b in x] for a in x])
    z = np.zeros((n, n))
    for i in range(n):
        order = [j for j in np.argsort(distance[i], kind="stable") if j != i]
        for j in order[:neighbours]:
            z[i, j] = z[j, i] = max(1 - distance[i, j], 0)
    return z


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    random = rng.integers(0, 256, (GRID, GRID, 3), dtype=np.uint8)
    grey = np.repeat(rng.integers(0, 256, (GRID, GRID, 1), dtype=np.uint8), 3, axis=-1)
    return np.stack([random, grey])


def test_hsv_equals_the_standard_library():
    colours = np.array([(r, g, b) for r in (0, 51, 255) for g in (0, 128, 255) for b in (0, 200, 255)]) / 255
    expected = np.array([colorsys.rgb_to_hsv(*c) for c in colours]) * [2 * np.pi, 1, 1]
    np.testing.assert_allclose(rgb_to_hsv(jnp.asarray(colours, jnp.float32)), expected, atol=1e-5)


def test_position_and_colour_of_cells(images):
    found = colour_positions(jnp.asarray(images), GRID)
    np.testing.assert_allclose(found, np.stack([x_by_hand(image) for image in images]), atol=1e-5)


def test_shape_affinity_is_eq_5_over_exact_neighbours(images):
    for image in images:
        x = x_by_hand(image)
        found = shape_affinity(jnp.asarray(x, jnp.float32)[None], 4)[0]
        np.testing.assert_allclose(found, shape_by_hand(x, 4), atol=1e-4)


def test_equal_distances_take_the_first_nodes():
    x = np.zeros((1, 5, 6), np.float32)
    found = np.asarray(shape_affinity(jnp.asarray(x), 2)[0])
    np.testing.assert_array_equal(found, shape_by_hand(x[0], 2))


def test_semantic_affinity_is_eq_4_without_its_negative_part():
    features = np.random.default_rng(1).normal(size=(2, 9, 5))
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    expected = np.maximum(np.einsum("bic,bjc->bij", unit, unit), 0)
    np.testing.assert_allclose(semantic_affinity(jnp.asarray(features, jnp.float32)), expected, atol=1e-6)


@pytest.mark.parametrize("color_weight", [0.0, 0.7])
def test_eq_6_is_symmetric_not_negative_and_of_positive_degrees(images, color_weight):
    features = np.random.default_rng(1).normal(size=(2, GRID**2, 5)).astype(np.float32)
    features[0, :3] = 0  # nodes that no feature tells of
    x = colour_positions(jnp.asarray(images), GRID)
    z = np.asarray(affinity(jnp.asarray(features), x, color_weight=color_weight, neighbours=4))
    unit = features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-6)
    expected = np.maximum(unit @ unit.swapaxes(1, 2), 0)
    expected = expected + color_weight * np.stack([shape_by_hand(x_by_hand(image), 4) for image in images])
    np.testing.assert_allclose(z, expected, atol=1e-4)
    np.testing.assert_array_equal(z, z.swapaxes(1, 2))
    assert z.min() >= 0
    assert z.sum(axis=-1).min() > 0
