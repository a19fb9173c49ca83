"""Dilated Residual Networks of architecture D (Yu et al., 2017), and a pyramid-pooling decoder (Zhao et al., 2017)."""

import dataclasses
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sazs_jax.models.batch_norm import batch_norm
from sazs_jax.models.convolutions import Conv
from sazs_jax.models.dpt import resize_aligned

# Of levels 0 to 8. The residual levels are 3 to 6.
_STRIDES = (1, 1, 2, 2, 2, 1, 1, 1, 1)
_DILATIONS = (1, 1, 1, 1, 1, 2, 4, 2, 1)
_RESIDUAL_LEVELS = (3, 4, 5, 6)


@dataclasses.dataclass(frozen=True)
class DRNConfig:
    """Shape of a DRN-D. `repeats` and `widths` are of levels 0 to 8; a bottleneck's output is four times as wide."""

    bottleneck: bool
    repeats: tuple[int, ...]
    widths: tuple[int, ...] = (16, 16, 32, 64, 128, 256, 512, 512, 512)

    @property
    def channels(self) -> tuple[int, int, int]:
        """Of the three levels handed out."""
        expansion = 4 if self.bottleneck else 1
        return expansion * self.widths[3], expansion * self.widths[4], self.widths[8]


DRN_CONFIGS = {
    "drn_d_22": DRNConfig(bottleneck=False, repeats=(1, 1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_d_105": DRNConfig(bottleneck=True, repeats=(1, 1, 1, 3, 4, 23, 3, 1, 1)),
}


class ConvUnit(nnx.Module):
    """Convolution, BatchNorm, and ReLU unless `activate` is off."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        activate: bool = True,
        axis_name: str | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.activate = activate
        self.conv = Conv(
            channels_in,
            channels,
            (kernel, kernel),
            strides=stride,
            padding=dilation * (kernel // 2),
            kernel_dilation=dilation,
            use_bias=False,
            dtype=dtype,
            rngs=rngs,
        )
        self.bn = batch_norm(channels, axis_name=axis_name, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], *, train: bool) -> Float[Array, "B h2 w2 C2"]:
        """`train`: BatchNorm takes the batch's statistics and updates its running ones."""
        x = self.bn(self.conv(x), use_running_average=not train)
        return nnx.relu(x) if self.activate else x


class ResidualBlock(nnx.Module):
    """ReLU(shortcut + units): two 3x3 units, or for a bottleneck 1x1, 3x3 and 1x1; the last without ReLU.

    The shortcut is a 1x1 unit where shapes differ, else the input itself.
    """

    def __init__(
        self,
        channels_in: int,
        width: int,
        *,
        bottleneck: bool,
        stride: int,
        dilation: int,
        axis_name: str | None,
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        channels = 4 * width if bottleneck else width

        def unit(channels_in, channels, kernel, **settings):
            return ConvUnit(channels_in, channels, kernel, axis_name=axis_name, dtype=dtype, rngs=rngs, **settings)

        if bottleneck:
            units = [
                unit(channels_in, width, 1),
                unit(width, width, 3, stride=stride, dilation=dilation),
                unit(width, channels, 1, activate=False),
            ]
        else:
            units = [
                unit(channels_in, width, 3, stride=stride, dilation=dilation),
                unit(width, width, 3, dilation=dilation, activate=False),
            ]
        self.units = nnx.List(units)
        has_shape = stride == 1 and channels_in == channels
        self.shortcut = None if has_shape else unit(channels_in, channels, 1, stride=stride, activate=False)

    def __call__(self, x: Float[Array, "B h w C"], *, train: bool) -> Float[Array, "B h2 w2 C2"]:
        """`train` as in `ConvUnit`."""
        y = x
        for unit in self.units:
            y = unit(y, train=train)
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x, train=train)))


