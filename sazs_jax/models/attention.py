"""The kernel that forms multi-head attention: XLA's products and softmax, or cuDNN's flash attention."""

import re
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

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
    batch, tokens = query.shape[:2]
    added = -tokens % CUDNN_MULTIPLE if kernel == "cudnn" else 0
    if not added and length in (None, tokens):
        return jax.nn.dot_product_attention(query, key, value, is_causal=causal, implementation=kernel)
    lengths = jnp.full((batch,), length or tokens, jnp.int32)
    mixed = jax.nn.dot_product_attention(
        *(jnp.pad(x, ((0, 0), (0, added), (0, 0), (0, 0))) for x in (query, key, value)),
        is_causal=causal,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        implementation=kernel,
    )
    return mixed[:, :tokens]
