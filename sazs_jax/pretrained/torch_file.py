"""Read PyTorch's checkpoint files without PyTorch, and without running what a pickle asks for.

Three layouts are read: the zip archive of PyTorch 1.6 and later, the stream of pickles before it, and TorchScript's
archive (OpenAI's CLIP). The unpickler knows tensors of the plain types and `OrderedDict`. What training scripts put
beside the tensors (Lightning's callbacks, parsed arguments, NumPy scalars) becomes an object that does nothing;
any other name in the file is refused.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from sazs_jax.errors import UserError

_STORAGE_TYPES = {
    "FloatStorage": np.dtype(np.float32),
    "DoubleStorage": np.dtype(np.float64),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
# Packages whose objects a training script may leave in its checkpoint. Nothing of them is imported.
_IDLE_PACKAGES = ("argparse", "lightning", "lightning_fabric", "numpy", "omegaconf", "pytorch_lightning")
# Where a checkpoint that holds more than the weights keeps them.
_STATE_DICT_KEYS = ("state_dict", "model")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict saved by `torch.save`, alone or in a checkpoint's `state_dict`, or of TorchScript.

    float16 and bfloat16 tensors come as they are (`ml_dtypes.bfloat16`).

    Raises:
      UserError: the file is not there, is damaged or cut short, holds no dict of tensors, or asks for code to be run.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            tensors = _read_zip(file) if zipfile.is_zipfile(file) else _read_legacy(file)
        return {name: tensor.to_array() for name, tensor in tensors.items()}
    except _NoStateDict as error:
        raise UserError(f"{path}: expected a dict of tensors (a model's state_dict)") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    except _Refused as error:
        raise UserError(f"{path}: refused, for it holds {error}; only plain tensors are read") from error
    # A damaged pickle can raise nearly anything.
    except Exception as error:
        raise UserError(f"{path}: damaged, cut short or no PyTorch file ({error}); get it again") from error


class _Refused(Exception):
    """The pickle names something that a file of tensors has no need of."""


class _NoStateDict(Exception):
    """The file is whole and holds something else."""


class _Idle:
    """Stands for any object that is no tensor: takes whatever a pickle does to it, and does nothing."""

    def __new__(cls, *_, **__):
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, value: Any) -> None:
        pass

    def extend(self, values: Any) -> None:
        pass


class _ScriptModule:
    """A module of a TorchScript archive: its attributes are parameters, buffers, modules and settings."""


class _Storage:
    """The numbers behind one or more tensors; they come after the pickle that mentions them."""

    def __init__(self, dtype: np.dtype, numel: int):
        self.dtype = dtype
        self.numel = numel
        self.data: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        if len(data) != self.numel * self.dtype.itemsize:
            raise EOFError("a tensor's data is cut short")
        self.data = np.frombuffer(data, self.dtype)


class _Tensor(NamedTuple):
    """A view of a storage, as the pickle describes it; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def to_array(self) -> np.ndarray:
        data, itemsize = self.storage.data, self.storage.dtype.itemsize
        if data is None:
            raise EOFError("a tensor has no data")
        # Bounds and types are checked by NumPy here: a lying file cannot reach beyond its buffer.
        view = np.ndarray(
            self.shape, data.dtype, data, self.offset * itemsize, tuple(stride * itemsize for stride in self.strides)
        )
        return view.copy()


def _rebuild_tensor(storage: _Storage, offset: int, shape: tuple, strides: tuple, *_) -> _Tensor:
    return _Tensor(storage, offset, shape, strides)


def _rebuild_parameter(tensor: _Tensor, *_) -> _Tensor:
    return tensor


_CALLABLES: dict[tuple[str, str], Callable] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}


class _Unpickler(pickle.Unpickler):
    """Unpickle tensors and plain containers; storages are collected by key and filled later."""

    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CALLABLES:
            return _CALLABLES[module, name]
        if module == "torch" and name in _STORAGE_TYPES:
            return name
        if module.split(".")[0] in _IDLE_PACKAGES or (module, name) == ("_codecs", "encode"):
            return _Idle
        if module.split(".")[0] == "__torch__":
            return _ScriptModule
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return _Idle
        raise _Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, numel, *view = pid
        if kind != "storage":
            raise _Refused(f"a persistent object of kind {kind!r}")
        if view and view[0] is not None:
            raise ValueError("it shares storages in a way that PyTorch gave up in 2017")
        if key not in self.storages:
            self.storages[key] = _Storage(_STORAGE_TYPES[storage_type], numel)
        return self.storages[key]


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """The tensors that a file's content has for a model."""
    if isinstance(content, _ScriptModule):
        return dict(_script_tensors(content, ""))
    if isinstance(content, Mapping):
        inner = (content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping))
        content = next(inner, content)
        if all(isinstance(value, _Tensor) for value in content.values()):
            return {str(name): tensor for name, tensor in content.items()}
    raise _NoStateDict


def _script_tensors(module: _ScriptModule, prefix: str) -> Iterator[tuple[str, _Tensor]]:
    for name, value in vars(module).items():
        if isinstance(value, _ScriptModule):
            yield from _script_tensors(value, f"{prefix}{name}.")
        elif isinstance(value, _Tensor):
            yield prefix + name, value


def _read_zip(file: io.BufferedIOBase) -> dict[str, _Tensor]:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("no data.pkl in it")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big-endian")
        unpickler = _Unpickler(io.BytesIO(archive.read(pickles[0])))
        tensors = _state_dict(unpickler.load())
        wanted = {id(tensor.storage) for tensor in tensors.values()}  # an optimizer's state stays unread
        for key, storage in unpickler.storages.items():
            if id(storage) in wanted:
                storage.fill(archive.read(f"{root}data/{key}"))
    return tensors


def _read_legacy(file: io.BufferedIOBase) -> dict[str, _Tensor]:
    file.seek(0)
    if _Unpickler(file).load() != _LEGACY_MAGIC or _Unpickler(file).load() != _LEGACY_PROTOCOL:
        raise ValueError("not PyTorch's layout")
    if not _Unpickler(file).load()["little_endian"]:
        raise ValueError("big-endian")
    unpickler = _Unpickler(file)
    tensors = _state_dict(unpickler.load())
    for key in _Unpickler(file).load():
        storage = unpickler.storages[key]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel:
            raise ValueError("a tensor's size is given twice and differs")
        storage.fill(file.read(numel * storage.dtype.itemsize))
    return tensors
