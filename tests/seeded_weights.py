"""Weights that any machine makes alike from names and shapes, so that golden files need not hold them."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np


def seeded_weights(shapes: Mapping[str, Sequence[int]]) -> dict[str, np.ndarray]:
    """A float32 tensor for each of PyTorch's names: kernels of unit gain, norms and statistics off their defaults."""
    return {name: _tensor(name, tuple(shape)) for name, shape in shapes.items()}


def _tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    # RandomState's stream is frozen by NumPy's policy; the newer generators' is not.
    uniform = np.random.RandomState(zlib.crc32(name.encode())).uniform(-1, 1, shape)
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1):
        return (1 + 0.5 * uniform).astype(np.float32)
    if len(shape) < 2:
        return (0.2 * uniform).astype(np.float32)
    if name.endswith(("pos_embed", "cls_token")):
        return uniform.astype(np.float32)
    return (uniform * (3 / np.prod(shape[1:])) ** 0.5).astype(np.float32)
