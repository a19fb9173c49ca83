"""Our own file of weights: safetensors, named by the path in the module, joined with dots."""

import os
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import nnx
from jax.typing import DTypeLike

from sazs_jax.atomic import write_atomically


def write_weights(
    path: str | os.PathLike,
    module: nnx.Module,
    metadata: Mapping[str, str],
    *,
    prefix: str = "",
    dtype: DTypeLike = jnp.float32,
) -> None:
    """Write the parameters and BatchNorm statistics of `module`, each named by `prefix` and its path.

    Raises:
      UserError: it cannot be written there.
    """
    state = nnx.to_flat_state(nnx.state(module, nnx.Any(nnx.Param, nnx.BatchStat)))
    tensors = {
        prefix + ".".join(map(str, parts)): np.asarray(jax.device_get(jnp.asarray(variable[...], dtype)))
        for parts, variable in state
    }
    write_atomically(path, safetensors.numpy.save(tensors, dict(metadata)))
