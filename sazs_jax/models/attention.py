"""The kernel that forms multi-head attention: XLA's products and softmax (on a CPU head by head), or cuDNN's."""

import functools
import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from sazs_jax.errors import UserError

Kernel = Literal["xla", "cudnn"]
SETTINGS = ("auto", "xla")

# cuDNN's kernels refuse an odd number of tokens, such as a class token and 30x30 patches; tensor cores take eight.
CUDNN_MULTIPLE = 8
_LEAST_CAPABILITY = 8.0  # Ampere
_WIDEST_HEAD = 128


def choose_kernel(setting: str, dtype: DTypeLike, head_width: int) -> Kernel:
    """The kernel that a setting means on JAX's default device.

    `cudnn` never holds the N x N weights of N tokens; it is there on NVIDIA GPUs, and for 16-bit types alone.

    Args:
      setting: `auto`, `cudnn` wherever it is there; or `xla`.
      dtype: in which attention is computed.
      head_width: channels of one head.

    Raises:
      UserError: an unknown setting.
    """
    if setting not in SETTINGS:
        raise UserError(f"model.attention={setting!r} is unknown; choose one of {', '.join(SETTINGS)}")
    settings: Any = jax.config  # whose attributes type checkers do not see
    device = settings.jax_default_device
    if not isinstance(device, jax.Device):  # none, or the name of a platform
        device = jax.devices(device)[0]
    capability = str(getattr(device, "compute_capability", ""))
    is_nvidia = re.fullmatch(r"\d+\.\d+", capability) is not None  # AMD's are names
    fits = jnp.dtype(dtype).itemsize == 2 and head_width % 8 == 0 and head_width <= _WIDEST_HEAD
    return "cudnn" if setting == "auto" and fits and is_nvidia and float(capability) >= _LEAST_CAPABILITY else "xla"


def attention(
    query: Float[Array, "B N heads d"],
    key: Float[Array, "B N heads d"],
    value: Float[Array, "B N heads d"],
    *,
    length: int | None = None,
    causal: bool = False,
    kernel: Kernel = "xla",
) -> Float[Array, "B N heads d"]:
    """softmax(query key^T / sqrt(d)) value of every head (Vaswani et al., 2017).

    Args:
      query: of each token.
      key: of each token.
      value: of each token.
      length: the tokens from here on are padding, which no other token sees; None: there is none.
      causal: a token sees itself and those before it alone.
      kernel: see `choose_kernel`.
    """
    if kernel == "cudnn":
        return _by_cudnn(query, key, value, length, causal)
    tokens = query.shape[1]
    seen = jnp.tri(tokens, dtype=bool) if causal else None
    if length not in (None, tokens):
        seen = jnp.broadcast_to(jnp.arange(tokens) < length, (tokens, tokens)) & (True if seen is None else seen)
    at_once = functools.partial(jax.nn.dot_product_attention, mask=None if seen is None else seen[None, None])
    return jax.lax.platform_dependent(query, key, value, cpu=functools.partial(by_heads, seen=seen), default=at_once)


def _by_cudnn(query: Array, key: Array, value: Array, length: int | None, causal: bool) -> Array:
    batch, tokens = query.shape[:2]
    added = -tokens % CUDNN_MULTIPLE
    settings: Any = {"is_causal": causal, "implementation": "cudnn"}
    if not added and length in (None, tokens):
        return jax.nn.dot_product_attention(query, key, value, **settings)
    lengths = jnp.full((batch,), length or tokens, jnp.int32)
    mixed = jax.nn.dot_product_attention(
        *(jnp.pad(x, ((0, 0), (0, added), (0, 0), (0, 0))) for x in (query, key, value)),
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        **settings,
    )
    return mixed[:, :tokens]


@jax.jit  # called outside a program, it would be compiled each time
def by_heads(
    query: Float[Array, "B N heads d"],
    key: Float[Array, "B N heads d"],
    value: Float[Array, "B N heads d"],
    seen: Bool[Array, "N N"] | None,
) -> Float[Array, "B N heads d"]:
    """Attention of one head of one image after the other, whose N x N weights stay in a CPU's caches.

    Kept for the backward pass are query, key and value alone.

    Args:
      query: of each token.
      key: of each token.
      value: of each token.
      seen: which tokens (columns) each token (row) sees, at least one; None: all.
    """

    @jax.checkpoint
    def one(rows):
        query, key, value = rows  # (N, d)
        logits = jnp.matmul(query, key.T, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
        if seen is not None:
            logits = jnp.where(seen, logits, jnp.finfo(jnp.float32).min / 2)
        weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
        mixed = jnp.matmul(weights.astype(value.dtype), value, preferred_element_type=jnp.float32)
        return (mixed / weights.sum(axis=-1, keepdims=True)).astype(value.dtype)

    batch, tokens, heads, width = query.shape
    rows = (x.swapaxes(1, 2).reshape(batch * heads, tokens, width) for x in (query, key, value))
    return jax.lax.map(one, tuple(rows)).reshape(batch, heads, tokens, width).swapaxes(1, 2)
