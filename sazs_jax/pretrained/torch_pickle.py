"""The pickles inside PyTorch's files, read without running or importing what they name.

The unpickler knows tensors of the plain types and `OrderedDict`. What training scripts put beside the tensors (parsed
arguments, Lightning's callbacks, NumPy scalars, paths, devices, dates) becomes an object that does nothing; any other
name is refused. A pickle cannot alter what it is given: one file leaves no trace for the next.
"""

import pickle
from collections import OrderedDict
from typing import Any

import ml_dtypes
import numpy as np

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
_IDLE_PACKAGES = (
    "argparse",
    "datetime",
    "lightning",
    "lightning_fabric",
    "numpy",
    "omegaconf",
    "pathlib",
    "pytorch_lightning",
)
_BUILTINS = (
    "bool",
    "bytearray",
    "complex",
    "dict",
    "float",
    "frozenset",
    "int",
    "list",
    "range",
    "set",
    "str",
    "tuple",
)
_DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64")
_IDLE_NAMES = {
    "_codecs": ("encode",),
    "builtins": _BUILTINS,
    "__builtin__": _BUILTINS,  # as Python 2 has it, and pickles of protocol 2
    "collections": ("Counter", "defaultdict", "deque"),
    "torch": (*_DTYPES, "Size", "device"),
}


class Refused(Exception):
    """The pickle names something that a file of tensors has no need of."""


class _Fixed(type):
    """A class that a pickle cannot alter: its BUILD sets attributes of whatever it is given."""

    def __setattr__(cls, name: str, value: Any) -> None:
        raise Refused(f"a change of {cls.__name__}.{name}")


class _Idle(metaclass=_Fixed):
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

    def add(self, value: Any) -> None:
        pass


class ScriptModule(metaclass=_Fixed):
    """A module of a TorchScript archive: its attributes are parameters, buffers, modules and settings."""


class Storage:
    """The numbers behind one or more tensors; they come after the pickle that mentions them."""

    def __init__(self, dtype: np.dtype, numel: int):
        self.dtype = dtype
        self.numel = numel
        self.data: np.ndarray | None = None

    def fill(self, data: bytes) -> None:
        """Take the numbers.

        Raises:
          EOFError: there are more or fewer than the pickle says.
        """
        if len(data) != self.numel * self.dtype.itemsize:
            raise EOFError("a tensor's data is cut short")
        self.data = np.frombuffer(data, self.dtype)


class Tensor(metaclass=_Fixed):
    """A view of a storage, as the pickle describes it; offset and strides count elements."""

    __slots__ = ("offset", "shape", "storage", "strides")

    def __init__(self, storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any):
        self.storage = storage
        self.offset = offset
        self.shape = shape
        self.strides = strides

    def to_array(self) -> np.ndarray:
        """A copy of the view. NumPy checks bounds and types here: a lying file cannot reach beyond its buffer."""
        data, itemsize = self.storage.data, self.storage.dtype.itemsize
        if data is None:
            raise EOFError("a tensor has no data")
        strides = tuple(stride * itemsize for stride in self.strides)
        return np.ndarray(self.shape, data.dtype, data, self.offset * itemsize, strides).copy()


class _Parameter(metaclass=_Fixed):
    """Called as PyTorch's functions of that kind are: gives the tensor itself."""

    def __new__(cls, tensor: Tensor, *_: Any) -> Tensor:
        return tensor


_KNOWN: dict[tuple[str, str], type] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): Tensor,  # PyTorch before 0.4, as DRN's published files
    ("torch._utils", "_rebuild_tensor_v2"): Tensor,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
}


class TensorUnpickler(pickle.Unpickler):
    """Unpickle tensors and plain containers; storages are collected by key and filled later.

    Raises:
      Refused: on a name that is neither known nor taken as idle.
    """

    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a name of the pickle; never the thing itself, `OrderedDict` apart."""
        package = module.split(".")[0]
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _STORAGE_TYPES:
            return name
        if package in _IDLE_PACKAGES or name in _IDLE_NAMES.get(module, ()):
            return _Idle
        if package == "__torch__":
            return ScriptModule
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return _Idle
        raise Refused(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Storage:
        """The storage of a persistent id, made at its first mention."""
        kind, storage_type, key, _location, numel, *view = pid
        if kind != "storage":
            raise Refused(f"a persistent object of kind {kind!r}")
        if view and view[0] is not None:
            raise ValueError("it shares storages in a way that PyTorch gave up in 2017")
        if key not in self.storages:
            self.storages[key] = Storage(_STORAGE_TYPES[storage_type], numel)
        return self.storages[key]
