"""The same ViT under the names of transformers 5's modules, of its published files, and of timm; what it computes."""

import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sazs_jax.models.vit import ViT

_PUBLISHED = (
    (r"^layers\.", "encoder.layer."),
    (r"attention\.q_proj", "attention.attention.query"),
    (r"attention\.k_proj", "attention.attention.key"),
    (r"attention\.v_proj", "attention.attention.value"),
    (r"attention\.o_proj", "attention.output.dense"),
    (r"mlp\.fc1", "intermediate.dense"),
    (r"mlp\.fc2", "output.dense"),
)
_TIMM = (
    (r"^layers\.", "blocks."),
    (r"embeddings\.cls_token", "cls_token"),
    (r"embeddings\.position_embeddings", "pos_embed"),
    (r"embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"attention\.o_proj", "attn.proj"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"^layernorm", "norm"),
)


def _renamed(tensors: Mapping[str, np.ndarray], names) -> dict[str, np.ndarray]:
    result = {}
    for key, tensor in tensors.items():
        for pattern, replacement in names:
            key = re.sub(pattern, replacement, key)
        result[key] = tensor
    return result


def published(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names of transformers' files on the hub."""
    return _renamed(tensors, _PUBLISHED)


def timm(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Names of timm and of DINO's own files; query, key and value are one tensor."""
    joined = {key: tensor for key, tensor in tensors.items() if not re.search(r"[qkv]_proj|pooler", key)}
    for key in tensors:
        if "q_proj" in key:
            parts = [tensors[key.replace("q_proj", f"{name}_proj")] for name in "qkv"]
            joined[key.replace("attention.q_proj", "attn.qkv")] = np.concatenate(parts)
    return _renamed(joined, _TIMM)


def dino_depths(module: ViT, x: np.ndarray) -> dict[str, np.ndarray]:
    """For an image (1, H, W, 3): embedding and first block (1, N, D), keys (1, h, w, D) of the last."""
    graph, state = nnx.split(module)

    @jax.jit
    def run(state, x):
        vit = nnx.merge(graph, state)
        embedding, _ = vit.embed(x)
        return {"embedding": embedding, "block0": vit.blocks[0](embedding), "keys": vit.last_keys(x)}

    with jax.default_matmul_precision("highest"):
        return jax.tree.map(np.asarray, run(state, jnp.asarray(x)))
