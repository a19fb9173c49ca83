"""Write dino.npz: what transformers computes with a small ViT, weights of tests.seeded_weights.

The embedding, the first block's output and the last block's keys.

pip install torch; python -m tests.golden.make_dino
"""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import ViTConfig, ViTModel

from tests.golden.make_drn import set_seeded_weights

SIDE = 48  # pixels; the position embeddings are of 32 / 8 = 4 patches a side, the image has 6
SIZES = {
    "hidden_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 512,
    "image_size": 32,
    "patch_size": 8,
    "layer_norm_eps": 1e-6,
}


def torch_depths(module: ViTModel, x: np.ndarray) -> dict[str, np.ndarray]:
    """For an image (1, H, W, 3): embedding and first block (1, N, D), keys (1, h, w, D) of the last, no class token."""
    parts = {
        "embedding": module.embeddings,
        "block0": module.layers[0],
        "keys": module.layers[-1].attention.k_proj,
    }
    found = {}
    for name, part in parts.items():
        part.register_forward_hook(lambda _, __, output, name=name: found.update({name: output.numpy()}))
    with torch.no_grad():
        module(torch.from_numpy(x).permute(0, 3, 1, 2), interpolate_pos_encoding=True)
    side = x.shape[1] // module.config.patch_size
    return found | {"keys": found["keys"][:, 1:].reshape(1, side, side, -1)}


def main() -> None:
    module = ViTModel(ViTConfig(**SIZES), add_pooling_layer=False).eval()
    shapes = set_seeded_weights(module)
    x = np.random.RandomState(0).normal(size=(1, SIDE, SIDE, 3)).astype(np.float32)
    np.savez_compressed(
        Path(__file__).with_name("dino.npz"), shapes=np.array(json.dumps(shapes)), **torch_depths(module, x)
    )


if __name__ == "__main__":
    main()
