"""DINO's S/16 and B/8 at the size of the spectral step against transformers in PyTorch, random weights."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from sazs_jax.pretrained.dino import load_dino
from tests.dino_layouts import dino_depths, published
from tests.relative_error import relative_error

torch = pytest.importorskip("torch", reason="live parity needs PyTorch: make parity")
pytestmark = pytest.mark.parity

GRID = 30


@pytest.mark.parametrize(("hidden", "heads", "patch"), [(384, 6, 16), (768, 12, 8)])
def test_embedding_first_block_and_last_keys(hidden, heads, patch, tmp_path):
    from transformers import ViTConfig, ViTModel

    from tests.golden.make_dino import torch_depths

    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=hidden, num_attention_heads=heads, intermediate_size=4 * hidden, patch_size=patch, image_size=224
    )
    module = ViTModel(config, add_pooling_layer=False).eval()
    for name, tensor in module.named_parameters():
        if tensor.ndim == 1 or "embeddings." in name:
            torch.nn.init.normal_(tensor, 1.0 if "layernorm" in name and name.endswith("weight") else 0.0, 0.2)
    tensors = published({name: tensor.numpy() for name, tensor in module.state_dict().items()})
    save_file({name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}, tmp_path / "model.safetensors")

    x = np.random.default_rng(0).normal(size=(1, GRID * patch, GRID * patch, 3)).astype(np.float32)
    found = dino_depths(load_dino(str(tmp_path), GRID), x)
    for name, expected in torch_depths(module, x).items():
        error = relative_error(found[name], expected)
        print(f"hidden {hidden}, patch {patch}: relative error of {name} {error:.1e}")
        assert error < 1e-4, name
