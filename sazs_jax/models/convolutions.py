"""Convolutions whose direct form XLA compiles to slow programs: the same sums in a form that is fast."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

_NHWC = ("NHWC", "HWIO", "NHWC")


class Conv(nnx.Conv):
    """A convolution in the form that is fast, see `convolve`."""

    def __init__(self, channels_in: int, channels: int, kernel_size: tuple[int, int], **settings: Any):
        super().__init__(channels_in, channels, kernel_size, conv_general_dilated=convolve, **settings)


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


def convolve(
    x: Float[Array, "B h w C"],
    kernel: Float[Array, "k l _C C2"],
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    feature_group_count: int,
    **settings: Any,
) -> Float[Array, "B h2 w2 C2"]:
    """`jax.lax.conv_general_dilated`; by `depthwise`, `blockwise` or `dilated` where these are its faster form.

    Options other than `dimension_numbers`, of NHWC, are left to it.
    """
    sides, strides, dilations = kernel.shape[:2], tuple(strides), tuple(rhs_dilation)
    reach = [(side - 1) * step + 1 for side, step in zip(sides, dilations, strict=True)]
    pads = jax.lax.padtype_to_pads(x.shape[1:3], reach, strides, padding) if isinstance(padding, str) else padding
    direct = functools.partial(
        jax.lax.conv_general_dilated,
        window_strides=strides,
        padding=padding,
        rhs_dilation=dilations,
        feature_group_count=feature_group_count,
        **settings,
    )
    is_usual = all(value in (None, (1, 1)) for name, value in settings.items() if name != "dimension_numbers")
    fits = all(
        min(pad) >= 0 and size + sum(pad) >= side for size, pad, side in zip(x.shape[1:3], pads, reach, strict=True)
    )
    if not is_usual or not fits:
        return direct(x, kernel)
    if feature_group_count == x.shape[-1] == kernel.shape[-1] and dilations == (1, 1):
        on_cpu = functools.partial(depthwise, strides=strides, pads=pads)
        return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)
    if feature_group_count == 1 and sides in ((1, 1), strides) and dilations == (1, 1) and not np.any(pads):
        on_cpu = functools.partial(blockwise, strides=strides)
        return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=direct)
    keeps_size = strides == (1, 1) and np.array_equal(pads, [(step // 2, step // 2) for step in reach])
    if feature_group_count == 1 and keeps_size and dilations[0] == dilations[1] > 1 and all(side % 2 for side in sides):
        return dilated(dilations[0], x, kernel)
    return direct(x, kernel)


def blockwise(
    x: Float[Array, "B h w C"], kernel: Float[Array, "k l C C2"], strides: Sequence[int]
) -> Float[Array, "B h2 w2 C2"]:
    """An unpadded convolution of 1x1, or with a kernel of the size of its strides: one matrix product.

    XLA's CPU program for the kernel's gradient of the direct form is a convolution with a window as large as the map,
    on one of 80x80 five times slower. By the plan for an H100 (`python -m benchmarks plan`) the direct form is no
    slower there, and takes less memory in a DRN.
    """
    rows, columns = kernel.shape[:2]
    if (rows, columns) == (1, 1):
        x = x[:, :: strides[0], :: strides[1]]
    x = x[:, : x.shape[1] // rows * rows, : x.shape[2] // columns * columns]  # no block takes in what is left over
    batch, height, width, channels = x.shape
    blocks = x.reshape(batch, height // rows, rows, width // columns, columns, channels)
    return jnp.einsum("bhrwsi,rsio->bhwo", blocks, kernel)


def _same_size(dilation: int, x: Float[Array, "B h w C"], kernel: Float[Array, "k l C C2"]) -> Float[Array, "B h w C2"]:
    rows, columns = (dilation * (side // 2) for side in kernel.shape[:2])
    pads = ((rows, rows), (columns, columns))
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), pads, rhs_dilation=(dilation, dilation), dimension_numbers=_NHWC
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def dilated(dilation: int, x: Float[Array, "B h w C"], kernel: Float[Array, "k l C C2"]) -> Float[Array, "B h w C2"]:
    """A dilated convolution that keeps the map's size, of odd sides, with a gradient of its own.

    The kernel's gradient is that of an undilated convolution of the map's phases, the maps of every n-th row and
    column. XLA on a GPU forms it with a window as large as the map.
    """
    return _same_size(dilation, x, kernel)


def _dilated_forward(dilation, x, kernel):
    return _same_size(dilation, x, kernel), (x, kernel)


def _dilated_backward(dilation, kept, gradient):
    x, kernel = kept
    (x_gradient,) = jax.linear_transpose(lambda x: _same_size(dilation, x, kernel), x)(gradient)
    (kernel_gradient,) = jax.linear_transpose(lambda kernel: _same_size(1, phases(x, dilation), kernel), kernel)(
        phases(gradient, dilation)
    )
    return x_gradient, kernel_gradient


dilated.defvjp(_dilated_forward, _dilated_backward)


def phases(x: Float[Array, "B h w C"], step: int) -> Float[Array, "_N _h _w C"]:
    """Every `step`-th row and column, from each of the step * step starts, one after the other in the batch.

    Zeros are added below and to the right where `step` does not divide a side.
    """
    batch, height, width, channels = x.shape
    x = jnp.pad(x, ((0, 0), (0, -height % step), (0, -width % step), (0, 0)))
    x = x.reshape(batch, -(-height // step), step, -(-width // step), step, channels)
    return x.transpose(0, 2, 4, 1, 3, 5).reshape(batch * step**2, *x.shape[1:4:2], channels)


def depthwise(
    x: Float[Array, "B h w C"],
    kernel: Float[Array, "k l 1 C"],
    strides: Sequence[int],
    pads: Sequence[tuple[int, int]],
) -> Float[Array, "B h2 w2 C"]:
    """A convolution with a filter a channel, as a sum over the kernel's taps.

    XLA's CPU program for the gradient of a grouped convolution is some twenty times slower than that sum's.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    rows, columns = kernel.shape[:2]
    height, width = ((x.shape[1 + i] - kernel.shape[i]) // strides[i] + 1 for i in range(2))
    taps = (
        x[:, i : i + (height - 1) * strides[0] + 1 : strides[0]][
            :, :, j : j + (width - 1) * strides[1] + 1 : strides[1]
        ]
        * kernel[i, j, 0]
        for i in range(rows)
        for j in range(columns)
    )
    return functools.reduce(jnp.add, taps)
