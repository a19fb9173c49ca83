"""Find and read a file of weights, whichever layout it has."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sazs_jax.errors import UserError
from sazs_jax.pretrained.hub import local_directory
from sazs_jax.pretrained.torch_file import read_torch_file

WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")  # in a directory or on the hub
_TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")


def find_weights(source: str) -> Path:
    """The file of weights that `source` is, or that a directory or the hub's repository of that name holds.

    Raises:
      UserError: it cannot be had.
    """
    if names_file(source):
        return Path(os.path.expanduser(source))
    return first_there(local_directory(source, (WEIGHT_FILES,)), WEIGHT_FILES)


def names_file(source: str) -> bool:
    """Whether `source` is a file or, where nothing is there, ends like one: neither a directory nor a hub id."""
    path = os.path.expanduser(source)
    is_called_file = path.endswith((".safetensors", ".npz", *_TORCH_SUFFIXES))
    return os.path.isfile(path) or (is_called_file and not os.path.isdir(path))


def first_there(directory: Path, names: tuple[str, ...]) -> Path:
    """The first of the files `names` that the directory holds; it holds one."""
    return next(directory / name for name in names if (directory / name).is_file())


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors, `.npz` or PyTorch file, by name. Which it is, its content tells, not its suffix.

    Raises:
      UserError: the file is not there, is damaged or cut short, or is no file of plain tensors.
    """
    path = Path(path)
    kind = path.suffix[1:]
    try:
        kind = _kind(path)
        if kind == "safetensors":
            return load_file(path)
        if kind == "npz":
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in arrays.files}
    except (SafetensorError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged, cut short or no {kind} file ({error}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    if kind == "PyTorch":
        return read_torch_file(path)
    raise UserError(f"{path}: no file of weights; expected safetensors, .npz or what PyTorch saves")


def _kind(path: Path) -> str:
    """safetensors, npz or PyTorch, by what the file holds; where that tells nothing, by its suffix; "": none."""
    with path.open("rb") as file:
        head = file.read(9)
        if head[5:] == b"\0\0\0{":  # eight bytes of a length, then JSON
            return "safetensors"
        if head.startswith(b"PK") and zipfile.is_zipfile(file):
            with zipfile.ZipFile(file) as archive:
                names = archive.namelist()
            if any(name.endswith("/data.pkl") for name in names):
                return "PyTorch"
            if names and all(name.endswith(".npy") for name in names):
                return "npz"
    if head.startswith(b"\x80") or path.suffix in _TORCH_SUFFIXES:  # the first byte of a pickle
        return "PyTorch"
    return path.suffix[1:] if path.suffix in (".safetensors", ".npz") else ""
