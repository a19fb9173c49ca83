"""DINO's ViT in every layout that it is published in, against what PyTorch computed."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sazs_jax.errors import UserError
from sazs_jax.pretrained.dino import load_dino, resize_positions_bicubic
from tests.dino_layouts import dino_depths, published, timm
from tests.relative_error import relative_error
from tests.seeded_weights import seeded_weights

GOLDEN = Path(__file__).parents[1] / "golden" / "dino.npz"
SIDE, PATCH = 48, 8


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN) as arrays:
        depths = {name: arrays[name] for name in ("embedding", "block0", "keys")}
        return seeded_weights(json.loads(str(arrays["shapes"]))), depths


@pytest.mark.parametrize("layout", [timm, published, dict])
def test_every_depth_equals_pytorch_in_every_layout(golden, layout, tmp_path):
    tensors, depths = golden
    tensors = {f"module.{key}" if layout is timm else key: value for key, value in layout(tensors).items()}
    save_file({key: np.ascontiguousarray(value) for key, value in tensors.items()}, tmp_path / "model.safetensors")
    x = np.random.RandomState(0).normal(size=(1, SIDE, SIDE, 3)).astype(np.float32)
    for source in (tmp_path, tmp_path / "model.safetensors"):
        module = load_dino(str(source), SIDE // PATCH)
        assert module.config.num_heads == 2
        for name, found in dino_depths(module, x).items():
            assert relative_error(found, depths[name]) < 1e-5, name


def test_positions_of_the_stored_grid_stay_as_they_are():
    embeddings = np.random.default_rng(0).normal(size=(1, 10, 4)).astype(np.float32)
    np.testing.assert_allclose(resize_positions_bicubic(embeddings, 3), embeddings, atol=1e-6)


def test_files_of_something_else(golden, tmp_path):
    tensors = timm(golden[0])
    path = tmp_path / "weights.safetensors"

    def load(**changes):
        changed = {key: value for key, value in (tensors | changes).items() if value is not None}
        save_file({key: np.ascontiguousarray(value) for key, value in changed.items()}, path)
        return load_dino(str(path), 6)

    with pytest.raises(UserError, match=r"no ViT in timm's or transformers' layout"):
        load(**{"blocks.0.attn.qkv.weight": None})
    with pytest.raises(UserError, match=r"missing: blocks\.1\.mlp\.fc1\.bias"):
        load(**{"blocks.1.mlp.fc1.bias": None})
    with pytest.raises(UserError, match="pos_embed or patch_embed.proj.weight is missing"):
        load(pos_embed=None)
    for tokens in (0, 1, 3):
        with pytest.raises(UserError, match="pos_embed or patch_embed.proj.weight is missing or of another shape"):
            load(pos_embed=np.zeros((1, tokens, 128), np.float32))
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged"):
        load_dino(str(path), 6)
