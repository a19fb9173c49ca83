"""CLIP's text tower (Radford et al., 2021)."""

import dataclasses
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int

from sazs_jax.models.transformer import TransformerBlock, layer_norm

# OpenAI's configurations in transformers' layout say eos_token_id 2 by mistake; the end token is the largest id.
LEGACY_EOS = 2


@dataclasses.dataclass(frozen=True)
class CLIPTextConfig:
    """Shape of the tower; the defaults are ViT-B/32's."""

    vocab_size: int = 49408
    context_length: int = 77
    dim: int = 512
    depth: int = 12
    num_heads: int = 8
    mlp_dim: int = 2048
    embedding_dim: int = 512
    activation: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    eos_token_id: int = 49407


class CLIPTextOutput(NamedTuple):
    """The text embedding, and what went before it."""

    embedding: Float[Array, "B E"]
    tokens: Float[Array, "B N D"]  # of the last block, normalised
    hidden: tuple[Float[Array, "B N D"], ...]  # embedded tokens, then each block's output


class CLIPText(nnx.Module):
    """Token ids to an embedding in the space that CLIP shares between images and text."""

    def __init__(self, config: CLIPTextConfig, *, dtype: DTypeLike = jnp.float32, rngs: nnx.Rngs):
        self.config = config
        self.token_embedding = nnx.Embed(config.vocab_size, config.dim, dtype=dtype, rngs=rngs)
        self.position_embedding = nnx.Embed(config.context_length, config.dim, dtype=dtype, rngs=rngs)
        self.blocks = nnx.List(
            TransformerBlock(
                config.dim,
                config.num_heads,
                config.mlp_dim,
                activation=config.activation,
                layer_norm_eps=config.layer_norm_eps,
                causal=True,
                dtype=dtype,
                rngs=rngs,
            )
            for _ in range(config.depth)
        )
        self.final_norm = layer_norm(config.dim, config.layer_norm_eps, rngs=rngs)
        self.projection = nnx.Linear(config.dim, config.embedding_dim, use_bias=False, dtype=dtype, rngs=rngs)

    def __call__(self, ids: Int[Array, "B N"]) -> CLIPTextOutput:
        """Embed token sequences.

        Args:
          ids: with start and end token; N at most `context_length`. What follows the end token makes no
            difference, as attention is causal.

        Returns:
          The embedding at the end token, not normalised, and the hidden states.
        """
        x = self.token_embedding(ids) + self.position_embedding(jnp.arange(ids.shape[1]))
        hidden = [x]
        for block in self.blocks:
            x = block(x)
            hidden.append(x)
        x = self.final_norm(x)

        is_legacy = self.config.eos_token_id == LEGACY_EOS
        end = jnp.argmax(ids if is_legacy else ids == self.config.eos_token_id, axis=1)  # (B,), the first if several
        pooled = jnp.take_along_axis(x, end[:, None, None], axis=1)[:, 0]  # (B, D)
        return CLIPTextOutput(self.projection(pooled), x, tuple(hidden))
