"""Batches of any size and the way of logits back to each image's own size, against NumPy and Pillow."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from configs.defaults import get_config
from sazs_jax import inference
from sazs_jax.errors import UserError
from sazs_jax.inference import Network, make_batches, network_size, upsample, upsampled_argmax
from sazs_jax.models.sazs import build_model, cosine_logits
from tests.tiny_network import TinyNetwork, numpy_bilinear


@pytest.mark.parametrize(
    ("size", "resize", "expected"),
    [
        ((320, 240), 0, (320, 224 + 32)),  # 7.5 multiples round up
        ((239, 320), 0, (224, 320)),
        ((5, 100), 0, (32, 96)),  # never less than one multiple
        ((320, 213), 512, (512, 512)),
        ((4096, 2048), 0, (1024, 512)),  # larger than the network takes: shrunk, shape kept
        ((375, 500), 0, (384, 512)),
        ((427, 640), 0, (448, 640)),
    ],
)
def test_network_size(size, resize, expected):
    assert network_size(size, 32, resize) == expected


@pytest.mark.parametrize("multiple", [8, 16, 32])
def test_own_sizes_fall_into_few_and_move_by_an_eighth_at_most(multiple):
    sides = range(4 * multiple, 1025)
    found = {side: network_size((side, side), multiple, 0)[0] for side in sides}
    assert all(size % multiple == 0 and abs(size - side) <= side / 8 for side, size in found.items())
    assert len({size for side, size in found.items() if side >= 256}) == 13  # 256, 320, ... 1024
    assert network_size((64, 64), multiple, 0) == (64, 64)


def test_a_side_that_the_network_cannot_take_is_refused():
    with pytest.raises(UserError, match=r"^eval\.resize=500 must be a multiple of 32 for this encoder$"):
        network_size((320, 213), 32, 500)


def test_upsampling_equals_bilinear_interpolation_by_hand():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(3, 8, 6, 2)).astype(np.float32)
    sizes = np.array([[32, 24], [19, 41], [5, 4]], np.int32)  # integer factor, odd factors, shrinking
    found = np.asarray(jax.jit(lambda x: upsample(x, jnp.asarray(sizes), (64, 64)))(logits))
    assert found.shape == (3, 64, 64, 2)
    for row, (height, width) in enumerate(sizes):
        expected = numpy_bilinear(logits[row], height, width)
        np.testing.assert_allclose(found[row, :height, :width], expected, atol=1e-5)


def test_upsampling_equals_jax_image_resize():
    logits = jax.random.normal(jax.random.key(1), (2, 7, 9, 3))
    sizes = jnp.array([[30, 50]] * 2)
    expected = jax.image.resize(logits, (2, 30, 50, 3), "linear")
    found = jax.jit(lambda x: upsample(x, sizes, (64, 64)))(logits)
    np.testing.assert_allclose(found[:, :30, :50], expected, atol=1e-5)


@pytest.mark.parametrize("limit", [1 << 26, 2 * 5 * 64 * 11, 1])
def test_argmax_of_many_labels_by_rows_equals_the_plain_one(limit, monkeypatch):
    for name in ("BLOCK_ELEMENTS", "CPU_BLOCK_ELEMENTS"):
        monkeypatch.setattr(inference, name, limit)
    logits = jax.random.normal(jax.random.key(2), (2, 8, 8, 11))
    logits = logits.at[..., 7].set(logits[..., 3])  # of equal ones the first wins
    sizes = jnp.array([[40, 64], [64, 33]])
    plain = np.asarray(jax.jit(lambda x: upsample(x, sizes, (64, 64)))(logits))
    winner, best = jax.jit(lambda x: upsampled_argmax(x, sizes, (64, 64)))(logits)
    np.testing.assert_array_equal(winner, plain.argmax(axis=-1))
    np.testing.assert_allclose(best, plain.max(axis=-1), atol=1e-5)
    assert not (np.asarray(winner) == 7).any()


def test_embeddings_kept_in_16_bits_give_the_cosines_of_the_direct_way():
    """Prediction keeps an image's embeddings and asks later; evaluation takes the cosines at once."""
    config = get_config()
    config.model.update({"encoder": "vit_tiny", "dtype": "bfloat16", "decoder_width": 16})
    network = Network(nnx.jit(lambda: build_model(config, rngs=nnx.Rngs(0)))())
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (2, 32, 48, 3), dtype=np.uint8)
    anchors = random.normal(size=(3, config.model.embedding_dim)).astype(np.float32)
    kept = network.embed(pixels)
    assert kept.dtype == jnp.bfloat16
    np.testing.assert_allclose(cosine_logits(kept, jnp.asarray(anchors)), network.cosine(pixels, anchors), atol=2e-5)


def test_every_image_appears_once_in_batches_of_one_shape():
    rng = np.random.default_rng(3)
    shapes = [(40, 50), (16, 16), (41, 52), (200, 30), (39, 49), (17, 14), (16, 18)]
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    items = list(enumerate(images))
    batches = list(make_batches(items, lambda item: item[1], multiple=16, resize=0, batch_size=2))
    assert sorted(i for batch in batches for i, _ in batch.items) == list(range(len(images)))
    for batch in batches:
        assert batch.pixels.shape[0] == batch.sizes.shape[0] == 2
        assert all(side % 64 == 0 for side in batch.canvas)
        assert (batch.sizes.max(axis=0) <= batch.canvas).all()
        for row, (_, image) in enumerate(batch.items):
            assert tuple(batch.sizes[row]) == image.shape[:2]
            h, w = batch.pixels.shape[1:3]
            resized = Image.fromarray(image).resize((w, h), Image.Resampling.BILINEAR)
            np.testing.assert_array_equal(batch.pixels[row], np.array(resized))
        assert not batch.pixels[len(batch.items) :].any()


@pytest.mark.parametrize("batch_size", [8, 3])  # spread over the eight devices, and the same on each
def test_network_equals_numpy(batch_size):
    rng = np.random.default_rng(4)
    pixels = rng.integers(0, 256, (batch_size, 16, 32, 3), dtype=np.uint8)
    anchors = rng.normal(size=(4, 6)).astype(np.float32)
    model = TinyNetwork()
    found = Network(model).cosine(pixels, anchors)
    expected = np.stack([model.numpy_cosine(image, anchors) for image in pixels])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(found.sharding.device_set) == jax.device_count()


def test_second_network_of_a_kind_compiles_nothing(caplog):
    pixels = np.zeros((8, 16, 16, 3), np.uint8)
    Network(TinyNetwork(seed=1)).embed(pixels)
    with jax.log_compiles(), caplog.at_level("WARNING"):
        Network(TinyNetwork(seed=2)).embed(pixels)
    assert "Compiling _embed" not in caplog.text
    with jax.log_compiles(), caplog.at_level("WARNING"):
        Network(TinyNetwork(seed=2)).embed(np.zeros((8, 32, 16, 3), np.uint8))
    assert "_embed" in caplog.text  # what a compilation would have looked like
