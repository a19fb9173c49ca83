import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from types import ModuleType

import ml_dtypes
import numpy as np
import pytest

from sazs_jax.errors import UserError
from sazs_jax.pretrained.torch_file import read_torch_file

GOLDEN = Path(__file__).parents[1] / "golden"
LAYOUTS = ["tensors.pth", "tensors_legacy.pth"]  # written by PyTorch; see make_torch_files.py


@pytest.mark.parametrize("name", LAYOUTS)
def test_tensors_come_out_as_pytorch_wrote_them(name):
    tensors = read_torch_file(GOLDEN / name)
    base = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected = {
        "float32": base,
        "transposed": base.T,
        "shared": base[1:, 2],
        "float16": np.array([0.5, -2], np.float16),
        "bfloat16": np.array([1, -3, 1 / 128], ml_dtypes.bfloat16),
        "int64": np.array(7),
        "boolean": np.array([True, False]),
        "empty": np.zeros((0, 3), np.float32),
        "parameter": np.ones(2, np.float32),
    }
    assert list(tensors) == list(expected)
    for key, value in expected.items():
        assert tensors[key].dtype == value.dtype
        np.testing.assert_array_equal(tensors[key], value)
        tensors[key].flat[:1] = 0  # a copy that may be written to


def test_a_file_as_pytorch_wrote_it_in_2017_holds_the_same_tensors():
    now = read_torch_file(GOLDEN / "tensors_legacy.pth")
    tensors = read_torch_file(GOLDEN / "tensors_2017.pth")
    assert list(tensors) == ["float32", "transposed", "shared", "float16", "empty"]
    for key, tensor in tensors.items():
        assert tensor.dtype == now[key].dtype
        np.testing.assert_array_equal(tensor, now[key])


# Beside the weights they hold settings, NumPy scalars, a device, a dtype, a path, a set, a date and the like.
@pytest.mark.parametrize("name", ["lightning.ckpt", "lightning_legacy.ckpt"])
def test_of_a_training_scripts_checkpoint_the_weights_alone_come_out(name):
    (tensor,) = read_torch_file(GOLDEN / name).items()
    assert tensor[0] == "net.head.weight"
    np.testing.assert_array_equal(tensor[1], np.arange(6, dtype=np.float32).reshape(2, 3))


def test_of_torchscript_the_tensors_come_out_by_their_dotted_names():
    tensors = read_torch_file(GOLDEN / "clip_openai.pt")
    assert len(tensors) == 32
    assert tensors["transformer.resblocks.1.attn.in_proj_weight"].shape == (192, 64)
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_a_truncated_file_is_one_clear_line(name, keep, tmp_path):
    content = (GOLDEN / name).read_bytes()
    path = tmp_path / name
    path.write_bytes(content[: int(keep * len(content))])
    with pytest.raises(UserError, match="damaged, cut short or no PyTorch file") as caught:
        read_torch_file(path)
    assert "\n" not in str(caught.value)


