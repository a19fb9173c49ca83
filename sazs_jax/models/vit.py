"""Vision Transformer backbone (Dosovitskiy et al., 2021) that hands out the tokens of chosen blocks."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from sazs_jax.models.attention import CUDNN_MULTIPLE
from sazs_jax.models.convolutions import Conv
from sazs_jax.models.transformer import TransformerBlock


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Shape of a ViT. `taps` are block indices (from 0) whose outputs are handed out."""

    dim: int
    depth: int
    num_heads: int
    taps: tuple[int, ...]
    patch_size: int = 16
    grid: int = 24  # patches a side that the stored position embeddings are for
    mlp_ratio: int = 4
    layer_norm_eps: float = 1e-6


VIT_CONFIGS = {
    "vit_tiny": ViTConfig(dim=96, depth=4, num_heads=3, taps=(0, 1, 2, 3), patch_size=8, grid=8, mlp_ratio=2),
    "vit_s16": ViTConfig(dim=384, depth=12, num_heads=6, taps=(2, 5, 8, 11)),
    "vit_b16": ViTConfig(dim=768, depth=12, num_heads=12, taps=(2, 5, 8, 11)),
    "vit_l16": ViTConfig(dim=1024, depth=24, num_heads=16, taps=(5, 11, 17, 23)),
}


class ViTTap(NamedTuple):
    """One block's output: the class token and the patch tokens on their grid."""

    cls: Float[Array, "B D"]
    patches: Float[Array, "B h w D"]


class ViT(nnx.Module):
    """Patch embedding, class token, learned positions and pre-norm blocks.

    The position embeddings are resized bilinearly, so any image whose sides are multiples of the patch will do.
    """

    # Inputs are normalised as (pixel - mean) / std, pixels in 0..255: mean 0.5 and std 0.5 of the 0..1 range.
    pixel_mean = 127.5
    pixel_std = 127.5

    def __init__(self, config: ViTConfig, *, dtype: jnp.dtype, remat: bool, attention: str = "auto", rngs: nnx.Rngs):
        self.config = config
        self.dtype = dtype
        self.remat = remat
        dim, patch = config.dim, config.patch_size
        self.patch_embed = Conv(3, dim, (patch, patch), strides=patch, padding="VALID", dtype=dtype, rngs=rngs)
        init = nnx.initializers.truncated_normal(0.02)
        self.cls_token = nnx.Param(init(rngs.params(), (1, 1, dim)))
        self.pos_embed = nnx.Param(init(rngs.params(), (1, 1 + config.grid**2, dim)))
        self.blocks = nnx.List(
            TransformerBlock(
                dim,
                config.num_heads,
                config.mlp_ratio * dim,
                activation="gelu",
                layer_norm_eps=config.layer_norm_eps,
                attention=attention,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(max(config.taps) + 1)
        )
        # Padded once here, the products of every block fit the GPU's tensor cores as well.
        self.token_multiple = CUDNN_MULTIPLE if self.blocks[0].attention_kernel == "cudnn" else 1

    @property
    def size_multiple(self) -> int:
        """The image's sides must be multiples of this."""
        return self.config.patch_size

    def __call__(self, x: Float[Array, "B H W 3"], *, train: bool = False) -> list[ViTTap]:
        """The outputs of the tapped blocks; h = H / patch, w = W / patch. `train` makes no difference."""
        tokens, (height, width) = self.embed(x)
        length = 1 + height * width

        def run_block(block: TransformerBlock, tokens: Array) -> Array:
            return block(tokens, length)

        if self.remat:
            run_block = nnx.remat(run_block)
        taps = []
        for index, block in enumerate(self.blocks):
            tokens = run_block(block, tokens)
            if index in self.config.taps:
                taps.append(ViTTap(tokens[:, 0], tokens[:, 1:length].reshape(len(x), height, width, -1)))
        return taps

    def embed(self, x: Float[Array, "B H W 3"]) -> tuple[Float[Array, "B N D"], tuple[int, int]]:
        """Class and patch tokens with positions, and the patches' grid (rows, columns).

        N is 1 + rows * columns, or with zeros after them the next multiple of `token_multiple`.
        """
        x = self.patch_embed(x.astype(self.dtype))
        batch, height, width, dim = x.shape
        tokens = x.reshape(batch, height * width, dim)
        cls = jnp.broadcast_to(self.cls_token[...].astype(self.dtype), (batch, 1, dim))
        tokens = jnp.concatenate([cls, tokens], axis=1)  # (B, 1 + hw, D)
        positions = resize_positions(self.pos_embed[...], (height, width)).astype(self.dtype)
        padding = ((0, 0), (0, -tokens.shape[1] % self.token_multiple), (0, 0))
        return jnp.pad(tokens + positions, padding), (height, width)

    def last_keys(self, x: Float[Array, "B H W 3"]) -> Float[Array, "B h w D"]:
        """The patches' keys in the last block's attention, all heads one after the other."""
        tokens, (height, width) = self.embed(x)
        length = 1 + height * width
        for block in self.blocks[:-1]:
            tokens = block(tokens, length)
        last = self.blocks[-1]
        _, keys, _ = jnp.split(last.qkv(last.norm1(tokens)), 3, axis=-1)
        return keys[:, 1:length].reshape(len(x), height, width, -1)


def resize_positions(embeddings: Float[Array, "1 M D"], grid: tuple[int, int]) -> Float[Array, "1 N D"]:
    """Resize position embeddings of a square grid (class token first) to `grid` = (rows, columns), bilinearly.

    Half-pixel centres and no antialiasing, as in DPT and LSeg. N = 1 + rows * columns.
    """
    cls, patches = embeddings[:, :1], embeddings[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if grid == (side, side):
        return embeddings
    patches = patches.reshape(1, side, side, -1)
    patches = jax.image.resize(patches, (1, *grid, patches.shape[-1]), "bilinear", antialias=False)
    return jnp.concatenate([cls, patches.reshape(1, grid[0] * grid[1], -1)], axis=1)
