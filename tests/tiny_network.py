"""A stand-in for SAZS with the same contract, small enough to repeat in NumPy."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from sazs_jax.models.sazs import SAZS, PixelOutput

STRIDE = 4


class TinyNetwork(SAZS):
    """Mean colour of 4x4 tiles, through one linear layer."""

    def __init__(self, dim: int = 6, seed: int = 0):
        self.linear = nnx.Linear(3, dim, rngs=nnx.Rngs(seed))

    @property
    def size_multiple(self) -> int:
        return 16

    def __call__(self, images, *, train: bool = False, dropout_keys=None):
        b, h, w, _ = images.shape
        x = images.astype(jnp.float32) / 127.5 - 1
        x = x.reshape(b, h // STRIDE, STRIDE, w // STRIDE, STRIDE, 3).mean(axis=(2, 4))
        return PixelOutput(jnp.tanh(self.linear(x)), None)

    def numpy_cosine(self, pixels: np.ndarray, anchors: np.ndarray) -> np.ndarray:
        """Cosine (h, w, K) of one image (H, W, 3), in double precision."""
        h, w, _ = pixels.shape
        x = pixels.astype(np.float64) / 127.5 - 1
        x = x.reshape(h // STRIDE, STRIDE, w // STRIDE, STRIDE, 3).mean(axis=(1, 3))
        params = nnx.to_pure_dict(nnx.state(self.linear))
        x = np.tanh(x @ np.asarray(params["kernel"], np.float64) + np.asarray(params["bias"], np.float64))
        unit = anchors / np.linalg.norm(anchors, axis=1, keepdims=True)
        return (x / np.linalg.norm(x, axis=-1, keepdims=True)) @ unit.T


def numpy_bilinear(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of (h, w, K), half-pixel centres, pixel by pixel."""
    h, w, _ = x.shape
    result = np.empty((height, width, x.shape[2]))
    for i in range(height):
        y = min(max((i + 0.5) * h / height - 0.5, 0), h - 1)
        y0 = int(y)
        y1 = min(y0 + 1, h - 1)
        for j in range(width):
            z = min(max((j + 0.5) * w / width - 0.5, 0), w - 1)
            z0 = int(z)
            z1 = min(z0 + 1, w - 1)
            top = x[y0, z0] * (1 - (z - z0)) + x[y0, z1] * (z - z0)
            bottom = x[y1, z0] * (1 - (z - z0)) + x[y1, z1] * (z - z0)
            result[i, j] = top * (1 - (y - y0)) + bottom * (y - y0)
    return result
