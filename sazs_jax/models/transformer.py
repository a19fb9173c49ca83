"""The pre-norm transformer block that the ViT and CLIP's text tower share."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from sazs_jax.models.attention import Kernel, attention, choose_kernel


def quick_gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """CLIP's sigmoid approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


@jax.checkpoint  # its input alone is kept for the backward pass
def gelu(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """The exact GELU, x Phi(x) (timm's)."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"gelu": gelu, "quick_gelu": quick_gelu}


class TransformerBlock(nnx.Module):
    """x + Attention(LN(x)), then x + MLP(LN(x)) (Vaswani et al., 2017; pre-norm as in ViT and CLIP).

    Matrix products run in `dtype`; LayerNorms, the softmax and all parameters are float32. The sum x keeps the
    type in which it comes.

    Args:
      dim: width D; a multiple of `num_heads`.
      mlp_dim: width of the hidden layer.
      activation: a key of `ACTIVATIONS`.
      causal: a token sees itself and those before it alone.
      attention: the kernel, see `choose_kernel`.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        mlp_dim: int,
        *,
        activation: str,
        layer_norm_eps: float,
        causal: bool = False,
        attention: str = "auto",
        dtype: DTypeLike,
        rngs: nnx.Rngs,
    ):
        self.num_heads = num_heads
        self.activation = ACTIVATIONS[activation]
        self.causal = causal
        self.attention_kernel: Kernel = choose_kernel(attention, dtype, dim // num_heads)
        self.norm1 = layer_norm(dim, layer_norm_eps, rngs=rngs)
        self.qkv = nnx.Linear(dim, 3 * dim, dtype=dtype, rngs=rngs)
        self.proj = nnx.Linear(dim, dim, dtype=dtype, rngs=rngs)
        self.norm2 = layer_norm(dim, layer_norm_eps, rngs=rngs)
        self.fc1 = nnx.Linear(dim, mlp_dim, dtype=dtype, rngs=rngs)
        self.fc2 = nnx.Linear(mlp_dim, dim, dtype=dtype, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"], length: int | None = None) -> Float[Array, "B N D"]:
        """The block's output tokens. Those from `length` on are padding, which no other token sees."""
        x = x + self.attend(self.norm1(x), length).astype(x.dtype)
        hidden = self.activation(self.fc1(self.norm2(x)))
        return x + self.fc2(hidden).astype(x.dtype)

    def attend(self, x: Float[Array, "B N D"], length: int | None = None) -> Float[Array, "B N D"]:
        """Multi-head self-attention of normalised tokens; `length` as in the call."""
        batch, tokens, dim = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.num_heads, dim // self.num_heads)
        query, key, value = jnp.moveaxis(qkv, 2, 0)  # each (B, N, heads, D / heads)
        mixed = attention(query, key, value, length=length, causal=self.causal, kernel=self.attention_kernel)
        return self.proj(mixed.reshape(batch, tokens, dim))


def layer_norm(dim: int, eps: float, *, rngs: nnx.Rngs) -> nnx.LayerNorm:
    """LayerNorm in float32, with the two-pass variance of the original implementations."""
    return nnx.LayerNorm(dim, epsilon=eps, dtype=jnp.float32, use_fast_variance=False, rngs=rngs)
