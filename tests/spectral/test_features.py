"""The sources of features for Eq. 4."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file
from scipy.special import erf

from configs import defaults
from sazs_jax.errors import UserError
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.spectral.affinity import SELF_AFFINITY, affinity, colour_positions, shape_affinity
from sazs_jax.spectral.features import Features, to_grid
from tests.dino_layouts import published
from tests.relative_error import relative_error
from tests.seeded_weights import seeded_weights

GRID = 4
DINO_SHAPES = Path(__file__).parents[1] / "golden" / "dino.npz"
PATCH, HEADS, BLOCKS = 8, 2, 2  # of the small ViT of these shapes; its positions are those of 4x4 patches


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


@pytest.mark.parametrize(("dtype", "least", "most"), [("bfloat16", 1e-3, 0.1), ("float16", 1e-5, 0.01)])
def test_lite_in_16_bits_is_near_float32_and_not_equal(images, dtype, least, most):
    found, exact = (Features(settings("lite", dtype=name))(images) for name in (dtype, "float32"))
    assert found.dtype == jnp.float32
    assert least < relative_error(found, exact) < most


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


def dino_keys_by_hand(w: dict[str, np.ndarray], image: np.ndarray) -> np.ndarray:
    """Keys (N, D) of the last block for one image (H, W, 3) of bytes, in double precision from transformers' names."""
    side = GRID * PATCH
    channels = [Image.fromarray(image[..., c].astype(np.float32)) for c in range(3)]
    squashed = [np.array(c.resize((side, side), Image.Resampling.BILINEAR), float) for c in channels]
    pixels = np.stack(squashed, axis=-1)
    pixels = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]  # ImageNet's
    patches = pixels.reshape(GRID, PATCH, GRID, PATCH, 3).transpose(0, 2, 4, 1, 3).reshape(GRID**2, -1)
    embed = "embeddings.patch_embeddings.projection"
    tokens = patches @ w[f"{embed}.weight"].reshape(-1, patches.shape[1]).T + w[f"{embed}.bias"]
    x = np.concatenate([w["embeddings.cls_token"][0], tokens]) + w["embeddings.position_embeddings"][0]

    def linear(name, x):
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, x):
        x = (x - x.mean(axis=-1, keepdims=True)) / np.sqrt(x.var(axis=-1, keepdims=True) + 1e-6)
        return x * w[f"{name}.weight"] + w[f"{name}.bias"]

    for i in range(BLOCKS):
        block = f"layers.{i}"
        y = norm(f"{block}.layernorm_before", x)
        q, k, v = (linear(f"{block}.attention.{name}_proj", y) for name in "qkv")
        if i == BLOCKS - 1:
            return k[1:]
        heads = []
        for one in np.split(np.arange(q.shape[1]), HEADS):
            scores = np.exp(q[:, one] @ k[:, one].T / np.sqrt(len(one)))
            heads.append(scores / scores.sum(axis=1, keepdims=True) @ v[:, one])
        x = x + linear(f"{block}.attention.o_proj", np.concatenate(heads, axis=1))
        y = linear(f"{block}.mlp.fc1", norm(f"{block}.layernorm_after", x))
        x = x + linear(f"{block}.mlp.fc2", y * (1 + erf(y / np.sqrt(2))) / 2)
    raise AssertionError


def test_dino_gives_the_last_keys_of_the_normalised_image_squashed_to_the_grid(images, tmp_path):
    with np.load(DINO_SHAPES) as arrays:
        weights = seeded_weights(json.loads(str(arrays["shapes"])))
    save_file({k: np.ascontiguousarray(v) for k, v in published(weights).items()}, tmp_path / "model.safetensors")
    with jax.default_matmul_precision("highest"):
        found = np.asarray(Features(settings("dino", dino=str(tmp_path)))(images))
    for row, image in zip(found, np.asarray(images), strict=True):
        keys = dino_keys_by_hand(weights, image)
        assert relative_error(row, keys / np.linalg.norm(keys, axis=1, keepdims=True)) < 1e-4


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
