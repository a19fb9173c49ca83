"""Fusion rules on scenes where the right answer is known, and against slow NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import defaults
from sazs_jax.errors import UserError
from sazs_jax.evaluation.masks import episode_masks, oracle_masks
from sazs_jax.spectral.eigen import Eigenvectors, laplacian_eigenvectors
from sazs_jax.spectral.fusion import RULES, FusionSettings, diffuse, fuse
from sazs_jax.spectral.segments import eigensegments, soft_segments

GRID, SIDE = 24, 48
SETTINGS = FusionSettings.of_config(defaults.get_config().spectral)._replace(projection_vectors=3, num_segments=3)


def scene() -> np.ndarray:
    """Three regions on the grid: 0 ground, 1 a block at the top left, 2 a block at the bottom right."""
    regions = np.zeros((GRID, GRID), int)
    regions[2:10, 2:12] = 1
    regions[14:22, 10:22] = 2
    return regions


@pytest.fixture(scope="module")
def eigen() -> Eigenvectors:
    """Eigenvectors of a graph whose pieces are the regions, weakly joined."""
    regions = scene().ravel()
    z = np.where(regions[:, None] == regions[None], 1.0, 0.02).astype(np.float32)
    return laplacian_eigenvectors(jnp.asarray(z)[None], count=3, solver="eigh")


def images() -> jax.Array:
    colours = np.array([[40, 90, 40], [210, 60, 50], [60, 70, 220]], np.uint8)
    return jnp.asarray(colours[truth()])[None]


def truth() -> np.ndarray:
    return np.kron(scene(), np.ones((SIDE // GRID, SIDE // GRID), int))


def ragged_logits(seed: int = 0) -> jax.Array:
    """Logits of others, one and two that find the regions with holes and frayed outlines."""
    rng = np.random.default_rng(seed)
    wanted = np.eye(3)[truth()] * 0.3
    wanted = wanted + np.kron(rng.normal(0, 0.15, (GRID, GRID, 3)), np.ones((SIDE // GRID, SIDE // GRID, 1)))
    return jnp.asarray(wanted, jnp.float32)[None]


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum()


@pytest.mark.parametrize("rule", ["iou", "agreement", "projection", "diffusion"])
@pytest.mark.parametrize("labels", [2, 3])
def test_every_rule_mends_frayed_masks_for_two_labels_and_for_many(eigen, rule, labels):
    logits = ragged_logits()
    if labels == 2:  # region 2 is one of the others
        logits = jnp.stack([jnp.maximum(logits[..., 0], logits[..., 2]), logits[..., 1]], axis=-1)
    settings = SETTINGS._replace(iou_threshold=0.3, agreement_weight=0.5, projection_weight=1.0, diffusion_steps=5)
    before = np.asarray(jnp.argmax(logits, axis=-1))[0]
    after = np.asarray(jnp.argmax(fuse(rule, logits, eigen, images(), settings), axis=-1))[0]
    for value in range(1, labels):
        assert iou(after == value, truth() == value) > 0.1 + iou(before == value, truth() == value)


def test_rule_none_changes_nothing(eigen):
    logits = ragged_logits()
    np.testing.assert_array_equal(fuse("none", logits, eigen, images(), SETTINGS), logits)
    with pytest.raises(ValueError, match="unknown rule 'oracle'"):
        fuse("oracle", logits, eigen, images(), SETTINGS)
    assert "oracle" not in RULES


def test_rule_iou_is_eq_7_without_the_truth(eigen):
    """The mask becomes the segment or complement of largest IoU with it, by a loop over candidates."""
    logits = ragged_logits(1)[..., :2]
    soft = np.asarray(soft_segments(eigen, (SIDE, SIDE), 3))[0]
    candidates = [soft[..., k] > 0 for k in range(3)] + [soft[..., k] < 0 for k in range(3)]
    mask = np.asarray(logits[0, ..., 1] > logits[0, ..., 0])
    best = max(candidates, key=lambda candidate: iou(candidate, mask))
    for threshold in (0.0, 0.999):
        fused = fuse("iou", logits, eigen, images(), SETTINGS._replace(iou_threshold=threshold))
        expected = best if threshold == 0.0 else mask
        np.testing.assert_array_equal(fused[0, ..., 1] > fused[0, ..., 0], expected)


def test_where_segments_of_two_labels_meet_the_better_fit_wins(eigen):
    """Two labels claim region 1, one all of it and one a part: the whole of it goes to the first."""
    logits = np.zeros((1, SIDE, SIDE, 3), np.float32)
    region = truth() == 1
    logits[0, ..., 1] = np.where(region, 0.5, -0.5)
    half = region & (np.arange(SIDE)[None] < 8)
    logits[0, ..., 2] = np.where(half, 0.7, -0.5)
    fused = fuse("iou", jnp.asarray(logits), eigen, images(), SETTINGS._replace(iou_threshold=0.2))
    winner = np.asarray(jnp.argmax(fused, axis=-1))[0]
    assert (winner[region] == 1).all()
    assert not (winner == 2).any()


def test_projection_equals_least_squares(eigen):
    """At the grid's resolution: the D-weighted least-squares fit by the trivial and the first vectors."""
    logits = np.random.default_rng(2).normal(size=(1, GRID, GRID, 2)).astype(np.float32)
    found = fuse("projection", jnp.asarray(logits), eigen, images(), SETTINGS._replace(projection_weight=1.0))
    degrees = np.asarray(eigen.degrees[0], np.float64)
    basis = np.concatenate([np.ones((GRID**2, 1)), np.asarray(eigen.vectors[0], np.float64)], axis=1)
    root = np.sqrt(degrees)[:, None]
    fit = basis @ np.linalg.lstsq(root * basis, root * logits.reshape(-1, 2), rcond=None)[0]
    np.testing.assert_allclose(np.asarray(found).reshape(-1, 2), fit, atol=1e-4)


