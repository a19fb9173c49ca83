"""The training step: one function over a named axis, mapped over all devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.losses import LABEL_SPACES, align_loss_sum, apply_label_space, count_valid
from sazs_jax.models.sazs import DEVICE_AXIS, cosine_logits
from sazs_jax.training.state import TrainState

Batch = Mapping[str, Array | np.ndarray]
Metrics = dict[str, Array]


def make_loss_and_grad(
    graphdef: nnx.GraphDef, anchors: Float[Array, "K D"], config: ConfigDict
) -> Callable[[TrainState, Batch], tuple[Array, nnx.State, nnx.State]]:
    """The loss of a batch, its gradient and the new BatchNorm statistics, inside the mapped axis.

    The loss is the sum over all valid pixels of all devices divided by their number, so it does not depend on how
    the batch is laid out over devices, even where they hold unequal numbers of valid pixels. Microbatches differ from
    the whole batch in one thing: BatchNorm takes each one's own statistics.

    Args:
      anchors: `others`, then the seen classes, in the order of the remapped labels.
      config: the whole config; `loss`, `train.seed` and `train.accumulate` are used.
    """
    if config.loss.label_space not in LABEL_SPACES:
        raise UserError(
            f"loss.label_space={config.loss.label_space!r} is unknown; choose one of {', '.join(LABEL_SPACES)}"
        )
    seed_key = jax.random.key(config.train.seed)

    def loss_sum(params, model_state, images, labels, allowed):
        model = nnx.merge(graphdef, params, model_state, copy=True)
        logits = cosine_logits(model(images, train=True), anchors, config.loss.logit_scale)
        model_state = nnx.state(model, nnx.Not(nnx.Param))
        return align_loss_sum(logits, labels, allowed), model_state

    def loss_and_grad(state: TrainState, batch: Batch):
        images, labels = jnp.asarray(batch["image"]), jnp.asarray(batch["label"])
        size = labels.shape[0]
        # Random draws belong to the example, not to the device that holds it. Hosts take turns in the global order.
        hosts = jax.process_count()
        host, device = jnp.divmod(jax.lax.axis_index(DEVICE_AXIS), jax.lax.axis_size(DEVICE_AXIS) // hosts)
        examples = (device * size + jnp.arange(size)) * hosts + host
        step_key = jax.random.fold_in(seed_key, state.step)
        keys = jax.vmap(lambda example: jax.random.fold_in(step_key, example))(examples)
        labels, allowed = apply_label_space(
            config.loss.label_space, labels, anchors.shape[0], config.loss.num_absent, keys
        )
        total_valid = jnp.maximum(jax.lax.psum(count_valid(labels), DEVICE_AXIS), 1.0)

        def microbatch(carry, inputs):
            loss, grads, model_state = carry
            (new_loss, model_state), new_grads = jax.value_and_grad(loss_sum, has_aux=True)(
                state.params, model_state, *inputs
            )
            return (loss + new_loss, jax.tree.map(jnp.add, grads, new_grads), model_state), None

        carry = (jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params), state.model_state)
        inputs = (images, labels, allowed)
        if config.train.accumulate == 1:
            carry, _ = microbatch(carry, inputs)
        else:
            inputs = jax.tree.map(lambda x: x.reshape(config.train.accumulate, -1, *x.shape[1:]), inputs)
            carry, _ = jax.lax.scan(microbatch, carry, inputs)
        loss, grads, model_state = carry
        loss, grads = jax.lax.psum((loss, grads), DEVICE_AXIS)
        return loss / total_valid, jax.tree.map(lambda g: g / total_valid, grads), model_state

    return loss_and_grad


def make_train_step(
    graphdef: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    anchors: Float[Array, "K D"],
    config: ConfigDict,
    *,
    devices: Sequence[Any] | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, Metrics]]:
    """One step on all devices of all hosts, or on `devices`.

    The returned function takes the state as one copy (its buffers are donated) and a batch of this host's devices,
    `image` uint8 (local devices, b, S, S, 3) and `label` uint8 (local devices, b, S, S), see `shard_batch`.
    It returns the new state and scalar metrics.
    """
    loss_and_grad = make_loss_and_grad(graphdef, anchors, config)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        loss, grads, model_state = loss_and_grad(state, batch)
        if not config.train.sync_batchnorm:  # one state for all devices: the mean of their statistics
            model_state = jax.lax.pmean(model_state, DEVICE_AXIS)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        metrics = {
            "loss/align": loss,
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

    return map_over_devices(train_step, donate_state=True, devices=devices)


def map_over_devices(
    function: Callable, *, donate_state: bool = False, devices: Sequence[Any] | None = None
) -> Callable:
    """Map `function(state, batch)` over devices: state in and out as one copy, the batch split on its first axis.

    Args:
      donate_state: the state's buffers are the function's to overwrite.
      devices: by default all of this host; those of the other hosts join in.
    """
    return jax.pmap(
        function,
        axis_name=DEVICE_AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=(0,) if donate_state else (),
        devices=devices,
    )


def replicate(state: TrainState) -> TrainState:
    """Put the state on this host's devices the way the mapped step returns it, so that it is compiled once."""
    mesh = jax.sharding.Mesh(np.array(jax.local_devices()), (DEVICE_AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec()))


def shard_batch(batch: Batch, num_devices: int | None = None) -> Batch:
    """Lay this host's batch out over its devices: (B, ...) to (devices, B / devices, ...)."""
    num_devices = num_devices or jax.local_device_count()
    return {name: x.reshape(num_devices, -1, *x.shape[1:]) for name, x in batch.items()}
