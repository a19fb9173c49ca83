"""Compactness on shapes whose value is known, locality and Pearson's r by hand."""

import numpy as np
import pytest
from scipy import special

from experiments.class_measures import FEWEST_CLASSES, compactness, correlate, locality


def positions(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (side, side), the middle 0."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return y, x


def disc(radius: float, side: int = 400) -> np.ndarray:
    return np.hypot(*positions(side)) <= radius


def square(half: float, degrees: float, side: int = 400) -> np.ndarray:
    y, x = positions(side)
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return (np.abs(c * x + s * y) <= half) & (np.abs(c * y - s * x) <= half)


@pytest.mark.parametrize("radius", [20, 40, 80, 160])
def test_a_disc_has_compactness_1(radius):
    assert compactness(disc(radius)) == pytest.approx(1, abs=0.04)


@pytest.mark.parametrize("radius", [20, 40, 80, 160])
def test_a_ring_has_outer_less_inner_radius_over_their_sum(radius):
    """4 pi (pi R^2 - pi r^2) / (2 pi R + 2 pi r)^2 = (R - r) / (R + r): the hole's outline counts."""
    for share in (0.5, 0.7):
        ring = disc(radius) & ~disc(share * radius)
        assert compactness(ring) == pytest.approx((1 - share) / (1 + share), rel=0.06)


@pytest.mark.parametrize("half", [20, 40, 80])
def test_a_square_has_a_quarter_of_pi(half):
    """Crofton's four directions see an axis-aligned square's outline 6% too short, one at 20 degrees too long."""
    assert compactness(square(half, 0)) == pytest.approx(np.pi / 4, rel=0.14)
    assert compactness(square(half, 20)) == pytest.approx(np.pi / 4, rel=0.05)
    turns = [compactness(square(half, degrees)) for degrees in range(0, 90, 5)]
    assert np.mean([value for value in turns if value]) == pytest.approx(np.pi / 4, rel=0.04)


def test_a_long_thin_mask_is_less_compact_than_a_round_one_and_two_discs_than_one():
    y, x = positions(400)
    bar = (np.abs(y) <= 10) & (np.abs(x) <= 150)
    # 4 pi a b / (2 a + 2 b)^2 of a rectangle of 21 x 301 pixels.
    assert compactness(bar) == pytest.approx(np.pi * 21 * 301 / (21 + 301) ** 2, rel=0.14)
    ellipse = np.hypot(y / 40, x / 120) <= 1
    perimeter = 4 * 120 * special.ellipe(1 - (40 / 120) ** 2)
    assert compactness(ellipse) == pytest.approx(4 * np.pi * np.pi * 40 * 120 / perimeter**2, rel=0.05)
    two = np.concatenate([disc(40, 100), disc(40, 100)], axis=1)
    assert compactness(two) == pytest.approx(0.5, rel=0.04)  # twice the area, twice the perimeter


def test_the_frame_counts_where_it_cuts_a_mask():
    whole = np.ones((80, 80), bool)
    assert compactness(whole) == compactness(np.pad(whole, 9))
    assert compactness(np.zeros((8, 8), bool)) is None


def test_locality_is_of_the_distances_to_all_others():
    anchors = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    far = np.sqrt(9 + 9)
    expected = [[3.0, 2.0], [(5 + far) / 2, (5 - far) / 2], [(1 + far) / 2, (far - 1) / 2]]
    np.testing.assert_allclose(locality(anchors), expected)
    np.testing.assert_allclose(locality(10 * anchors), 10 * np.array(expected))  # not normalised


def test_pearson_by_hand():
    rng = np.random.default_rng(0)
    x = rng.normal(size=20)
    y = -2 * x + rng.normal(size=20)
    found = correlate(x, y)
    a, b = x - x.mean(), y - y.mean()
    r = (a @ b) / np.sqrt((a @ a) * (b @ b))
    t = abs(r) * np.sqrt(18 / (1 - r * r))
    assert found is not None
    assert found.r == pytest.approx(r)
    assert found.p == pytest.approx(2 * special.stdtr(18, -t))  # Student's t of n - 2 degrees
    assert found.means_something
    few = correlate(x[: FEWEST_CLASSES - 1], y[: FEWEST_CLASSES - 1])
    assert few is not None
    assert not few.means_something
    assert correlate(x[:2], y[:2]) is None
    assert correlate(np.ones(5), y[:5]) is None
