"""The training step: one function over a named axis, mapped over all devices."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array
from ml_collections import ConfigDict

from sazs_jax.models.sazs import DEVICE_AXIS
from sazs_jax.training.state import TrainState
from sazs_jax.training.task import Batch, Task

Metrics = dict[str, Array]


def make_loss_and_grad(
    graphdef: nnx.GraphDef, task: Task, config: ConfigDict
) -> Callable[[TrainState, Any, Batch], tuple[Metrics, nnx.State, nnx.State]]:
    """The losses of a batch, the gradient of their weighted sum and the new BatchNorm statistics.

    The returned function runs inside the mapped axis; it takes the state, the task's constants and a part of the batch.
    Each loss is a sum over all devices divided by a count over all devices, so it does not depend on how the batch is
    laid out over them, even where they hold unequal numbers of valid pixels. Microbatches differ from the whole batch
    in one thing: BatchNorm takes each one's own statistics.

    Args:
      config: the `train` group; `seed` and `accumulate` are used.
    """
    seed_key = jax.random.key(config.seed)

    def weighted_sum(params, model_state, constants, inputs, totals):
        model = nnx.merge(graphdef, params, model_state, copy=True)
        losses = task.losses(constants, model, inputs, totals)
        total = sum((task.weights[name] * loss for name, loss in losses.items()), jnp.zeros(()))
        return total, ({"total": total, **losses}, nnx.state(model, nnx.Not(nnx.Param)))

    def loss_and_grad(state: TrainState, constants: Any, batch: Batch):
        size = len(jax.tree.leaves(batch)[0])
        # Random draws belong to the example, not to the device that holds it. Hosts take turns in the global order.
        hosts = jax.process_count()
        host, device = jnp.divmod(jax.lax.axis_index(DEVICE_AXIS), jax.lax.axis_size(DEVICE_AXIS) // hosts)
        examples = (device * size + jnp.arange(size)) * hosts + host
        step_key = jax.random.fold_in(seed_key, state.step)
        keys = jax.vmap(lambda example: jax.random.fold_in(step_key, example))(examples)
        inputs, totals = task.prepare(constants, batch, keys)

        def microbatch(carry, inputs):
            losses, grads, model_state = carry
            (_, (new_losses, model_state)), new_grads = jax.value_and_grad(weighted_sum, has_aux=True)(
                state.params, model_state, constants, inputs, totals
            )
            return (*jax.tree.map(jnp.add, (losses, grads), (new_losses, new_grads)), model_state), None

        losses = {name: jnp.zeros(()) for name in ("total", *task.weights)}
        carry = (losses, jax.tree.map(jnp.zeros_like, state.params), state.model_state)
        if config.accumulate == 1:
            carry, _ = microbatch(carry, inputs)
        else:
            inputs = jax.tree.map(lambda x: x.reshape(config.accumulate, -1, *x.shape[1:]), inputs)
            carry, _ = jax.lax.scan(microbatch, carry, inputs)
        losses, grads, model_state = carry
        losses, grads = jax.lax.psum((losses, grads), DEVICE_AXIS)
        return losses, grads, model_state

    return loss_and_grad


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    task: Task,
    config: ConfigDict,
    *,
    devices: Sequence[Any] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """`one_step` on all devices of all hosts, or on `devices`.

    The returned function takes the state as one copy (its buffers are donated) and this host's part of the batch, laid
    out by `shard_batch`.
    """
    step = one_step(graphdef, optimizer, task, config)
    return map_over_devices(step, task.constants, donate_state=True, devices=devices)


def one_step(
    graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation, task: Task, config: ConfigDict
) -> Callable[[TrainState, Any, Batch], tuple[TrainState, Metrics]]:
    """One training step as a function that runs inside the mapped axis. `config` is the `train` group.

    It takes the state, the task's constants and a part of the batch, and returns the new state and scalar metrics:
    `loss/total`, `loss/NAME` for each of the task's losses, and the norms of gradient and update.
    """
    loss_and_grad = make_loss_and_grad(graphdef, task, config)

    def train_step(state: TrainState, constants: Any, batch: Batch) -> tuple[TrainState, Metrics]:
        losses, grads, model_state = loss_and_grad(state, constants, batch)
        if not config.sync_batchnorm:  # one state for all devices: the mean of their statistics
            model_state = jax.lax.pmean(model_state, DEVICE_AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            **{f"loss/{name}": loss for name, loss in losses.items()},
            "norm/gradient": optax.tree.norm(grads),
            "norm/update": optax.tree.norm(updates),
        }
        params: Any = optax.apply_updates(state.params, updates)
        state = TrainState(
            step=state.step + 1,
            params=params,
            model_state=model_state,
            opt_state=opt_state,
        )
        return state, metrics

    return train_step


def map_over_devices(
    function: Callable, constants: Any, *, donate_state: bool = False, devices: Sequence[Any] | None = None
) -> Callable:
    """Map `function(state, constants, batch)` over devices; the result takes state and batch.

    State goes in and comes out as one copy, the constants lie on the devices, the batch is split on its first axis.

    Args:
      constants: of the task.
      donate_state: the state's buffers are the function's to overwrite.
      devices: by default all of this host; those of the other hosts join in.
    """
    mapped = jax.pmap(
        function,
        axis_name=DEVICE_AXIS,
        in_axes=(None, None, 0),
        out_axes=None,
        donate_argnums=(0,) if donate_state else (),
        devices=devices,
    )
    constants = replicate(constants, devices)
    return lambda state, batch: mapped(state, constants, batch)


def replicate(tree: Any, devices: Sequence[Any] | None = None) -> Any:
    """Put arrays on this host's devices the way the mapped step returns its state, so that it is compiled once."""
    mesh = jax.sharding.Mesh(np.array(devices or jax.local_devices()), (DEVICE_AXIS,))
    return jax.device_put(tree, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def shard_batch(batch: Batch, num_devices: int | None = None) -> Batch:
    """Lay this host's batch out over its devices: (B, ...) to (devices, B / devices, ...)."""
    num_devices = num_devices or jax.local_device_count()
    return {name: x.reshape(num_devices, -1, *x.shape[1:]) for name, x in batch.items()}
