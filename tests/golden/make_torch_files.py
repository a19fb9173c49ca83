"""Write tensors.pth and tensors_legacy.pth, one and the same state dict in PyTorch's two layouts, and lightning.ckpt.

pip install torch; python -m tests.golden.make_torch_files
"""

import argparse
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch


def state_dict() -> OrderedDict:
    """Tensors of several types; a transposed view, a slice that shares its storage, a scalar and an empty one."""
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tensors = OrderedDict(
        float32=base,
        transposed=base.T,
        shared=base[1:, 2],
        float16=torch.tensor([0.5, -2.0], dtype=torch.float16),
        bfloat16=torch.tensor([1.0, -3.0, 1 / 128], dtype=torch.bfloat16),
        int64=torch.tensor(7),
        boolean=torch.tensor([True, False]),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(torch.ones(2)),
    )
    vars(tensors)["_metadata"] = OrderedDict({"": {"version": 1}})  # a module's state_dict carries this
    return tensors


def lightning_checkpoint() -> dict:
    """What a training script leaves beside the weights: settings, an optimizer's state, NumPy scalars, enumerations."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": OrderedDict({"net.head.weight": torch.arange(6.0).reshape(2, 3)}),
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(100)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": argparse.Namespace(backbone="clip_vitl16_384", base_lr=np.float64(0.004)),
        "callbacks": {"best": np.array([1.0, 2.0])},
    }


def main() -> None:
    folder = Path(__file__).parent
    torch.save(lightning_checkpoint(), folder / "lightning.ckpt")
    torch.save(lightning_checkpoint(), folder / "lightning_legacy.ckpt", _use_new_zipfile_serialization=False)
    torch.save(state_dict(), folder / "tensors.pth")
    torch.save(state_dict(), folder / "tensors_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
