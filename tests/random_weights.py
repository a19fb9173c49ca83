"""Random weights without compiling the initialisers, which takes longer than most tests."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Module = TypeVar("Module", bound=nnx.Module)


def random_weights(make: Callable[[], Module], seed: int = 0) -> Module:
    """`make()` with kernels of unit gain, small random biases and embeddings, and BatchNorm statistics of 0 and 1."""
    rng = np.random.default_rng(seed)

    def value(path, leaf) -> jax.Array:
        name = [str(key.key) for key in path if hasattr(key, "key")][-1]
        if name in ("scale", "var"):
            array = np.ones(leaf.shape)
        elif name == "mean":
            array = np.zeros(leaf.shape)
        elif name == "kernel":
            array = rng.normal(0, np.prod(leaf.shape[:-1]) ** -0.5, leaf.shape)
        else:
            array = rng.normal(0, 0.02, leaf.shape)
        return jnp.asarray(array, leaf.dtype)

    graphdef, state = nnx.split(nnx.eval_shape(make))
    return nnx.merge(graphdef, jax.tree_util.tree_map_with_path(value, state))
