"""The state that a training step maps to its successor."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import nnx


class TrainState(flax.struct.PyTreeNode):
    """Everything that a step changes. `model_state` is what is not a parameter: BatchNorm's running statistics."""

    step: Any  # int32 scalar
    params: nnx.State
    model_state: nnx.State
    opt_state: optax.OptState


def create_state(model: nnx.Module, optimizer: optax.GradientTransformation) -> tuple[nnx.GraphDef, TrainState]:
    """Split a model into its structure and the state at step 0."""
    graphdef, params, model_state = nnx.split(model, nnx.Param, ...)
    return graphdef, TrainState(
        step=jnp.zeros((), jnp.int32), params=params, model_state=model_state, opt_state=jax.jit(optimizer.init)(params)
    )


def merge_model(graphdef: nnx.GraphDef, state: TrainState) -> Any:
    """The model with the state's values; its arrays are copies, since a step donates the state's."""
    params, model_state = jax.tree.map(jnp.copy, (state.params, state.model_state))
    return nnx.merge(graphdef, params, model_state)
