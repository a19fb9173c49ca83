"""Eigenvectors kept on disk from one evaluation to the next, one file an image."""

import hashlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load, save

from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError
from sazs_jax.spectral.eigen import Eigenvectors

_ALGORITHM = 2  # raised when the same images and settings come to have other eigenvectors, or files another layout
_DIGEST = hashlib.sha256().digest_size


class EigenvectorCache:
    """A folder of eigenvectors, found by what they are computed from.

    Processes may share it: a file is there whole or not at all. One that is damaged is computed anew and replaced.
    Where nothing can be written, what is there is still read; the rest is computed each time, and told of once.

    Args:
      folder: made when the first entry is written.
      settings: what the eigenvectors depend on beside an image's arrays: numbers and names, and weights as a pytree.
    """

    def __init__(self, folder: str | os.PathLike, *settings: Any):
        self._folder = Path(folder).expanduser()
        self._writable = True
        leaves, _ = jax.tree.flatten_with_path(settings)
        self._settings = _digest([_ALGORITHM, *(part for path, leaf in leaves for part in (str(path), leaf))])

    def look_up(self, inputs: Sequence[np.ndarray | jax.Array], compute: Callable[[], Eigenvectors]) -> Eigenvectors:
        """The eigenvectors of a batch: those stored, or what `compute` returns, which is then stored.

        Args:
          inputs: the arrays, a row an image, that `compute` works from.
          compute: called when an image of the batch is not stored.
        """
        rows = [np.asarray(x) for x in inputs]
        paths = [self._path([x[i] for x in rows]) for i in range(len(rows[0]))]
        known = {path: _read(path) for path in paths}
        if all(entry is not None for entry in known.values()):
            parts = zip(*(known[path] for path in paths), strict=True)
            return Eigenvectors(*(jnp.asarray(np.stack(part)) for part in parts))
        found = jax.device_get(compute())
        for row, path in enumerate(paths):
            if known[path] is None:
                self._write(path, {name: part[row] for name, part in found._asdict().items()})
        return found

    def _path(self, row: Sequence[np.ndarray]) -> Path:
        name = _digest([self._settings, *row]).hex()
        return self._folder / name[:2] / f"{name[2:]}.eigen"

    def _write(self, path: Path, arrays: dict[str, np.ndarray]) -> None:
        if not self._writable:
            return
        content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
        try:
            write_atomically(path, hashlib.sha256(content).digest() + content)
        except UserError as error:
            self._writable = False
            print(f"warning: spectral.cache: {error}; going on without keeping eigenvectors", file=sys.stderr)


def _read(path: Path) -> tuple[np.ndarray, ...] | None:
    """What a file holds; None if it is not there, or is not what was written."""
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if hashlib.sha256(content[_DIGEST:]).digest() != content[:_DIGEST]:
        return None
    arrays = load(content[_DIGEST:])  # NumPy's own format is no choice: in Python 3.11 threads cannot read it at once
    return tuple(arrays[name] for name in Eigenvectors._fields)


def _digest(parts: Sequence[Any]) -> bytes:
    """Of numbers, names, bytes and arrays in their order: no two sequences run together to the same bytes."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray | jax.Array):
            array = np.asarray(part)
            head, body = repr((array.shape, array.dtype.str)), np.ascontiguousarray(array).tobytes()
        else:
            head, body = repr(part), b""
        for piece in (head.encode(), body):
            digest.update(len(piece).to_bytes(8, "little"))
            digest.update(piece)
    return digest.digest()