def test_diffusion_equals_its_definition():
    """One step, cell by cell."""
    rng = np.random.default_rng(3)
    height, width, tolerance = 7, 9, 0.4
    logits = rng.normal(size=(height, width, 2))
    guide = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    offsets = [(y * d, x * d) for d in (1, 2, 4) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
    expected = np.zeros_like(logits)
    for i in range(height):
        for j in range(width):
            places = [(np.clip(i + y, 0, height - 1), np.clip(j + x, 0, width - 1)) for y, x in offsets]
            around = np.array([guide[place] for place in places]) / 255
            spread = np.std([*around, guide[i, j] / 255], axis=0) + 1e-3
            weights = np.exp(-np.mean(np.abs(around - guide[i, j] / 255) / spread, axis=1) / tolerance)
            expected[i, j] = sum(w * logits[p] for w, p in zip(weights, places, strict=True)) / weights.sum()
    noisy, colours = jnp.asarray(logits, jnp.float32)[None], jnp.asarray(guide)[None]
    np.testing.assert_allclose(diffuse(noisy, colours, steps=1, tolerance=tolerance)[0], expected, atol=1e-4)


def test_the_oracle_takes_whatever_fits_the_truth_best(eigen):
    canvas = (SIDE, SIDE)
    labels = jnp.asarray(np.where(truth() > 0, truth(), 0), jnp.uint8)[None].at[0, :2].set(255)
    classes, sizes = jnp.array([[0, 1]]), jnp.array([[SIDE, SIDE]])
    masks = episode_masks("none", ragged_logits(), None, images(), None, classes, sizes, canvas)
    best = np.asarray(oracle_masks(masks, eigen, 3, labels, classes, sizes))
    segments = np.asarray(eigensegments(eigen, canvas, 3))
    valid = np.asarray(labels[0]) != 255
    for e in range(2):
        wanted = np.asarray(labels[0]) == e + 1
        candidates = [np.asarray(masks[0, ..., e])] + [segments[0, ..., k] for k in range(3)]
        expected = max(candidates, key=lambda mask: iou(mask & valid, wanted))
        np.testing.assert_array_equal(best[0, ..., e], expected)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iou_threshold", 1.5),
        ("projection_weight", float("nan")),
        ("agreement_weight", float("nan")),
        ("agreement_weight", -3.0),
        ("agreement_weight", float("inf")),
        ("diffusion_tolerance", float("inf")),
        ("diffusion_steps", 0),
    ],
)
def test_a_setting_that_cannot_work(name, value):
    config = defaults.get_config().spectral
    config[name] = value
    with pytest.raises(UserError, match=f"spectral: expected .* got .*{name}={value}"):
        FusionSettings.of_config(config)
