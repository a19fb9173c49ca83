"""The sources of features for Eq. 4."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import defaults
from sazs_jax.errors import UserError
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.spectral.affinity import SELF_AFFINITY, affinity, colour_positions, shape_affinity
from sazs_jax.spectral.features import Features, to_grid

GRID = 4


def settings(features: str, **changes):
    config = defaults.get_config().spectral
    config.update({"features": features, "grid": GRID, **changes})
    return config


@pytest.fixture(scope="module")
def images():
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (2, 40, 56, 3), dtype=np.uint8))


def test_embeddings_lose_their_mean_and_their_length(images):
    embeddings = np.random.default_rng(1).normal(3, 1, (2, GRID, GRID, 5)).astype(np.float32)
    found = np.asarray(Features(settings("embeddings"))(images, jnp.asarray(embeddings)))
    centred = embeddings - embeddings.mean(axis=(1, 2), keepdims=True)
    expected = centred / np.linalg.norm(centred, axis=-1, keepdims=True)
    np.testing.assert_allclose(found, expected.reshape(2, GRID**2, 5), atol=1e-5)


def test_lite_gives_its_maps_at_stride_16_and_32_on_the_grid(images):
    features = Features(settings("lite"))
    assert features.lite is not None
    x = jax.image.resize(images.astype(jnp.float32), (2, 64, 64, 3), "linear")
    pyramid = features.lite((x - EfficientNetLite0.pixel_mean) / EfficientNetLite0.pixel_std, train=False)
    assert pyramid[2].shape[1:3] == (GRID, GRID)
    fine, coarse = np.asarray(pyramid[2]), np.asarray(to_grid(pyramid[3], GRID))
    found = np.asarray(features(images)).reshape(2, GRID, GRID, -1)
    for part, level in ((found[..., :112], fine), (found[..., 112:], coarse)):
        unit = level / np.linalg.norm(level, axis=-1, keepdims=True)
        np.testing.assert_allclose(part, unit / np.sqrt(2), atol=1e-4)


def test_sources_together_count_alike(images):
    embeddings = jnp.asarray(np.random.default_rng(1).normal(size=(2, GRID, GRID, 5)), jnp.float32)
    lite, own = Features(settings("lite"))(images), Features(settings("embeddings"))(images, embeddings)
    both = Features(settings("lite+embeddings"))(images, embeddings)
    cosines = [np.einsum("bic,bjc->bij", f, f) for f in (lite, own, both)]
    np.testing.assert_allclose(cosines[2], cosines[0] + cosines[1], atol=1e-4)


def test_an_unknown_source_and_dino_that_cannot_be_had(tmp_path):
    with pytest.raises(UserError, match="'dinosaur' unknown; expected dino, lite, embeddings"):
        Features(settings("lite+dinosaur"))
    with pytest.raises(
        UserError, match="lacks model.safetensors or pytorch_model.bin; or choose spectral.features=lite"
    ):
        Features(settings("dino", dino=str(tmp_path)))


def test_color_leaves_the_graph_of_eq_5_alone():
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    x = colour_positions(jnp.asarray(images), GRID)
    features = Features(settings("color", color_weight=2.0))(jnp.asarray(images))
    found = affinity(features, x, color_weight=2.0, neighbours=5)
    expected = 2 * np.asarray(shape_affinity(x, 5)) + SELF_AFFINITY * np.eye(GRID**2)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    with pytest.raises(UserError, match="give spectral.color_weight above 0"):
        Features(settings("color", color_weight=0.0))
