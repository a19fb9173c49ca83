"""Write drn.npz: what PyTorch computes with small DRN-D networks and pyramid pooling, weights of tests.seeded_weights.

pip install torch; python -m tests.golden.make_drn
"""

import json
from pathlib import Path

import numpy as np
import torch

from tests.golden.torch_drn import TorchDRN, TorchPyramidPooling
from tests.seeded_weights import seeded_weights

REPEATS = (1, 1, 1, 2, 1, 2, 1, 1, 1)
WIDTHS = (4, 4, 6, 4, 4, 6, 6, 8, 8)
SHAPE = (1, 3, 32, 40)


def set_seeded_weights(module):
    shapes = {name: list(tensor.shape) for name, tensor in module.state_dict().items()}
    module.load_state_dict({name: torch.from_numpy(x) for name, x in seeded_weights(shapes).items()})
    return shapes


def main() -> None:
    x = torch.from_numpy(np.random.RandomState(0).normal(size=SHAPE).astype(np.float32))
    arrays = {"x": x.permute(0, 2, 3, 1).numpy()}
    pooling = TorchPyramidPooling(WIDTHS[-1], 8).eval()
    arrays["pooling/shapes"] = np.array(json.dumps(set_seeded_weights(pooling)))
    for kind in ("basic", "bottleneck"):
        module = TorchDRN(kind == "bottleneck", REPEATS, WIDTHS)
        del module.fc
        module.eval()
        arrays[f"{kind}/shapes"] = np.array(json.dumps(set_seeded_weights(module)))
        with torch.no_grad():
            outputs = module(x)
            pooled = pooling(outputs[-1])
        for i, output in enumerate([*outputs, pooled]):
            arrays[f"{kind}/{i}"] = output.permute(0, 2, 3, 1).numpy()
    np.savez_compressed(Path(__file__).with_name("drn.npz"), **arrays)


if __name__ == "__main__":
    main()
