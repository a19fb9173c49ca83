"""No label of an unseen class reaches a loss: the network learns the same whatever those classes are on disk."""

import jax
import numpy as np
import pytest
from flax import nnx

import data
from configs import demo
from data import folds
from data.loading import run_batches
from sazs_jax.edges import TILE
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.sazs import DEVICE_AXIS, build_model
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.segmentation import Segmentation
from sazs_jax.training.state import create_state
from sazs_jax.training.step import make_loss_and_grad, map_over_devices, shard_batch
from tests.random_weights import random_weights

FOLD = 1  # bus, car, cat, chair, cow: 6..10 on disk
PERMUTED = {6: 8, 7: 9, 8: 10, 9: 6, 10: 7}


def build(make_devkit, name: str, unseen_ids: dict[int, int]):
    """A devkit whose training masks hold seen and unseen classes side by side."""
    devkit = make_devkit(name)
    rng = np.random.default_rng(0)
    lines = {0: ["a_bird__03"], 2: ["a_dog__12"]}  # these two hold no unseen class
    for i in range(8):
        values = rng.choice([0, 3, 12, 6, 7, 8, 9, 10, 255], size=(5, 6)).repeat(8, 0).repeat(8, 1)
        values[:8, :24] = 3 if i % 2 else 12
        devkit.add_jpeg(f"mixed{i}")
        devkit.add_mask(f"mixed{i}", np.vectorize(lambda v: unseen_ids.get(v, v))(values))
        lines[0 if i % 2 else 2].append(f"mixed{i}__{3 if i % 2 else 12:02d}")
    for fold, names in lines.items():
        devkit.write_list("trn", fold, *names)
    devkit.write_list("trn", 1)
    return devkit.root


@pytest.fixture(scope="module")
def loss_and_grad():
    config = demo.get_config()
    config.model.embedding_dim = config.model.decoder_width = 8
    config.loss.label_space = "sampled"
    config.loss.shape_weight = config.loss.bce_weight = 1.0
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0), batchnorm_axis=DEVICE_AXIS))
    graphdef, state = create_state(model, make_optimizer(config.optimizer, 10, freeze_encoder=False))
    mlp = random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0)))
    task = Segmentation(config, np.random.default_rng(1).normal(size=(16, 8)), mlp)
    function = map_over_devices(
        make_loss_and_grad(graphdef, task, config.train), task.constants, devices=jax.devices()[:1]
    )
    return lambda batch: jax.device_get(function(state, shard_batch(batch, 1)))


def outcome(loss_and_grad, data_config, root, unseen_pixels) -> list[bytes]:
    """Loss, gradients and BatchNorm statistics of two batches as train.py makes them, to the bit."""
    config = demo.get_config()
    config.data = data_config(root, fold=FOLD)
    config.loss.unseen_pixels = unseen_pixels
    dataset = data.load(config.data, splits=("train",))
    batches = run_batches(config, dataset, dataset.train_indices(FOLD, unseen_pixels))
    return [leaf.tobytes() for _ in range(2) for leaf in jax.tree.leaves(loss_and_grad(next(batches)))]


@pytest.mark.parametrize("unseen_pixels", ["ignore", "others"])
def test_permuting_the_unseen_classes_on_disk_changes_nothing(make_devkit, data_config, loss_and_grad, unseen_pixels):
    results = [
        outcome(loss_and_grad, data_config, build(make_devkit, name, ids), unseen_pixels)
        for name, ids in (("plain", {}), ("permuted", PERMUTED))
    ]
    assert results[0] == results[1]


def test_with_a_broken_look_up_the_permutation_shows(make_devkit, data_config, loss_and_grad, monkeypatch):
    def broken(*arguments):
        lookup = folds.training_lookup(*arguments)
        lookup[9] = 3  # one unseen class goes through
        return lookup

    monkeypatch.setattr("data.datasets.training_lookup", broken)
    results = [
        outcome(loss_and_grad, data_config, build(make_devkit, name, ids), "ignore")
        for name, ids in (("plain", {}), ("permuted", PERMUTED))
    ]
    assert results[0] != results[1]


def test_images_that_hold_unseen_pixels_are_dropped_on_request(make_devkit, data_config):
    config = data_config(build(make_devkit, "plain", {}), fold=FOLD)
    dataset = data.load(config, splits=("train",))
    kept = {dataset.train.image_ids[i] for i in dataset.train_indices(FOLD, "drop")}
    everything = {dataset.train.image_ids[i] for i in dataset.train_indices(FOLD, "ignore")}
    assert {name for name in everything if name.startswith("mixed")}
    assert kept == {name for name in everything if not name.startswith("mixed")}
    assert kept
