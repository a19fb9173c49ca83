"""Floating-point operations by XLA's own count; a multiply-add is two."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sazs_jax.models.sazs import SAZS


def flops(function: Callable, *arguments: Any) -> float:
    """Operations of a compiled function on one device by XLA's cost analysis; the body of a loop counts once."""
    analysis: Any = jax.jit(function).lower(*arguments).compile().cost_analysis()
    return float(analysis["flops"])


def network_flops(model: SAZS, side: int) -> float:
    """Operations of the network from one image of side x side pixels to its embeddings."""
    graph, state = nnx.split(model)
    pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
    return flops(lambda state, pixels: nnx.merge(graph, state)(pixels).embeddings, state, pixels)
