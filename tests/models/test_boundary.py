"""Which feature map the boundary head sees (paper 3.3: a middle one)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from configs import demo
from sazs_jax.models.boundary import BoundaryHead
from sazs_jax.models.drn import DRN, DRN_CONFIGS
from sazs_jax.models.sazs import build_model
from sazs_jax.models.vit import VIT_CONFIGS, ViT
from tests.random_weights import random_weights

IMAGES = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)


def seen_by_the_head(encoder: str, monkeypatch):
    """A random network, its normalised image, and the features that its boundary head is given."""
    config = demo.get_config()
    config.model.encoder, config.model.decoder_width = encoder, 8
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)))
    seen = []
    monkeypatch.setattr(BoundaryHead, "__call__", lambda _, x: seen.append(x) or jnp.zeros((1, 8, 8)))
    model(jnp.asarray(IMAGES))
    return model, (IMAGES - model.encoder.pixel_mean) / model.encoder.pixel_std, seen[0]


def test_of_a_vit_it_is_what_half_of_the_blocks_give(monkeypatch):
    model, image, seen = seen_by_the_head("vit_tiny", monkeypatch)
    assert isinstance(model.encoder, ViT)
    tokens, _ = model.encoder.embed(jnp.asarray(image, jnp.float32))
    for block in list(model.encoder.blocks)[: VIT_CONFIGS["vit_tiny"].depth // 2]:
        tokens = block(tokens)
    np.testing.assert_allclose(seen.reshape(1, 16, 96), tokens[:, 1:], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("encoder", VIT_CONFIGS)
def test_the_second_tap_of_every_vit_is_at_half_depth(encoder):
    config = VIT_CONFIGS[encoder]
    assert config.taps[1] + 1 == config.depth // 2


def test_of_a_drn_it_is_the_first_level_at_stride_8(monkeypatch):
    repeats = (1, 1, 1, 2, 1, 1, 1, 1, 1)
    # As wide as the last level, as in DRN-D-105.
    widths = (16, 16, 32, 64, 128, 256, 512, 512, 128)
    changed = dataclasses.replace(DRN_CONFIGS["drn_d_22"], repeats=repeats, widths=widths)
    monkeypatch.setitem(DRN_CONFIGS, "drn_d_22", changed)
    model, image, seen = seen_by_the_head("drn_d_22", monkeypatch)
    assert isinstance(model.encoder, DRN)
    levels = model.encoder.every_level(jnp.asarray(image, jnp.float32), train=False)
    assert [level.shape[1] for level in levels[3:5]] == [8, 4]
    np.testing.assert_allclose(seen, levels[4], rtol=1e-5, atol=1e-5)
