"""ViT-S/16, B/16 and L/16: timm's key layout, and the `.npz` files of the AugReg study (Steiner et al., 2022).

timm's layout is that of DINO's and LSeg's checkpoints too.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial

import jax.numpy as jnp
import numpy as np

from sazs_jax.errors import UserError
from sazs_jax.models.vit import VIT_CONFIGS, resize_positions
from sazs_jax.pretrained.conversion import Rule, conv, layer_norm, linear

# timm's classifier and last norm; the decoder takes the blocks' outputs as they are.
IGNORE = ("norm.*", "fc_norm.*", "head.*", "head_dist.*", "dist_token", "pre_logits.*")
AUGREG_IGNORE = ("Transformer/encoder_norm/*", "head/*", "pre_logits/*")


def block_rules(source: str, path: str) -> tuple[Rule, ...]:
    """The rows of one transformer block in timm's layout; query, key and value are fused on both sides."""
    return (
        *layer_norm(f"{source}.norm1", f"{path}.norm1"),
        *linear(f"{source}.attn.qkv", f"{path}.qkv"),
        *linear(f"{source}.attn.proj", f"{path}.proj"),
        *layer_norm(f"{source}.norm2", f"{path}.norm2"),
        *linear(f"{source}.mlp.fc1", f"{path}.fc1"),
        *linear(f"{source}.mlp.fc2", f"{path}.fc2"),
    )


def vit_rules(grid: int | None = None, *, source: str = "", path: str = "") -> tuple[Rule, ...]:
    """The table of timm's layout.

    Args:
      grid: patches a side that our position embeddings are for; a file's are resized to it. None: they stay.
      source: what goes before every key.
      path: what goes before every path.
    """
    return (
        Rule(f"{source}cls_token", f"{path}cls_token"),
        Rule(f"{source}pos_embed", f"{path}pos_embed", partial(positions_on_grid, grid=grid)),
        *conv(f"{source}patch_embed.proj", f"{path}patch_embed"),
        *block_rules(f"{source}blocks.{{i}}", f"{path}blocks.{{i}}"),
    )


def augreg_rules(grid: int, *, path: str = "") -> tuple[Rule, ...]:
    """The table of the study's own files, whose kernels are laid out as ours; heads have an axis of their own."""
    block, ours = "Transformer/encoderblock_{i}", f"{path}blocks.{{i}}"
    attention = f"{block}/MultiHeadDotProductAttention_1"
    qkv = ("query", "key", "value")

    def dense(source: str, target: str, kernel: Callable[..., np.ndarray] = lambda x: x) -> tuple[Rule, ...]:
        return Rule(f"{source}/kernel", f"{target}.kernel", kernel), Rule(f"{source}/bias", f"{target}.bias")

    def norm(source: str, target: str) -> tuple[Rule, ...]:
        return Rule(f"{source}/scale", f"{target}.scale"), Rule(f"{source}/bias", f"{target}.bias")

    return (
        Rule("cls", f"{path}cls_token"),
        Rule(
            "Transformer/posembed_input/pos_embedding",
            f"{path}pos_embed",
            partial(positions_on_grid, grid=grid),
        ),
        *dense("embedding", f"{path}patch_embed"),
        *norm(f"{block}/LayerNorm_0", f"{ours}.norm1"),
        Rule(tuple(f"{attention}/{name}/kernel" for name in qkv), f"{ours}.qkv.kernel", _fuse_kernels),
        Rule(tuple(f"{attention}/{name}/bias" for name in qkv), f"{ours}.qkv.bias", _fuse_biases),
        *dense(f"{attention}/out", f"{ours}.proj", lambda kernel: kernel.reshape(-1, kernel.shape[-1])),
        *norm(f"{block}/LayerNorm_2", f"{ours}.norm2"),
        *dense(f"{block}/MlpBlock_3/Dense_0", f"{ours}.fc1"),
        *dense(f"{block}/MlpBlock_3/Dense_1", f"{ours}.fc2"),
    )


def positions_on_grid(embeddings: np.ndarray, grid: int | None) -> np.ndarray:
    """Position embeddings (1, 1 + m * m, D), class token first, resized to (1, 1 + grid * grid, D); None: as they are.

    Raises:
      ValueError: they are not of a square grid.
    """
    _, tokens, _ = embeddings.shape
    side = square_side(tokens - 1)
    if grid in (None, side):
        return embeddings
    return np.asarray(resize_positions(jnp.asarray(embeddings), (grid, grid)))


def square_side(patches: int) -> int:
    """Patches a side of a square grid.

    Raises:
      ValueError: there is no such grid.
    """
    side = math.isqrt(max(patches, 0))
    if side < 1 or side * side != patches:
        raise ValueError(f"{patches} patches are no square grid")
    return side


def encoder_of_width(tensors: Mapping[str, np.ndarray], key: str, origin: str) -> str:
    """The name of the ViT whose class token, `tensors[key]`, has this width.

    Raises:
      UserError: there is none, or no class token.
    """
    widths = {VIT_CONFIGS[name].dim: name for name in ("vit_s16", "vit_b16", "vit_l16")}
    if key not in tensors or not tensors[key].ndim:
        raise UserError(f"{origin} lacks {key}, a row: it is of no ViT with a class token, and only these are known")
    width = tensors[key].shape[-1]
    if width not in widths:
        raise UserError(f"{origin} is a ViT of width {width}; known are {', '.join(map(str, widths))}")
    return widths[width]


def _fuse_kernels(*kernels: np.ndarray) -> np.ndarray:
    return np.concatenate([kernel.reshape(len(kernel), -1) for kernel in kernels], axis=1)  # (D, 3 D)


def _fuse_biases(*biases: np.ndarray) -> np.ndarray:
    return np.concatenate([bias.reshape(-1) for bias in biases])
