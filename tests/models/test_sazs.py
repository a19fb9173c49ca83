"""The composed network at its real sizes, traced, and the pieces that have a rule of their own."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import coco_to_pascal, demo, pascal, variants
from data import load
from data.scoring import is_one_of
from sazs_jax.edges import TILE
from sazs_jax.errors import UserError
from sazs_jax.models import sazs
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.dpt import resize_aligned
from sazs_jax.models.drn import DRN, DRN_CONFIGS, PyramidPooling
from sazs_jax.models.sazs import DEVICE_AXIS, build_model, cosine_logits
from sazs_jax.models.vit import VIT_CONFIGS, resize_positions
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.segmentation import Segmentation
from sazs_jax.training.state import create_state
from sazs_jax.training.step import make_train_step
from tests.random_weights import random_weights

MILLION = 1e6


def traced_step(config, num_anchors: int = 16):
    """Shapes of the new state and the metrics of one training step on one device; no arithmetic is done."""
    graphs = []

    def make():
        model = build_model(config, rngs=nnx.Rngs(0), batchnorm_axis=DEVICE_AXIS)
        optimizer = make_optimizer(config.optimizer, config.train.num_steps, freeze_encoder=config.model.freeze_encoder)
        graphdef, state = create_state(model, optimizer)
        graphs.append((graphdef, optimizer))
        return state

    state = jax.eval_shape(make)
    graphdef, optimizer = graphs[0]
    anchors = np.zeros((num_anchors, config.model.embedding_dim), np.float32)
    mlp = random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0))) if config.loss.shape_weight else None
    step = make_train_step(
        graphdef, optimizer, Segmentation(config, anchors, mlp), config.train, devices=jax.devices()[:1]
    )
    shape = (1, config.data.batch_size, config.data.crop, config.data.crop)
    batch = {
        "image": jax.ShapeDtypeStruct((*shape, 3), jnp.uint8),
        "label": jax.ShapeDtypeStruct(shape, jnp.uint8),
    }
    return state, *jax.eval_shape(step, state, batch)


def number_of_parameters(state) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(state.params))


def fold_configs(dataset: str, variant: str = "vit_l16"):
    return [importlib.import_module(f"configs.{dataset}_fold{fold}").get_config(variant) for fold in range(4)]


def are_one_but_for_the_fold(configs) -> bool:
    assert [config.data.fold for config in configs] == [0, 1, 2, 3]
    first = configs[0].copy_and_resolve_references()
    for fold in range(4):
        first.data.fold = fold
        if first.to_dict() != configs[fold].to_dict():
            return False
    return True


def test_every_fold_trains_the_papers_vit_l16_at_480():
    configs = fold_configs("pascal")
    assert are_one_but_for_the_fold(configs)
    config = configs[0]
    assert (config.model.encoder, config.data.crop, config.data.batch_size) == ("vit_l16", 480, 6)
    before, after, metrics = traced_step(config)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert metrics["loss/align"].shape == ()
    # ViT-L/16 has 304 M parameters, LSeg's decoder about 40 M.
    assert 330 * MILLION < number_of_parameters(after) < 350 * MILLION


@pytest.mark.parametrize("variant", [name for name in variants.VARIANTS if name != "vit_l16"])
def test_every_variant_is_traced_at_its_own_size(variant):
    before, after, _ = traced_step(pascal.get_config(1, variant))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)


@pytest.mark.parametrize("variant", variants.VARIANTS)
def test_every_variant_is_traced_with_cocos_sixty_seen_classes(variant):
    configs = fold_configs("coco", variant)
    assert are_one_but_for_the_fold(configs)
    assert configs[0].data.dataset == "coco_20i"
    before, after, metrics = traced_step(configs[0], num_anchors=61)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), before) == jax.tree.map(lambda x: (x.shape, x.dtype), after)
    assert metrics["loss/align"].shape == ()


def test_the_cross_dataset_config_leaves_vocs_classes_out_of_coco():
    config = coco_to_pascal.get_config("lite")
    own = load(config.data, splits=())
    voc = load(pascal.get_config(0).data, splits=())
    seen = own.seen(config.data.fold, config.data.exclude)
    assert len(seen) == 60
    names = [own.class_names[c] for c in seen]
    assert not any(is_one_of(name, names) for name in voc.class_names)
    assert all(is_one_of(name, own.class_names) for name in voc.class_names)


def test_dropout_zeroes_its_share_by_example_and_in_training_alone(monkeypatch):
    config = pascal.get_config(1, "drn22")
    config.model.dtype, config.model.decoder_width, config.model.dropout = "float32", 64, 0.25
    seen = []

    def remember(head, x):
        seen.append(np.asarray(x))
        return x

    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    monkeypatch.setattr(PyramidPooling, "__call__", lambda _, maps, **__: jnp.ones((*maps[-1].shape[:3], 64)))
    monkeypatch.setattr(nnx.Conv, "__call__", remember)
    monkeypatch.setattr(DRN, "__call__", lambda _, x, **__: [x[:, ::8, ::8]] * 3)
    images = jnp.zeros((2, 32, 32, 3), jnp.uint8)
    keys = jax.random.split(jax.random.key(0), 2)
    with pytest.raises(ValueError, match="no keys"):
        model(images, train=True)
    model(images, train=True, dropout_keys=keys)
    model(images[:1], train=True, dropout_keys=keys[1:])
    model(images)
    both, second, none = seen
    assert set(np.unique(both)) == {0.0, np.float32(1 / 0.75)}
    assert abs((both == 0).mean() - 0.25) < 0.04
    assert (both[0] != both[1]).any()
    np.testing.assert_array_equal(second[0], both[1])  # a draw goes with its example, wherever that lies
    np.testing.assert_array_equal(none, 1)


def test_an_impossible_dropout_is_the_users_error():
    config = demo.get_config()
    config.model.dropout = 1.0
    with pytest.raises(UserError, match=r"model.dropout=1.0: expected at least 0 and less than 1"):
        build_model(config, rngs=nnx.Rngs(0))


def test_cocos_eighty_classes_and_512_pixels_go_through_the_same_code():
    config = pascal.get_config(0)
    config.data.crop, config.model.remat, config.train.accumulate = 512, True, 2
    _, _, metrics = traced_step(config, num_anchors=61)
    assert metrics["loss/align"].shape == ()


@pytest.mark.parametrize("variant", ["vit_l16", "drn", "lite"])
def test_the_shape_constraint_is_traced_at_real_size(variant):
    config = pascal.get_config(1, variant)
    config.loss.shape_weight = config.loss.bce_weight = 0.3
    _, after, metrics = traced_step(config)
    assert {"loss/total", "loss/align", "loss/shape", "loss/bce"} < set(metrics)
    assert (
        after.params["boundary_head"]["conv"]["kernel"].shape
        == {
            "vit_l16": (1, 1, 1024, 16),  # 4x4 logits for each cell of 16 pixels
            "drn": (1, 1, 512, 4),
            "lite": (1, 1, 40, 4),
        }[variant]
    )


VARIANTS = {"efficientnet_lite0": "lite", "drn_d_105": "drn", "drn_d_22": "drn22"}


@pytest.mark.parametrize("encoder", sazs.ENCODERS)
def test_one_real_step_of_each_encoder(encoder, monkeypatch):
    """At reduced depth and size, through the very function that training maps."""
    config = pascal.get_config(1, VARIANTS.get(encoder, "vit_s16"))
    config.model.encoder = encoder
    config.model.dtype, config.model.decoder_width = "float32", 16
    config.optimizer.weight_decay = 0.0  # it would move what no gradient reaches
    config.loss.bce_weight = 0.3
    stride = 2 if encoder in VIT_CONFIGS else 8 if encoder in DRN_CONFIGS else 4
    if encoder in VIT_CONFIGS:
        monkeypatch.setitem(VIT_CONFIGS, encoder, dataclasses.replace(VIT_CONFIGS[encoder], taps=(0, 1, 2, 3)))
    if encoder in DRN_CONFIGS:
        repeats = (1, 1, 1, 2, 1, 1, 1, 1, 1)  # one residual block without a shortcut of its own
        monkeypatch.setitem(DRN_CONFIGS, encoder, dataclasses.replace(DRN_CONFIGS[encoder], repeats=repeats))
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0), batchnorm_axis=DEVICE_AXIS))
    output = jax.eval_shape(model, jnp.zeros((1, 64, 96, 3), jnp.uint8))
    assert output.embeddings.shape == (1, 64 // stride, 96 // stride, 512)
    assert output.boundary_logits.shape == (1, 16, 24)
    optimizer = make_optimizer(config.optimizer, 2, freeze_encoder=False)
    graphdef, state = create_state(model, optimizer)
    before = jax.tree.map(np.array, state.params)
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(4, 512)).astype(np.float32)
    batch = {
        "image": rng.integers(0, 256, (1, 2, 64, 64, 3), dtype=np.uint8),
        "label": rng.integers(0, 4, (1, 2, 64, 64), dtype=np.uint8),
    }
    step = make_train_step(graphdef, optimizer, Segmentation(config, anchors), config.train, devices=jax.devices()[:1])
    state, metrics = step(state, batch)
    assert np.isfinite(metrics["loss/align"])
    moved = jax.tree.map(lambda a, b: bool(np.any(np.asarray(a) != b)), state.params, before)
    still = [jax.tree_util.keystr(path) for path, move in jax.tree_util.tree_leaves_with_path(moved) if not move]
    assert still == []  # the gradient reaches every parameter


def test_any_multiple_of_the_patch_will_do():
    config = demo.get_config()
    model = nnx.eval_shape(lambda: build_model(config, rngs=nnx.Rngs(0)))
    for height, width in ((64, 64), (40, 88), (72, 56)):  # odd grids among them
        images = jnp.zeros((1, height, width, 3), jnp.uint8)
        shape = nnx.eval_shape(lambda model, images: model(images), model, images).embeddings.shape
        assert shape == (1, height // 2, width // 2, config.model.embedding_dim)


def test_position_embeddings_are_resized_as_pillow_would():
    from PIL import Image

    rng = np.random.default_rng(0)
    embeddings = rng.normal(size=(1, 1 + 6 * 6, 2)).astype(np.float32)
    resized = np.asarray(resize_positions(jnp.asarray(embeddings), (9, 12)))
    np.testing.assert_array_equal(resized[0, 0], embeddings[0, 0])  # the class token has no place
    for channel in range(2):
        grid = Image.fromarray(embeddings[0, 1:, channel].reshape(6, 6))
        expected = np.asarray(grid.resize((12, 9), Image.Resampling.BILINEAR))
        np.testing.assert_allclose(resized[0, 1:, channel].reshape(9, 12), expected, atol=1e-5)
    np.testing.assert_array_equal(resize_positions(jnp.asarray(embeddings), (6, 6)), embeddings)


def test_aligned_resize_keeps_corners_and_is_linear_between():
    x = jnp.arange(4.0)[None, :, None, None] * jnp.ones((1, 4, 3, 1))
    y = resize_aligned(x, (7, 5))
    np.testing.assert_allclose(y[0, :, 0, 0], np.linspace(0, 3, 7), rtol=1e-6)
    np.testing.assert_allclose(y[0, 3], 1.5, rtol=1e-6)


def test_cosine_logits_are_scaled_cosines():
    rng = np.random.default_rng(0)
    x, anchors = rng.normal(size=(1, 2, 3, 5)).astype(np.float32), rng.normal(size=(4, 5)).astype(np.float32)
    expected = np.empty((1, 2, 3, 4))
    for i, j, k in np.ndindex(2, 3, 4):
        a, b = x[0, i, j].astype(float), anchors[k].astype(float)
        expected[0, i, j, k] = 7 * a @ b / np.sqrt((a @ a) * (b @ b))
    np.testing.assert_allclose(cosine_logits(jnp.asarray(x), jnp.asarray(anchors), 7.0), expected, rtol=1e-5, atol=1e-6)


def test_cosines_of_16_bit_embeddings_are_summed_in_32():
    random = np.random.default_rng(0)
    anchors = random.normal(size=(8, 512)).astype(np.float32)
    x = jnp.asarray(anchors[0] + 0.5 * random.normal(size=(1, 20, 20, 512)), jnp.bfloat16)  # cosines of .9 and of 0
    exact = np.asarray(x, np.float64)
    exact = exact / np.linalg.norm(exact, axis=-1, keepdims=True)
    exact = exact @ (anchors / np.linalg.norm(anchors, axis=1, keepdims=True)).T.astype(np.float64)
    found = cosine_logits(x, jnp.asarray(anchors))
    assert found.dtype == jnp.float32
    # What is left is the anchors' own rounding; a cosine of .9 in bfloat16 would be off by up to 2e-3.
    assert np.abs(np.asarray(found, np.float64) - exact).max() < 5e-4


def test_an_unknown_encoder_is_the_users_error():
    config = demo.get_config()
    config.model.encoder = "resnet"
    with pytest.raises(UserError, match=", ".join(sazs.ENCODERS)):
        build_model(config, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(("encoder", "stride"), [("vit_tiny", 8), ("drn_d_22", 8), ("efficientnet_lite0", 32)])
def test_without_a_decoder_the_head_projects_the_encoders_last_map(encoder, stride):
    """SPNet's form: a linear projection on a backbone that stays as it is."""
    config = demo.get_config()
    config.model.encoder = encoder
    config.model.decoder_width, config.model.freeze_encoder = 0, True
    config.loss.shape_weight = config.loss.bce_weight = 0.0
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    images = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    found = model(jnp.asarray(images)).embeddings
    assert found.shape == (1, 64 // stride, 96 // stride, 64)
    pixels = (images - np.asarray(model.encoder.pixel_mean)) / np.asarray(model.encoder.pixel_std)
    last = model.encoder(jnp.asarray(pixels, jnp.float32), train=False)[-1]
    last = np.asarray(getattr(last, "patches", last))
    head = nnx.to_pure_dict(nnx.state(model.head))
    kernel, bias = np.asarray(head["kernel"])[0, 0], np.asarray(head["bias"])
    np.testing.assert_allclose(found, last @ kernel + bias, rtol=1e-3, atol=1e-3 * np.abs(found).max())
    trained = {path[0] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))} - {"encoder"}
    assert trained == {"head"}


def test_a_decoder_of_negative_width_is_refused():
    config = demo.get_config()
    config.model.decoder_width = -1
    with pytest.raises(UserError, match="model.decoder_width=-1: expected channels, or 0"):
        build_model(config, rngs=nnx.Rngs(0))
