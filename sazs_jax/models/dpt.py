"""Dense Prediction Transformer decoder (Ranftl et al., 2021), with the settings of LSeg.

`Reassemble` turns a ViT's taps into a four-level pyramid; `DPTDecoder` fuses any four-level pyramid,
finest level first, into one map.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sazs_jax.models.batch_norm import batch_norm
from sazs_jax.models.convolutions import BlockConvTranspose, Conv
from sazs_jax.models.vit import ViTTap


class Reassemble(nnx.Module):
    """ViT taps to a pyramid at patch/4, patch/2, patch and 2 * patch pixels a cell.

    The class token is read out by projection: it is joined to every patch token, then Linear and GELU.
    """

    def __init__(self, dim: int, channels: Sequence[int], *, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.channels = tuple(channels)
        c1, c2, _, c4 = self.channels
        self.readout = nnx.List(nnx.Linear(2 * dim, dim, dtype=dtype, rngs=rngs) for _ in self.channels)
        self.project = nnx.List(Conv(dim, c, (1, 1), dtype=dtype, rngs=rngs) for c in self.channels)
        self.up4 = BlockConvTranspose(c1, c1, 4, dtype=dtype, rngs=rngs)
        self.up2 = BlockConvTranspose(c2, c2, 2, dtype=dtype, rngs=rngs)
        self.down2 = Conv(c4, c4, (3, 3), strides=2, padding=1, dtype=dtype, rngs=rngs)

    def __call__(self, taps: Sequence[ViTTap]) -> list[Float[Array, "B _h _w _C"]]:
        """The pyramid, finest level first."""
        levels = []
        for tap, readout, project in zip(taps, self.readout, self.project, strict=True):
            cls = jnp.broadcast_to(tap.cls[:, None, None], tap.patches.shape)
            x = nnx.gelu(readout(jnp.concatenate([tap.patches, cls], axis=-1)), approximate=False)  # (B, h, w, D)
            levels.append(project(x))
        return [self.up4(levels[0]), self.up2(levels[1]), levels[2], self.down2(levels[3])]


class ResidualConvUnit(nnx.Module):
    """x + BN(conv(ReLU(BN(conv(ReLU(x))))))."""

    def __init__(self, width: int, *, axis_name: str | None, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.conv1 = Conv(width, width, (3, 3), padding=1, use_bias=False, dtype=dtype, rngs=rngs)
        self.bn1 = batch_norm(width, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.conv2 = Conv(width, width, (3, 3), padding=1, use_bias=False, dtype=dtype, rngs=rngs)
        self.bn2 = batch_norm(width, axis_name=axis_name, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B h w C"], *, train: bool) -> Float[Array, "B h w C"]:
        """`train`: BatchNorm takes the batch's statistics and updates its running ones."""
        y = self.bn1(self.conv1(nnx.relu(x)), use_running_average=not train)
        y = self.bn2(self.conv2(nnx.relu(y)), use_running_average=not train)
        return x + y


class FusionBlock(nnx.Module):
    """Add the skip's residual unit to the coarser path, refine, resize, 1x1 convolution.

    The coarsest block has no coarser path, hence no unit for the skip.
    """

    def __init__(self, width: int, *, has_skip: bool, axis_name: str | None, dtype: jnp.dtype, rngs: nnx.Rngs):
        self.skip_unit = ResidualConvUnit(width, axis_name=axis_name, dtype=dtype, rngs=rngs) if has_skip else None
        self.unit = ResidualConvUnit(width, axis_name=axis_name, dtype=dtype, rngs=rngs)
        self.out_conv = Conv(width, width, (1, 1), dtype=dtype, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B h w C"],
        skip: Float[Array, "B h w C"] | None,
        size: tuple[int, int],
        *,
        train: bool,
    ) -> Float[Array, "B h2 w2 C"]:
        """The path at `size` = (h2, w2)."""
        if self.skip_unit is not None and skip is not None:
            x = x + self.skip_unit(skip, train=train)
        x = self.unit(x, train=train)
        # Cheaper before the resize, and the same: the weights that make a pixel add up to 1.
        return resize_aligned(self.out_conv(x), size)


class DPTDecoder(nnx.Module):
    """Four-level pyramid to one map of `width` channels.

    The map is at the finest level's resolution, or twice that with `final_upsample` (LSeg).
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        *,
        final_upsample: bool,
        axis_name: str | None,
        dtype: jnp.dtype,
        rngs: nnx.Rngs,
    ):
        self.final_upsample = final_upsample
        self.lateral = nnx.List(
            Conv(c, width, (3, 3), padding=1, use_bias=False, dtype=dtype, rngs=rngs) for c in channels
        )
        self.fusion = nnx.List(
            FusionBlock(width, has_skip=level < len(channels) - 1, axis_name=axis_name, dtype=dtype, rngs=rngs)
            for level in range(len(channels))
        )

    def __call__(self, pyramid: Sequence[Float[Array, "B _h _w _C"]], *, train: bool) -> Float[Array, "B h w width"]:
        """Fuse the levels, coarsest first."""
        levels = [lateral(x) for lateral, x in zip(self.lateral, pyramid, strict=True)]
        height, width = levels[0].shape[1:3]
        finest = (2 * height, 2 * width) if self.final_upsample else (height, width)
        sizes = [finest, *(x.shape[1:3] for x in levels[:-1])]

        x = self.fusion[-1](levels[-1], None, sizes[-1], train=train)
        for level in reversed(range(len(levels) - 1)):
            x = self.fusion[level](x, levels[level], sizes[level], train=train)
        return x


def resize_aligned(x: Float[Array, "B h w C"], size: tuple[int, int]) -> Float[Array, "B h2 w2 C"]:
    """Bilinear resize with aligned corners: the centres of the corner cells stay where they are."""
    (height, width), batch = x.shape[1:3], len(x)
    if width != size[1]:
        x = jnp.einsum("bhwc,vw->bhvc", x, jnp.asarray(_aligned_weights(width, size[1]), x.dtype))
    if height != size[0]:  # a product for each image leaves the rows where they belong
        weights = jnp.broadcast_to(jnp.asarray(_aligned_weights(height, size[0]), x.dtype), (batch, size[0], height))
        x = jnp.einsum("bhwc,buh->buwc", x, weights)
    return x


def _aligned_weights(old: int, new: int) -> np.ndarray:
    positions = np.linspace(0, old - 1, new)
    return np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(old)[None])).astype(np.float32)
