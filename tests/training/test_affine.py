"""The affine MLP learns from edge tiles, and what it learnt moves edges (paper 3.3)."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy import ndimage
from scipy.stats import spearmanr

from configs import affine_mlp
from data.shapes import draw_scene
from sazs_jax.affine_pairs import make_theta, move_tiles, shows_motion
from sazs_jax.edges import edge_targets, edge_tiles
from sazs_jax.losses import boundary_loss_sums, shape_loss_sum
from sazs_jax.training.affine import AffineRegression
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.state import create_state, merge_model
from sazs_jax.training.step import make_train_step, shard_batch

NUM_STEPS = 250
PATCHES = (2, 2)


def scenes(seed: int, count: int = 8) -> np.ndarray:
    """Label maps (count, 64, 64) of the synthetic set."""
    return np.stack([draw_scene(np.random.default_rng([seed, i]))[1] for i in range(count)])


@pytest.fixture(scope="module")
def task() -> AffineRegression:
    config = affine_mlp.get_config()
    config.loss.patches = PATCHES
    return AffineRegression(config)


@pytest.fixture(scope="module")
def mlp(task):
    """Trained for a few seconds, through the step that the command trains with."""
    config = task.config
    optimizer = make_optimizer(config.optimizer, NUM_STEPS, freeze_encoder=False)
    graphdef, state = create_state(task.build(jax.random.key(0)), optimizer)
    step = make_train_step(graphdef, optimizer, task, config.train, devices=jax.devices()[:1])
    maps = [scenes(seed, 32) for seed in range(16)]
    for i in range(NUM_STEPS):
        state, _ = step(state, shard_batch({"label": maps[i % 16]}, 1))
    return merge_model(graphdef, state)


def test_it_knows_more_of_theta_than_the_identity_does(task, mlp):
    scores = task.evaluate(mlp, [{"label": scenes(100 + i, 32)} for i in range(4)])
    assert next(iter(scores)) == "reduction"  # what chooses the best checkpoint
    assert scores["error"] < 0.85 * scores["error_identity"]
    assert scores["reduction"] == pytest.approx(1 - scores["error"] / scores["error_identity"])
    for entry in ("x", "y"):
        assert scores[f"error_{entry}"] < 0.9 * scores[f"error_identity_{entry}"]


def test_its_answer_grows_with_the_motion(task, mlp):
    ranges = task.config.affine
    edges, _ = edge_targets(jnp.asarray(scenes(200, 32)), void_band=0, width=2)
    tiles = edge_tiles(edges.astype(jnp.float32), PATCHES)
    usable = np.asarray(shows_motion(tiles)).ravel()
    amounts = np.linspace(0, 1, 6)
    for motion in ("shift", "rotation", "scale"):
        found = []
        for amount in amounts:
            theta = {
                "shift": make_theta(shift=(amount * ranges.shift,) * 2),
                "rotation": make_theta(rotation=amount * ranges.rotation),
                "scale": make_theta(log_scale=(2 * amount * ranges.log_scale,) * 2),
            }[motion]
            places = jnp.broadcast_to(jnp.arange(tiles.shape[1]), tiles.shape[:2])
            moved = move_tiles(tiles, places, jnp.broadcast_to(theta, (*tiles.shape[:2], 3, 3)), PATCHES)
            estimate = mlp(tiles.reshape(-1, 32, 32), moved.reshape(-1, 32, 32))
            found.append(float(jnp.linalg.norm(estimate - jnp.eye(3), axis=(1, 2))[usable].mean()))
        rank: Any = spearmanr(amounts, found)
        assert rank.statistic > 0.9, (motion, found)


def test_pairs_do_not_depend_on_the_layout_over_devices(task):
    labels, keys = jnp.asarray(scenes(7, 4)), jax.random.split(jax.random.key(0), 4)
    together = task.pairs(labels, keys)
    apart = [task.pairs(labels[i : i + 2], keys[i : i + 2]) for i in (0, 2)]
    for whole, first, second in zip(together, *apart, strict=True):
        np.testing.assert_allclose(whole, np.concatenate([first, second]), atol=1e-6)


def f_measure(predicted: np.ndarray, edges: np.ndarray, tolerance: int = 1) -> float:
    """Mean over images of the F-measure of edge pixels within `tolerance` of the other's."""
    found = []
    for ours, true in zip(predicted, edges, strict=True):
        near = [np.asarray(ndimage.distance_transform_edt(~x)) <= tolerance for x in (ours, true)]
        precision, recall = near[1][ours].mean() if ours.any() else 0.0, near[0][true].mean()
        found.append(2 * precision * recall / max(precision + recall, 1e-9))
    return float(np.mean(found))


@pytest.mark.parametrize("name", ["shape", "bce"])
def test_thirty_steps_on_free_edge_logits_bring_shifted_edges_back(mlp, name):
    edges, known = edge_targets(jnp.asarray(scenes(300)), void_band=0, width=2)
    true = edge_tiles(edges.astype(jnp.float32), PATCHES)
    holds_edge = jnp.any(true > 0, axis=(2, 3)).ravel()
    graphdef, state = nnx.split(mlp)

    def loss(logits):
        if name == "bce":
            on, off = boundary_loss_sums(logits, edges, known)
            return (on / edges.sum() + off / (known & ~edges).sum()) / 2
        predicted = edge_tiles(jax.nn.sigmoid(logits), PATCHES)
        theta = nnx.merge(graphdef, state)(true.reshape(-1, 32, 32), predicted.reshape(-1, 32, 32))
        return shape_loss_sum(theta, holds_edge) / holds_edge.sum()

    shifted = ndimage.gaussian_filter(np.roll(np.asarray(edges, np.float32), (2, 2), axis=(1, 2)), (0, 1, 1))
    logits = jnp.asarray(np.log((0.05 + 0.9 * shifted) / (0.95 - 0.9 * shifted)), jnp.float32)
    start = f_measure(np.asarray(logits) > 0, np.asarray(edges))
    gradient = jax.jit(jax.grad(loss))
    assert float(jnp.abs(gradient(logits)).max()) > 0
    for _ in range(30):
        slope = gradient(logits)
        logits = logits - 0.1 * slope / jnp.sqrt(jnp.mean(slope**2))
    end = f_measure(np.asarray(logits) > 0, np.asarray(edges))
    assert end > start + 0.02, (start, end)
