"""Write tensors.pth and tensors_legacy.pth, one and the same state dict in PyTorch's two layouts, and lightning.ckpt.

tensors_2017.pth is one as PyTorch 0.1 to 0.3 wrote it, which DRN's published files are.

pip install torch; python -m tests.golden.make_torch_files
"""

import argparse
import datetime
from collections import Counter, OrderedDict, defaultdict
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


def save_as_in_2017(tensors: OrderedDict, path: Path) -> None:
    """A stream of pickles whose tensors are rebuilt by `_rebuild_tensor`, of storage, offset, size and stride."""

    def reduce(tensor, protocol):
        arguments = tensor.storage(), tensor.storage_offset(), tuple(tensor.size()), tensor.stride()
        return torch._utils._rebuild_tensor, arguments

    now = torch.Tensor.__reduce_ex__
    torch.Tensor.__reduce_ex__ = reduce
    try:
        torch.save(tensors, path, _use_new_zipfile_serialization=False)
    finally:
        torch.Tensor.__reduce_ex__ = now


def lightning_checkpoint() -> dict:
    """What a training script leaves beside the weights: settings, an optimizer's state, devices, dates and the like."""
    return {
        "epoch": 3,
        "pytorch-lightning_version": "1.4.9",
        "state_dict": OrderedDict({"net.head.weight": torch.arange(6.0).reshape(2, 3)}),
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.ones(100)}}, "param_groups": [{"lr": 0.1}]}],
        "hyper_parameters": argparse.Namespace(backbone="clip_vitl16_384", base_lr=np.float64(0.004)),
        "callbacks": {"best": np.array([1.0, 2.0])},
        "beside": [
            torch.device("cuda:0"),
            torch.Size([1, 2]),
            torch.float16,
            Path("runs"),
            {1, 2},
            defaultdict(list, a=[1]),
            Counter("aab"),
            datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC),
            2j,
        ],
    }


def main() -> None:
    folder = Path(__file__).parent
    torch.save(lightning_checkpoint(), folder / "lightning.ckpt")
    torch.save(lightning_checkpoint(), folder / "lightning_legacy.ckpt", _use_new_zipfile_serialization=False)
    plain = ("float32", "transposed", "shared", "float16", "empty")  # of the types that were there then
    tensors = state_dict()
    save_as_in_2017(OrderedDict((name, tensors[name]) for name in plain), folder / "tensors_2017.pth")
    torch.save(state_dict(), folder / "tensors.pth")
    torch.save(state_dict(), folder / "tensors_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
