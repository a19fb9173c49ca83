"""Floating-point operations by XLA's own count, before it compiles; a multiply-add is two."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.programs import traced
from sazs_jax.models.sazs import build_model


def flops(function: Callable, *arguments: Any) -> float:
    """Operations of a function, by its program for a GPU; the body of a loop counts once."""
    return _count(jax.jit(function).trace(*arguments))


def program_flops(name: str, config: ConfigDict) -> float:
    """Operations of a program of `programs.traced` on one of this host's devices, which share the batch."""
    config = _counted(config)
    config.data.batch_size //= jax.local_device_count()
    return _count(traced(name, config, jax.local_devices()[0]))


def network_flops(config: ConfigDict, side: int) -> float:
    """Operations of the network from one image of side x side pixels to its embeddings."""
    graph, state = nnx.split(nnx.eval_shape(lambda: build_model(_counted(config), rngs=nnx.Rngs(0))))
    pixels = jax.ShapeDtypeStruct((1, side, side, 3), jnp.uint8)
    return flops(lambda state, pixels: nnx.merge(graph, state)(pixels).embeddings, state, pixels)


def _counted(config: ConfigDict) -> ConfigDict:
    """With XLA's own attention, for it sees no operations in another kernel, and without a loop over microbatches."""
    config = config.copy_and_resolve_references()
    config.model.attention, config.train.accumulate = "xla", 1
    return config


def _count(program: Any) -> float:
    # The forms that a CPU has of attention and of convolutions are loops and sums.
    return float(program.lower(lowering_platforms=("cuda",)).cost_analysis()["flops"])
