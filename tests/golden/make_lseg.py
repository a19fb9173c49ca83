"""Write lseg.npz: what PyTorch computes with a small LSeg network (ViT, DPT), weights of tests.seeded_weights.

And the names and shapes of one on ViT-S/16.

pip install torch; python -m tests.golden.make_lseg
"""

import json
from pathlib import Path

import numpy as np
import torch

from tests.golden.make_drn import set_seeded_weights
from tests.golden.torch_lseg import TorchLSeg

# The image's grid, 4x6, is not the stored one.
SHAPE = (1, 3, 64, 96)
SIZES = {
    "dim": 32,
    "depth": 4,
    "heads": 2,
    "taps": (0, 1, 2, 3),
    "channels": (8, 12, 16, 20),
    "width": 16,
    "embedding_dim": 12,
    "grid": 3,
}


def main() -> None:
    x = torch.from_numpy(np.random.RandomState(0).normal(size=SHAPE).astype(np.float32))
    module = TorchLSeg(**SIZES).eval()
    arrays = {"shapes": np.array(json.dumps(set_seeded_weights(module))), "x": x.permute(0, 2, 3, 1).numpy()}
    small = TorchLSeg(384, 12, 6, (2, 5, 8, 11), (48, 96, 192, 384), width=16, embedding_dim=64)
    arrays["vit_s16/shapes"] = np.array(json.dumps(set_seeded_weights(small)))
    with torch.no_grad():
        tokens, pyramid, embeddings = module(x)
    arrays |= {f"tokens{i}": output.numpy() for i, output in enumerate(tokens)}
    arrays |= {f"level{i}": level.permute(0, 2, 3, 1).numpy() for i, level in enumerate(pyramid)}
    np.savez_compressed(
        Path(__file__).with_name("lseg.npz"), embeddings=embeddings.permute(0, 2, 3, 1).numpy(), **arrays
    )


if __name__ == "__main__":
    main()
