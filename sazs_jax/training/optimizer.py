"""Optax optimizer and learning-rate schedule of a config."""

import jax
import optax
from ml_collections import ConfigDict

from sazs_jax.errors import UserError


def learning_rate_schedule(config: ConfigDict, num_steps: int) -> optax.Schedule:
    """The encoder's learning rate by step.

    `polynomial` (paper 4.2): linear warm-up, then (1 - t) ** power down to 0 at `num_steps`.
    `one_cycle`: cosine up to the peak over the warm-up, cosine down to nearly 0.
    """
    num_steps = max(num_steps, 1)
    warmup = round(config.warmup * num_steps)
    if config.schedule == "polynomial":
        decay = optax.polynomial_schedule(config.learning_rate, 0.0, config.power, max(num_steps - warmup, 1))
        if not warmup:
            return decay
        return optax.join_schedules([optax.linear_schedule(0.0, config.learning_rate, warmup), decay], [warmup])
    if config.schedule == "one_cycle":
        return optax.cosine_onecycle_schedule(num_steps, config.learning_rate, pct_start=config.warmup)
    raise UserError(f"optimizer.schedule={config.schedule!r} is unknown; choose polynomial or one_cycle")


def make_optimizer(config: ConfigDict, num_steps: int, *, freeze_encoder: bool) -> optax.GradientTransformation:
    """SGD with momentum or AdamW: one rate for the encoder, a multiple of it for all that is new.

    Weight decay acts on kernels only. A frozen encoder's parameters get no update and no optimizer state.
    """
    schedule = learning_rate_schedule(config, num_steps)

    def group(multiplier: float) -> optax.GradientTransformation:
        def rate(step):
            return multiplier * schedule(step)

        if config.name == "sgd":
            return optax.chain(
                optax.add_decayed_weights(config.weight_decay, mask=_kernels),
                optax.sgd(rate, momentum=config.momentum),
            )
        if config.name == "adamw":
            return optax.adamw(rate, weight_decay=config.weight_decay, mask=_kernels)
        raise UserError(f"optimizer.name={config.name!r} is unknown; choose sgd or adamw")

    by_part = optax.partition(
        {
            "encoder": optax.set_to_zero() if freeze_encoder else group(1.0),
            "decoder": group(config.decoder_multiplier),
        },
        lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: "encoder" if _names(path)[0] == "encoder" else "decoder", params
        ),
    )
    if config.clip_norm:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), by_part)
    return by_part


def _kernels(params):
    return jax.tree_util.tree_map_with_path(lambda path, _: "kernel" in _names(path), params)


def _names(path) -> list[str]:
    return [str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", "")))) for key in path]
