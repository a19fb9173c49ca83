"""Read a file of weights, whichever layout it has."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sazs_jax.errors import UserError
from sazs_jax.pretrained.torch_file import read_torch_file


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` or `.npz` file, or of a PyTorch file (any other suffix), by name.

    Raises:
      UserError: the file is not there, is damaged or cut short, or is no file of plain tensors.
    """
    suffix = Path(path).suffix
    if suffix not in (".safetensors", ".npz"):
        return read_torch_file(path)
    try:
        if suffix == ".safetensors":
            return load_file(path)
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (SafetensorError, TypeError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: damaged, cut short or no {suffix[1:]} file ({error}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
