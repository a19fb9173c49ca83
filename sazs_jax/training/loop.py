"""The training loop: from a task and its data to checkpoints in a work directory."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import grain
import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.training.checkpoints import Checkpoints, StoredAnchors
from sazs_jax.training.optimizer import learning_rate_schedule, make_optimizer
from sazs_jax.training.run_config import claim_workdir
from sazs_jax.training.state import create_state, merge_model
from sazs_jax.training.step import make_train_step, replicate, shard_batch
from sazs_jax.training.task import Task
from sazs_jax.training.tensorboard import TensorBoard

_PROFILED_STEPS = 5


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    task: Task,
    *,
    batches: grain.DatasetIterator,
    evaluate: Callable[[Any], Mapping[str, float | None]] | None,
    anchors: StoredAnchors | None = None,
) -> None:
    """Train to `config.train.num_steps`, from the last complete checkpoint of `workdir` if it has one.

    A run that is killed and started again goes on with the same data and random numbers and reaches the same losses.
    A checkpoint is written while the next step runs, so at most one save interval is lost.

    Args:
      batches: this host's part of each batch, as the task takes them.
      evaluate: scores a model on data that is not trained on; the first score, the higher the better, chooses the best
        checkpoint. None where there is no such data.
      anchors: written into each checkpoint.

    Raises:
      UserError: a setting that cannot work, a work directory that holds another run, a loss that is not finite.
    """
    _check_settings(config)

    # ---- model, optimizer, step ----
    model = task.build(jax.random.key(config.train.seed, impl="rbg"))  # compiles in less than half of the time
    optimizer = make_optimizer(config.optimizer, config.train.num_steps, freeze_encoder=config.model.freeze_encoder)
    learning_rate = learning_rate_schedule(config.optimizer, config.train.num_steps)
    graphdef, state = create_state(model, optimizer)
    train_step = make_train_step(graphdef, optimizer, task, config.train)

    # ---- checkpoints ----
    claim_workdir(workdir, config)
    checkpoints = Checkpoints(workdir, anchors)
    start = checkpoints.latest_step()
    if start is None:
        start = 0
        if config.train.num_steps == 0:
            checkpoints.save(state, batches, None, step=0)
    else:
        state = checkpoints.restore(state, batches, step=start)
        if jax.process_index() == 0:
            print(f"resumed from step {start} of {workdir}")
    state = replicate(state)

    # ---- loop ----
    tensorboard = TensorBoard(workdir, start)
    steps = tqdm.tqdm(
        range(start + 1, config.train.num_steps + 1),
        initial=start,
        total=config.train.num_steps,
        disable=jax.process_index() > 0,
        mininterval=1.0,
    )
    saving = profiling = False
    logged_at, logged_step, waited = time.monotonic(), start, 0.0
    for step in steps:
        if step == config.train.profile:
            jax.profiler.start_trace(os.fspath(workdir))
            profiling = True
        waiting_since = time.monotonic()
        host_batch = next(batches)
        waited += time.monotonic() - waiting_since
        state, metrics = train_step(state, shard_batch(host_batch))
        if saving:  # the write overlaps one step, no more
            checkpoints.wait()
            saving = False

        last = step == config.train.num_steps
        evaluates = evaluate is not None and (last or step % config.train.eval_every == 0)
        saves = last or evaluates or step % config.train.save_every == 0
        if saves or step % config.train.log_every == 0 or step == start + 1:
            values = {name: float(value) for name, value in metrics.items()}
            _check_finite(values["loss/total"], step)
            now = time.monotonic()
            values["learning_rate"] = float(jax.numpy.asarray(learning_rate(step - 1)))
            values["images_per_second"] = config.data.batch_size * (step - logged_step) / (now - logged_at)
            values["data_wait_share"] = waited / (now - logged_at)
            tensorboard.scalars(values, step)
            steps.set_postfix_str(f"loss {values['loss/total']:.4f}", refresh=False)
            logged_at, logged_step, waited = now, step, 0.0
        if step % config.train.image_every == 0:
            for name, picture in task.pictures(merge_model(graphdef, state), host_batch).items():
                tensorboard.image(name, picture, step)
        score = None
        if evaluate is not None and evaluates:
            scores = evaluate(merge_model(graphdef, state))
            score = next(iter(scores.values()))
            known = {name: value for name, value in scores.items() if value is not None}
            tensorboard.scalars({f"selection/{name}": value for name, value in known.items()}, step)
            if jax.process_index() == 0:
                listed = ", ".join(f"{name} {value:.4f}" for name, value in known.items())
                steps.write(f"step {step}: loss {float(metrics['loss/total']):.4f}; selection {listed}")
        if saves:
            tensorboard.flush()
            checkpoints.save(state, batches, score, step=step)
            saving = True
        if profiling and (last or step == config.train.profile + _PROFILED_STEPS - 1):
            jax.block_until_ready(state)
            jax.profiler.stop_trace()
            profiling = False
        if evaluates or step % config.train.image_every == 0:
            logged_at, logged_step, waited = time.monotonic(), step, 0.0  # the rates are of training alone
    checkpoints.close()
    tensorboard.close()


def _check_settings(config: ConfigDict) -> None:
    for name in ("num_steps", "seed"):
        if config.train[name] < 0:
            raise UserError(f"train.{name}={config.train[name]} must be at least 0")
    for name in ("accumulate", "log_every", "image_every", "eval_every", "save_every"):
        if config.train[name] < 1:
            raise UserError(f"train.{name}={config.train[name]} must be at least 1; give a large number for never")
    devices, accumulate = jax.device_count(), config.train.accumulate
    if config.data.batch_size % (devices * accumulate):
        raise UserError(
            f"data.batch_size={config.data.batch_size} must be a multiple of "
            f"{devices} device(s) times train.accumulate={accumulate}"
        )


def _check_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step}; lower optimizer.learning_rate, or use model.dtype=float32, "
            "and start again from the last checkpoint"
        )
