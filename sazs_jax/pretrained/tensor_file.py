"""Read a file of weights, whichever layout it has."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from sazs_jax.errors import UserError
from sazs_jax.pretrained.torch_file import read_torch_file


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a `.safetensors` file, or of a PyTorch file (any other suffix), by name.

    Raises:
      UserError: the file is not there, is damaged or cut short, or is no file of plain tensors.
    """
    if Path(path).suffix != ".safetensors":
        return read_torch_file(path)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: damaged, cut short or no safetensors file ({error}); get it again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
