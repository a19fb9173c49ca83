"""Convolutions whose direct form XLA compiles to slow programs: the same sums in a form that is fast.

Each takes the place of `jax.lax.conv_general_dilated` in an `nnx.Conv`, or of an `nnx.ConvTranspose`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

_NHWC = ("NHWC", "HWIO", "NHWC")
Pads = Sequence[tuple[int, int]]


class BlockConvTranspose(nnx.ConvTranspose):
    """A transposed convolution whose stride is its kernel's side: each cell becomes a block of its own.

    It is one matrix product and a transposition. XLA on a GPU forms it as a convolution of the input with zeros put
    between its cells, sixteen times the operations for a side of 4, and the kernel's gradient with a window as large as
    the map.
    """

    def __init__(self, channels_in: int, channels: int, side: int, **settings: Any):
        super().__init__(channels_in, channels, (side, side), strides=side, padding="VALID", **settings)

    def __call__(self, inputs: Float[Array, "B h w C"]) -> Float[Array, "B _H _W C2"]:
        """The map, each side larger by the kernel's."""
        kernel = self.kernel[...][::-1, ::-1].astype(self.dtype)  # a convolution meets its kernel mirrored
        blocks = jnp.einsum("bhwi,rsio->bhrwso", inputs.astype(self.dtype), kernel)
        batch, height, rows, width, columns, channels = blocks.shape
        x = blocks.reshape(batch, height * rows, width * columns, channels)
        return x if self.bias is None else x + self.bias[...].astype(self.dtype)


def dilated(
    x: Array, kernel: Array, strides: Sequence[int], padding: Pads, *, rhs_dilation: Sequence[int], **settings: Any
) -> Array:
    """A convolution; if it is dilated and keeps the map's size, with a gradient of its own.

    The kernel's gradient is that of an undilated convolution of the map's phases, the maps of every n-th row and
    column. XLA on a GPU forms it with a window as large as the map.
    """
    dilation = rhs_dilation[0]
    keeps_size = [tuple(pad) for pad in padding] == [(dilation * (side // 2),) * 2 for side in kernel.shape[:2]]
    plain = settings["feature_group_count"] == 1 and all(side % 2 for side in kernel.shape[:2])
    if tuple(rhs_dilation) == (dilation, dilation) != (1, 1) == tuple(strides) and keeps_size and plain:
        return _dilated(dilation, x, kernel)
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, rhs_dilation=rhs_dilation, **settings)


def _same_size(dilation: int, x: Float[Array, "B h w C"], kernel: Float[Array, "k l C C2"]) -> Float[Array, "B h w C2"]:
    rows, columns = (dilation * (side // 2) for side in kernel.shape[:2])
    pads = ((rows, rows), (columns, columns))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), pads, rhs_dilation=(dilation, dilation), dimension_numbers=_NHWC
    )


_dilated = jax.custom_vjp(_same_size, nondiff_argnums=(0,))


def _dilated_forward(dilation, x, kernel):
    return _same_size(dilation, x, kernel), (x, kernel)


def _dilated_backward(dilation, kept, gradient):
    x, kernel = kept
    (x_gradient,) = jax.linear_transpose(lambda x: _same_size(dilation, x, kernel), x)(gradient)
    (kernel_gradient,) = jax.linear_transpose(lambda kernel: _same_size(1, phases(x, dilation), kernel), kernel)(
        phases(gradient, dilation)
    )
    return x_gradient, kernel_gradient


_dilated.defvjp(_dilated_forward, _dilated_backward)


def phases(x: Float[Array, "B h w C"], step: int) -> Float[Array, "_N _h _w C"]:
    """Every `step`-th row and column, from each of the step * step starts, one after the other in the batch.

    Zeros are added below and to the right where `step` does not divide a side.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % step), (0, -width % step), (0, 0)))
    x = x.reshape(batch, -(-height // step), step, -(-width // step), step, channels)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(batch * step**2, *x.shape[1:4:2], channels)


def depthwise(x: Array, kernel: Array, strides: Sequence[int], padding: str, **settings) -> Array:
    """A convolution with a filter a channel; on a CPU as a sum over the kernel's taps.

    XLA's CPU program for the gradient of a grouped convolution is some twenty times slower than that sum's.
    """

    def by_taps(x: Array, kernel: Array) -> Array:
        height, width = x.shape[1:3]
        rows, columns = kernel.shape[:2]
        pads = jax.lax.padtype_to_pads((height, width), (rows, columns), strides, padding)
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        out_height, out_width = -(-height // strides[0]), -(-width // strides[1])  # 'SAME'
        taps = (
            x[:, i : i + (out_height - 1) * strides[0] + 1 : strides[0]][
                :, :, j : j + (out_width - 1) * strides[1] + 1 : strides[1]
            ]
            * kernel[i, j, 0]
            for i in range(rows)
            for j in range(columns)
        )
        return functools.reduce(jnp.add, taps)

    def by_convolution(x: Array, kernel: Array) -> Array:
        return jax.lax.conv_general_dilated(x, kernel, strides, padding, **settings)

    return jax.lax.platform_dependent(x, kernel, cpu=by_taps, default=by_convolution)
