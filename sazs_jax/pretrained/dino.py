"""Self-supervised ViTs (DINO, Caron et al., 2021): S/16, S/8, B/16, B/8, in timm's, transformers' or our own layout.

The official `.pth` files and timm's hub copies share timm's layout.
"""

import itertools

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Float

from sazs_jax.errors import UserError
from sazs_jax.models.vit import ViT, ViTConfig
from sazs_jax.pretrained.conversion import (
    Rule,
    conv,
    find_rule,
    fused_bias,
    fused_kernel,
    layer_norm,
    linear,
    load_weights,
    without_parallel_prefix,
)
from sazs_jax.pretrained.tensor_file import find_weights, read_tensors
from sazs_jax.pretrained.vit import IGNORE, square_side, vit_rules

_HEAD_DIM = 64  # of every published size: a file does not tell the number of heads


def _transformers_rules(layer: str, qkv: tuple[str, str, str], proj: str, fc1: str, fc2: str) -> tuple[Rule, ...]:
    names = tuple(f"{layer}.{name}" for name in qkv)
    return (
        Rule("embeddings.cls_token", "cls_token"),
        Rule("embeddings.position_embeddings", "pos_embed"),
        *conv("embeddings.patch_embeddings.projection", "patch_embed"),
        *layer_norm(f"{layer}.layernorm_before", "blocks.{i}.norm1"),
        Rule(tuple(f"{name}.weight" for name in names), "blocks.{i}.qkv.kernel", fused_kernel),
        Rule(tuple(f"{name}.bias" for name in names), "blocks.{i}.qkv.bias", fused_bias),
        *linear(f"{layer}.{proj}", "blocks.{i}.proj"),
        *layer_norm(f"{layer}.layernorm_after", "blocks.{i}.norm2"),
        *linear(f"{layer}.{fc1}", "blocks.{i}.fc1"),
        *linear(f"{layer}.{fc2}", "blocks.{i}.fc2"),
    )


_QKV = ("attention.attention.query", "attention.attention.key", "attention.attention.value")
TRANSFORMERS_RULES = _transformers_rules(
    "encoder.layer.{i}", _QKV, "attention.output.dense", "intermediate.dense", "output.dense"
)
# The names that modules of transformers 5 have.
TRANSFORMERS_5_RULES = _transformers_rules(
    "layers.{i}",
    ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention.o_proj",
    "mlp.fc1",
    "mlp.fc2",
)
_IGNORE_TRANSFORMERS = ("layernorm.*", "pooler.*", "classifier.*", "embeddings.mask_token")
_OURS = (Rule("{path}", "{path}"),)
_LAYOUTS = {  # a key that tells the layout -> its table and what it may hold beside
    "blocks.0.attn.qkv.weight": (vit_rules(), IGNORE),
    "encoder.layer.0.attention.attention.query.weight": (TRANSFORMERS_RULES, _IGNORE_TRANSFORMERS),
    "layers.0.attention.q_proj.weight": (TRANSFORMERS_5_RULES, _IGNORE_TRANSFORMERS),
    "blocks.0.qkv.kernel": (_OURS, ()),  # written by the converter
}


def load_dino(source: str, grid: int | None = None, *, dtype: str = "float32") -> ViT:
    """A DINO ViT, its position embeddings resized to a grid of grid x grid patches.

    Width, depth and patch follow from the tensors. `ViT.last_keys` gives the features of Eq. 4.

    Args:
      source: a file of weights, a directory that holds one of WEIGHT_FILES, or a hub id such as
        "facebook/dino-vits16" or "timm/vit_small_patch16_224.dino".
      grid: patches a side; None: those that the file is for.
      dtype: in which it computes; its parameters are float32.

    Raises:
      UserError: the file cannot be had, is damaged, or holds another model.
    """
    path = find_weights(source)
    tensors = without_parallel_prefix(read_tensors(path))
    tensors = {key.removeprefix("vit."): value for key, value in tensors.items()}
    marker = next((key for key in _LAYOUTS if key in tensors), None)
    if marker is None:
        raise UserError(f"{path}: no ViT in timm's or transformers' layout; give DINO's weights (S/16, S/8, B/16, B/8)")
    rules, ignore = _LAYOUTS[marker]
    _, (positions,) = find_rule(rules, "pos_embed")
    kernel, (patch,) = find_rule(rules, "patch_embed.kernel")
    try:
        _, tokens, _ = tensors[positions].shape
        grid = grid or square_side(tokens - 1)
        tensors[positions] = resize_positions_bicubic(tensors[positions].astype(np.float32), grid)
        size, _, _, dim = kernel.transform(tensors[patch]).shape
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: {positions} or {patch} is missing or of another shape; get the file again") from error
    depth = next(i for i in itertools.count() if marker.replace("0", str(i), 1) not in tensors)
    num_heads = max(dim // _HEAD_DIM, 1)
    config = ViTConfig(dim=dim, depth=depth, num_heads=num_heads, taps=(depth - 1,), patch_size=size, grid=grid)
    module = nnx.eval_shape(lambda: ViT(config, dtype=jnp.dtype(dtype), remat=False, rngs=nnx.Rngs(0)))
    load_weights(module, tensors, rules, ignore=ignore, origin=str(path))
    return module


def resize_positions_bicubic(embeddings: Float[np.ndarray, "1 M D"], grid: int) -> Float[np.ndarray, "1 N D"]:
    """Position embeddings (class token first) of a square grid for grid x grid patches.

    Bicubic as in PyTorch, to this size: half-pixel centres, Keys' kernel with a = -0.75, no antialiasing, the border
    repeated. So transformers does it; DINO's own code hands over a scale factor of (grid + 0.1) / side, which moves
    the samples by a small part of a patch.

    Raises:
      ValueError: they are not of a square grid.
    """
    cls, patches = embeddings[:, :1], embeddings[:, 1:]
    side = square_side(patches.shape[1])
    if side == grid:
        return embeddings
    weights = _cubic_weights(side, grid)
    patches = np.einsum("yi,xj,bijd->byxd", weights, weights, patches.reshape(1, side, side, -1), optimize=True)
    return np.concatenate([cls, patches.reshape(1, grid * grid, -1)], axis=1).astype(np.float32)


def _cubic_weights(old: int, new: int) -> Float[np.ndarray, "new old"]:
    centre = (np.arange(new) + 0.5) * old / new - 0.5
    first = np.floor(centre).astype(int) - 1
    weights = np.zeros((new, old))
    for offset in range(4):
        distance = np.abs(centre - (first + offset))
        near = 1.25 * distance**3 - 2.25 * distance**2 + 1
        far = -0.75 * (distance**3 - 5 * distance**2 + 8 * distance - 4)
        value = np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))
        np.add.at(weights, (np.arange(new), np.clip(first + offset, 0, old - 1)), value)
    return weights