class DRN(nnx.Module):
    """Image to maps at strides 4, 8 and 8: the last two are the middle of the network and its end.

    Strides end at 8; from there on, dilation widens the view.

    Args:
      axis_name: the mapped axis over which BatchNorm statistics are averaged while training; None: no such axis.
      dtype: type of the computation; parameters and BatchNorm statistics are float32.
      remat: recompute each block in the backward pass.
    """

    size_multiple = 8
    # Inputs are normalised as (pixel - mean) / std, pixels in 0..255: ImageNet's.
    pixel_mean = 255 * np.array([0.485, 0.456, 0.406], np.float32)
    pixel_std = 255 * np.array([0.229, 0.224, 0.225], np.float32)

    def __init__(
        self, config: DRNConfig, *, axis_name: str | None, dtype: DTypeLike, remat: bool = False, rngs: nnx.Rngs
    ):
        self.channels = config.channels
        self.dtype = dtype
        self.remat = remat
        channels, levels = 3, []
        for level, (repeats, width) in enumerate(zip(config.repeats, config.widths, strict=True)):
            blocks = []
            for repeat in range(repeats):
                settings = {
                    "stride": _STRIDES[level] if repeat == 0 else 1,
                    "dilation": _DILATIONS[level],
                    "axis_name": axis_name,
                    "dtype": dtype,
                    "rngs": rngs,
                }
                if level in _RESIDUAL_LEVELS:
                    blocks.append(ResidualBlock(channels, width, bottleneck=config.bottleneck, **settings))
                    channels = 4 * width if config.bottleneck else width
                else:
                    blocks.append(ConvUnit(channels, width, 7 if level == 0 else 3, **settings))
                    channels = width
            levels.append(nnx.List(blocks))
        self.levels = nnx.List(levels)

    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool) -> list[Float[Array, "B _h _w _C"]]:
        """What levels 3, 4 and 8 give; `channels` tells their widths.

        Args:
          x: normalised image; H and W multiples of `size_multiple`.
          train: BatchNorm takes the batch's statistics and updates its running ones.
        """
        outputs = self.every_level(x, train=train)
        return [outputs[3], outputs[4], outputs[8]]

    def every_level(self, x: Float[Array, "B H W 3"], *, train: bool) -> list[Float[Array, "B _h _w _C"]]:
        """The outputs of levels 0 to 8; arguments as in `__call__`."""

        def run_block(block: ConvUnit | ResidualBlock, x: Array) -> Array:
            return block(x, train=train)

        if self.remat:
            run_block = nnx.remat(run_block)
        x = x.astype(self.dtype)
        outputs = []
        for level in self.levels:
            for block in level:
                x = run_block(block, x)
            outputs.append(x)
        return outputs


class PyramidPooling(nnx.Module):
    """The map beside its means over grids of 1, 2, 3 and 6 cells a side, each made `width` wide; then a 3x3 unit.

    Its reach is the whole image, which the dilated network's is not.
    """

    grids = (1, 2, 3, 6)

    def __init__(self, channels: int, width: int, *, axis_name: str | None, dtype: DTypeLike, rngs: nnx.Rngs):
        settings = {"axis_name": axis_name, "dtype": dtype, "rngs": rngs}
        self.branches = nnx.List(ConvUnit(channels, width, 1, **settings) for _ in self.grids)
        self.fuse = ConvUnit(channels + len(self.grids) * width, width, 3, **settings)

    def __call__(self, pyramid: Sequence[Float[Array, "B _h _w _C"]], *, train: bool) -> Float[Array, "B h w width"]:
        """A map like the last of `pyramid`; `train` as in `ConvUnit`."""
        x = pyramid[-1]
        size = (x.shape[1], x.shape[2])
        parts = [x]
        for cells, branch in zip(self.grids, self.branches, strict=True):
            parts.append(resize_aligned(branch(mean_over_cells(x, cells), train=train), size))
        return self.fuse(jnp.concatenate(parts, axis=-1), train=train)


def mean_over_cells(x: Float[Array, "B h w C"], cells: int) -> Float[Array, "B n n C"]:
    """Means over a grid of `cells` a side; a row or column that a border cuts belongs to both sides of it."""
    for axis in (1, 2):
        size = x.shape[axis]
        edges = np.arange(cells + 1) * size / cells
        start, stop = np.floor(edges[:-1]), np.ceil(edges[1:])
        positions = np.arange(size)
        inside = (positions >= start[:, None]) & (positions < stop[:, None])  # (n, size)
        weights = jnp.asarray(inside / inside.sum(axis=1, keepdims=True), x.dtype)
        x = jnp.moveaxis(jnp.tensordot(x, weights, axes=(axis, 1)), -1, axis)
    return x
