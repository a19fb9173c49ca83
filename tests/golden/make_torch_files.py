"""Write tensors.pth and tensors_legacy.pth, one and the same state dict in PyTorch's two layouts.

pip install torch; python -m tests.golden.make_torch_files
"""

from collections import OrderedDict
from pathlib import Path

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


def main() -> None:
    folder = Path(__file__).parent
    torch.save(state_dict(), folder / "tensors.pth")
    torch.save(state_dict(), folder / "tensors_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
    main()
