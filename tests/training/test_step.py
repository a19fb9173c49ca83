"""The mapped training step: the same numbers on one device and on eight."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from configs import demo
from sazs_jax.edges import TILE
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.sazs import DEVICE_AXIS, build_model
from sazs_jax.training.optimizer import learning_rate_schedule, make_optimizer
from sazs_jax.training.segmentation import Segmentation
from sazs_jax.training.state import create_state
from sazs_jax.training.step import make_loss_and_grad, make_train_step, map_over_devices, shard_batch
from tests.random_weights import random_weights

NUM_ANCHORS = 6


def tiny_config(**changes):
    config = demo.get_config()
    config.model.embedding_dim = 16
    config.model.decoder_width = 16
    config.loss.shape_weight = config.loss.bce_weight = 0.0
    config.update_from_flattened_dict(changes)
    return config


def make_state(config):
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0), batchnorm_axis=DEVICE_AXIS))
    optimizer = make_optimizer(config.optimizer, 100, freeze_encoder=config.model.freeze_encoder)
    return *create_state(model, optimizer), optimizer


def make_batch(size: int, side: int = 32):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_ANCHORS, (size, side // 8, side // 8)).repeat(8, 1).repeat(8, 2).astype(np.uint8)
    for i in range(size):  # each example, hence each device, has its own number of valid pixels; one has none
        labels[i, : 4 * i] = 255
    labels[size // 2] = 255
    return {"image": rng.integers(0, 256, (size, side, side, 3), dtype=np.uint8), "label": labels}


ANCHORS = np.random.default_rng(1).normal(size=(NUM_ANCHORS, 16)).astype(np.float32)


BOUNDARY = {"loss.shape_weight": 0.3, "loss.bce_weight": 0.3, "loss.void_band": 1}


def make_task(config) -> Segmentation:
    mlp = random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0))) if config.loss.shape_weight else None
    return Segmentation(config, ANCHORS, mlp)


def mapped_loss_and_grad(graphdef, config, devices=None):
    task = make_task(config)
    return map_over_devices(make_loss_and_grad(graphdef, task, config.train), task.constants, devices=devices)


def largest_difference(a, b) -> float:
    """Over all arrays, relative to the largest value of each."""
    pairs = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return max(
        float(np.abs(np.asarray(x) - np.asarray(y)).max() / max(np.abs(np.asarray(y)).max(), 1e-3)) for x, y in pairs
    )


@pytest.mark.parametrize("boundary", [False, True])
def test_eight_devices_give_the_loss_and_gradients_of_one(boundary):
    config = tiny_config(**{"loss.label_space": "sampled"}, **(BOUNDARY if boundary else {}))
    graphdef, state, _ = make_state(config)
    batch = make_batch(8)
    one = mapped_loss_and_grad(graphdef, config, jax.devices()[:1])(state, shard_batch(batch, 1))
    eight = mapped_loss_and_grad(graphdef, config)(state, shard_batch(batch))
    assert set(one[0]) == {"total", "align", *(["shape", "bce"] if boundary else [])}
    assert min(map(float, one[0].values())) > 0.1
    for name, loss in one[0].items():
        np.testing.assert_allclose(eight[0][name], loss, rtol=1e-5, err_msg=name)
    assert largest_difference(eight[1], one[1]) < 1e-5  # gradients
    assert largest_difference(eight[2], one[2]) < 1e-5  # BatchNorm statistics


def test_an_sgd_step_on_eight_devices_is_that_on_one():
    config = tiny_config(**{"optimizer.name": "sgd", "optimizer.schedule": "polynomial", "optimizer.warmup": 0.0})
    batch = make_batch(8)
    results = []
    for devices in (1, 8):
        graphdef, state, optimizer = make_state(config)
        step = make_train_step(graphdef, optimizer, make_task(config), config.train, devices=jax.devices()[:devices])
        results.append(step(state, shard_batch(batch, devices)))
    (one, one_metrics), (eight, eight_metrics) = results
    assert largest_difference(eight.params, one.params) < 1e-5
    for name in one_metrics:
        np.testing.assert_allclose(eight_metrics[name], one_metrics[name], rtol=1e-5, err_msg=name)
    assert int(eight.step) == 1


@pytest.mark.parametrize("synced", [True, False])
def test_two_devices_take_the_statistics_of_the_whole_batch_only_where_they_are_synchronised(synced):
    config = tiny_config(**{"train.sync_batchnorm": synced})
    batch = make_batch(4)
    batch["image"][2:] //= 4  # those of the second device are darker
    task = make_task(config)
    optimizer = make_optimizer(config.optimizer, 100, freeze_encoder=False)
    statistics = []
    for devices in (1, 2):
        graphdef, state = create_state(task.build(jax.random.key(0)), optimizer)
        step = make_train_step(graphdef, optimizer, task, config.train, devices=jax.devices()[:devices])
        state, _ = step(state, shard_batch(batch, devices))
        statistics.append(state.model_state)
    difference = largest_difference(*statistics)
    assert difference < 1e-5 if synced else difference > 1e-2


def test_microbatches_give_the_gradients_of_the_whole_batch():
    half = make_batch(4)
    batch = {name: np.concatenate([x, x]) for name, x in half.items()}  # equal halves: equal BatchNorm statistics
    whole, split = tiny_config(), tiny_config(**{"train.accumulate": 2})
    results = []
    for config in (whole, split):
        graphdef, state, _ = make_state(config)
        function = mapped_loss_and_grad(graphdef, config, devices=jax.devices()[:1])
        results.append(function(state, shard_batch(batch, 1)))
    np.testing.assert_allclose(results[1][0]["total"], results[0][0]["total"], rtol=1e-5)
    assert largest_difference(results[1][1], results[0][1]) < 1e-5


@pytest.fixture(scope="module")
def with_boundary():
    """Losses and gradients of a batch, and of one without an edge, for weights of the shape and the boundary loss."""

    def run(shape_weight: float, bce_weight: float):
        config = tiny_config(**BOUNDARY)
        config.loss.shape_weight, config.loss.bce_weight = shape_weight, bce_weight
        graphdef, state, _ = make_state(config)
        function = mapped_loss_and_grad(graphdef, config, jax.devices()[:1])
        batch = make_batch(8)
        empty = {**batch, "label": np.where(batch["label"] == 255, 255, 0).astype(np.uint8)}
        return [function(state, shard_batch(b, 1))[:2] for b in (batch, empty)]

    return run


def test_the_losses_add_up_to_equation_3_and_without_an_edge_none_is_nan(with_boundary):
    (losses, grads), (empty_losses, empty_grads) = with_boundary(0.3, 0.4)
    expected = losses["align"] + 0.3 * losses["shape"] + 0.4 * losses["bce"]
    np.testing.assert_allclose(losses["total"], expected, rtol=1e-6)
    assert float(empty_losses["shape"]) == 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((grads, empty_grads)))


@pytest.mark.parametrize("name", ["shape", "bce"])
def test_each_boundary_loss_has_a_gradient_of_its_own(with_boundary, name):
    (losses, grads), (_, empty_grads) = with_boundary(float(name == "shape"), float(name == "bce"))
    assert set(losses) == {"total", "align", name}
    assert optax.tree.norm(grads["boundary_head"]) > 1e-5
    if name == "shape":  # nothing to compare with: nothing to learn
        assert optax.tree.norm(empty_grads["boundary_head"]) == 0


def test_weight_0_leaves_the_boundary_out_of_the_network():
    _, state, _ = make_state(tiny_config())
    assert "boundary_head" not in state.params
    assert list(make_task(tiny_config()).weights) == ["align"]


def test_a_frozen_encoder_does_not_move_and_the_decoder_does():
    config = tiny_config(**{"model.freeze_encoder": True})
    graphdef, state, optimizer = make_state(config)
    before = jax.tree.map(np.array, state.params)
    step = make_train_step(graphdef, optimizer, make_task(config), config.train)
    for _ in range(2):  # the schedule starts near 0
        state, _ = step(state, shard_batch(make_batch(8)))
    assert largest_difference(state.params["encoder"], before["encoder"]) == 0
    assert largest_difference(state.params["head"], before["head"]) > 0


def test_a_shape_constraint_that_could_teach_nothing_is_refused():
    with pytest.raises(UserError, match=r"model.freeze_encoder=True: .* would teach the masks nothing"):
        make_task(tiny_config(**{"model.freeze_encoder": True, "loss.bce_weight": 0.3}))


def test_the_decoder_learns_at_its_multiple_of_the_rate():
    config = tiny_config(
        **{
            "optimizer.name": "sgd",
            "optimizer.schedule": "polynomial",
            "optimizer.warmup": 0.0,
            "optimizer.weight_decay": 0.0,
            "optimizer.learning_rate": 0.5,
            "optimizer.clip_norm": 0.0,
            "optimizer.decoder_multiplier": 10.0,
        }
    )
    optimizer = make_optimizer(config.optimizer, 100, freeze_encoder=False)
    params = {"encoder": {"kernel": jnp.ones(2)}, "head": {"kernel": jnp.ones(2)}}
    updates: Any = optimizer.update(params, optimizer.init(params), params)[0]
    np.testing.assert_allclose(updates["encoder"]["kernel"], -0.5)
    np.testing.assert_allclose(updates["head"]["kernel"], -5.0)


def test_weight_decay_acts_on_kernels_alone():
    config = tiny_config(**{"optimizer.name": "adamw", "optimizer.warmup": 0.1, "optimizer.weight_decay": 0.1})
    optimizer = make_optimizer(config.optimizer, 10, freeze_encoder=False)
    params = {"encoder": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}}
    state = optimizer.init(params)
    zeros = jax.tree.map(jnp.zeros_like, params)
    _, state = optimizer.update(zeros, state, params)
    updates: Any = optimizer.update(zeros, state, params)[0]
    assert float(updates["encoder"]["kernel"][0]) < 0
    assert float(updates["encoder"]["bias"][0]) == 0


def test_polynomial_schedule_is_the_papers():
    config = tiny_config(
        **{"optimizer.schedule": "polynomial", "optimizer.learning_rate": 2.0, "optimizer.warmup": 0.0}
    ).optimizer
    schedule = learning_rate_schedule(config, 100)
    for step in (0, 30, 99):
        np.testing.assert_allclose(schedule(step), 2.0 * (1 - step / 100) ** 0.9, rtol=1e-5)


@pytest.mark.parametrize(("key", "value"), [("optimizer.name", "adam"), ("optimizer.schedule", "step")])
def test_unknown_optimizer_settings_are_the_users_error(key, value):
    config = tiny_config(**{key: value})
    with pytest.raises(UserError, match=value):
        make_optimizer(config.optimizer, 10, freeze_encoder=False).init({"head": {"kernel": jnp.ones(2)}})


def test_unknown_label_space_is_the_users_error():
    config = tiny_config(**{"loss.label_space": "pairs"})
    with pytest.raises(UserError, match="sampled"):
        Segmentation(config, ANCHORS)