class Evil:
    """On loading, an ordinary unpickler would create the file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def as_zip(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", content)
    return buffer.getvalue()


def as_legacy(content: bytes) -> bytes:
    header = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, protocol=2) for part in header) + content + pickle.dumps([], protocol=2)


@pytest.mark.parametrize("wrap", [as_zip, as_legacy, bytes])
def test_a_pickle_that_runs_code_is_refused(wrap, tmp_path):
    trace, path = tmp_path / "trace", tmp_path / "evil.pth"
    path.write_bytes(wrap(pickle.dumps({"weight": Evil(trace)}, protocol=2)))
    with pytest.raises(UserError, match=r"refused, for it holds .*open; only plain tensors .* save its weights alone"):
        read_torch_file(path)
    assert not trace.exists()


class Script:
    """Stands for a module of a TorchScript archive in the pickle."""


Script.__module__, Script.__qualname__ = "__torch__.m", "Script"


@pytest.fixture
def fake_script(monkeypatch):
    """The name, importable while the pickle is written: the pickler checks it."""
    module = ModuleType("__torch__.m")
    vars(module)["Script"] = Script
    monkeypatch.setitem(sys.modules, "__torch__", ModuleType("__torch__"))
    monkeypatch.setitem(sys.modules, "__torch__.m", module)


def test_modules_that_share_modules_are_walked_once_each(tmp_path, fake_script):
    module = Script()
    for _ in range(100):  # 2 ** 100 names
        parent = Script()
        vars(parent).update(left=module, right=module)
        module = parent
    vars(module)["itself"] = module
    path = tmp_path / "shared.pt"
    path.write_bytes(as_zip(pickle.dumps(module, protocol=2)))
    assert read_torch_file(path) == {}


# Each sets an attribute of the class or function that the name stands for, by BUILD with a second state.
@pytest.mark.parametrize(
    "name", [b"__torch__\nModule", b"numpy\nscalar", b"torch._utils\n_rebuild_tensor_v2", b"collections\nOrderedDict"]
)
def test_a_file_leaves_no_trace_for_the_next(name, tmp_path):
    before = len(read_torch_file(GOLDEN / "clip_openai.pt"))
    path = tmp_path / "evil.pt"
    path.write_bytes(as_zip(b"\x80\x02c" + name + b"\nN}X\x0c\x00\x00\x00__setstate__cnumpy\nfloat64\ns\x86b."))
    with pytest.raises(UserError, match="refused|damaged"):
        read_torch_file(path)
    assert len(read_torch_file(GOLDEN / "clip_openai.pt")) == before


class EvilNumPy(Evil):
    """The same by way of a package whose objects are taken as idle."""

    def __reduce__(self):
        return np.save, (str(self.path), 1)


def test_what_stands_beside_the_weights_is_never_called(tmp_path):
    trace, path = tmp_path / "trace.npy", tmp_path / "checkpoint.ckpt"
    path.write_bytes(as_zip(pickle.dumps({"state_dict": {}, "hyper_parameters": EvilNumPy(trace)}, protocol=2)))
    assert read_torch_file(path) == {}
    assert not trace.exists()


class FakePickler(pickle.Pickler):
    """Writes tensors as PyTorch does, but with any numbers."""

    def persistent_id(self, obj):
        return obj.pid if isinstance(obj, Storage) else None

    def reducer_override(self, obj):
        return (REBUILD, obj.arguments) if isinstance(obj, Tensor) else NotImplemented


class Storage:
    def __init__(self, numel):
        self.pid = ("storage", FLOAT_STORAGE, "0", "cpu", numel)


class Tensor:
    def __init__(self, *arguments):
        self.arguments = (*arguments, False, OrderedDict())


def REBUILD():
    """Stands for torch._utils._rebuild_tensor_v2 in the pickle."""


class FLOAT_STORAGE:
    """Stands for torch.FloatStorage in the pickle."""


REBUILD.__module__, REBUILD.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
FLOAT_STORAGE.__module__, FLOAT_STORAGE.__qualname__ = "torch", "FloatStorage"


@pytest.fixture
def fake_torch(monkeypatch):
    """The two names, importable while the pickle is written: the pickler checks them."""
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    vars(torch)["FloatStorage"], vars(utils)["_rebuild_tensor_v2"] = FLOAT_STORAGE, REBUILD
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (5,), (1,)), (3, (2,), (1,)), (-1, (1,), (1,)), (0, (2, 2), (3, 1)), (3, (3,), (-2,)), (0, ("a",), (1,))],
)
def test_a_tensor_that_reaches_beyond_its_data_is_refused(offset, shape, strides, tmp_path, fake_torch):
    buffer = io.BytesIO()
    FakePickler(buffer, protocol=2).dump({"weight": Tensor(Storage(4), offset, shape, strides)})
    path = tmp_path / "lying.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/data/0", np.arange(4, dtype=np.float32).tobytes())
    with pytest.raises(UserError, match="damaged"):
        read_torch_file(path)


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}])
def test_something_other_than_a_state_dict_is_told(content, tmp_path):
    path = tmp_path / "other.pth"
    path.write_bytes(as_zip(pickle.dumps(content, protocol=2)))
    with pytest.raises(UserError, match="expected a dict of tensors"):
        read_torch_file(path)


def test_an_absent_file_is_told(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_torch_file(tmp_path / "none.pth")
