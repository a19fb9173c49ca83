"""Read PyTorch's checkpoint files without PyTorch, and without running what a pickle asks for (`torch_pickle`).

Three layouts are read: the zip archive of PyTorch 1.6 and later, the stream of pickles before it (from PyTorch 0.1 on),
and TorchScript's archive (OpenAI's CLIP).
"""

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sazs_jax.errors import UserError
from sazs_jax.pretrained.torch_pickle import Refused, ScriptModule, Tensor, TensorUnpickler

# Where a checkpoint that holds more than the weights keeps them.
_STATE_DICT_KEYS = ("state_dict", "model")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


def read_torch_file(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict saved by `torch.save`, alone or in a checkpoint's `state_dict`, or of TorchScript.

    float16 and bfloat16 tensors come as they are (`ml_dtypes.bfloat16`). What a TorchScript archive holds under several
    names comes by the first of them.

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
    except Refused as error:
        raise UserError(
            f"{path}: refused, for it holds {error}; only plain tensors are read: where you trust the file, "
            "open it with PyTorch and save its weights alone (torch.save(model.state_dict(), FILE))"
        ) from error
    # A damaged pickle can raise nearly anything.
    except Exception as error:
        raise UserError(f"{path}: damaged, cut short or no PyTorch file ({error}); get it again") from error


class _NoStateDict(Exception):
    """The file is whole and holds something else."""


def _state_dict(content: Any) -> dict[str, Tensor]:
    """The tensors that a file's content has for a model."""
    if isinstance(content, ScriptModule):
        return dict(_script_tensors(content, "", set()))
    if isinstance(content, Mapping):
        inner = (content[key] for key in _STATE_DICT_KEYS if isinstance(content.get(key), Mapping))
        content = next(inner, content)
        if all(isinstance(value, Tensor) for value in content.values()):
            return {str(name): tensor for name, tensor in content.items()}
    raise _NoStateDict


def _script_tensors(module: ScriptModule, prefix: str, visited: set[int]) -> Iterator[tuple[str, Tensor]]:
    # Shared modules, each within the next, would have exponentially many names.
    visited.add(id(module))
    for name, value in vars(module).items():
        if isinstance(value, ScriptModule):
            if id(value) not in visited:
                yield from _script_tensors(value, f"{prefix}{name}.", visited)
        elif isinstance(value, Tensor):
            yield prefix + name, value


def _read_zip(file: io.BufferedIOBase) -> dict[str, Tensor]:
    with zipfile.ZipFile(file) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ValueError("no data.pkl in it")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}byteorder" in archive.namelist() and archive.read(f"{root}byteorder") != b"little":
            raise ValueError("big-endian")
        unpickler = TensorUnpickler(io.BytesIO(archive.read(pickles[0])))
        tensors = _state_dict(unpickler.load())
        wanted = {id(tensor.storage) for tensor in tensors.values()}  # an optimizer's state stays unread
        for key, storage in unpickler.storages.items():
            if id(storage) in wanted:
                storage.fill(archive.read(f"{root}data/{key}"))
    return tensors


def _read_legacy(file: io.BufferedIOBase) -> dict[str, Tensor]:
    file.seek(0)
    if TensorUnpickler(file).load() != _LEGACY_MAGIC or TensorUnpickler(file).load() != _LEGACY_PROTOCOL:
        raise ValueError("not PyTorch's layout")
    if not TensorUnpickler(file).load()["little_endian"]:
        raise ValueError("big-endian")
    unpickler = TensorUnpickler(file)
    tensors = _state_dict(unpickler.load())
    for key in TensorUnpickler(file).load():
        storage = unpickler.storages[key]
        (numel,) = struct.unpack("<q", file.read(8))
        if numel != storage.numel:
            raise ValueError("a tensor's size is given twice and differs")
        storage.fill(file.read(numel * storage.dtype.itemsize))
    return tensors
