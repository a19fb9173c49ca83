"""The training loop: from a config and its data to checkpoints in a work directory."""

import os
import time
from collections.abc import Callable, Mapping, Sequence

import grain
import jax
import numpy as np
import tqdm
from flax import nnx
from ml_collections import ConfigDict

from sazs_jax import visualization
from sazs_jax.errors import UserError
from sazs_jax.losses import VOID
from sazs_jax.models.efficientnet import EfficientNetLite0
from sazs_jax.models.sazs import DEVICE_AXIS, SAZS, build_model, cosine_logits
from sazs_jax.pretrained.efficientnet_lite0 import load_imagenet_weights
from sazs_jax.training.checkpoints import SELECTION_METRIC, Checkpoints, StoredAnchors, claim_workdir
from sazs_jax.training.optimizer import learning_rate_schedule, make_optimizer
from sazs_jax.training.state import create_state, merge_model
from sazs_jax.training.step import make_train_step, replicate, shard_batch
from sazs_jax.training.tensorboard import TensorBoard

_PROFILED_STEPS = 5
_OVERLAYS = 4


def train(
    config: ConfigDict,
    workdir: str | os.PathLike,
    *,
    anchors: StoredAnchors,
    seen: Sequence[int],
    batches: grain.DatasetIterator,
    evaluate_selection: Callable[[SAZS], Mapping[str, float | None]] | None,
) -> None:
    """Train to `config.train.num_steps`, from the last complete checkpoint of `workdir` if it has one.

    A run that is killed and started again goes on with the same data and random numbers and reaches the same losses.
    A checkpoint is written while the next step runs, so at most one save interval is lost.

    Args:
      anchors: of `others` and of every class; written into each checkpoint.
      seen: the 0-based classes to train on, in the order of the remapped labels 1..S.
      batches: this host's part of each batch, {"image": uint8 (b, S, S, 3), "label": uint8 (b, S, S)}, remapped.
      evaluate_selection: scores a model on the selection images; `miou` chooses the best checkpoint.

    Raises:
      UserError: a setting that cannot work, a work directory that holds another run, a loss that is not finite.
    """
    _check_settings(config)
    if anchors.embeddings.shape[1] != config.model.embedding_dim:
        raise UserError(
            f"the text anchors have {anchors.embeddings.shape[1]} dimensions; "
            f"set model.embedding_dim to that (it is {config.model.embedding_dim})"
        )

    # ---- model, optimizer, step ----
    model = build_model(
        config.model,
        rngs=nnx.Rngs(jax.random.key(config.train.seed, impl="rbg")),  # compiles in less than half of the time
        batchnorm_axis=DEVICE_AXIS if config.train.sync_batchnorm else None,
    )
    if config.data.crop % model.size_multiple:
        raise UserError(f"data.crop={config.data.crop} must be a multiple of {model.size_multiple} for this encoder")
    _load_pretrained(model, config.model)
    optimizer = make_optimizer(config.optimizer, config.train.num_steps, freeze_encoder=config.model.freeze_encoder)
    learning_rate = learning_rate_schedule(config.optimizer, config.train.num_steps)
    graphdef, state = create_state(model, optimizer)
    seen_rows = [0, *(1 + c for c in seen)]
    seen_anchors = jax.numpy.asarray(anchors.embeddings[seen_rows], jax.numpy.float32)
    train_step = make_train_step(graphdef, optimizer, seen_anchors, config)

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
        evaluates = evaluate_selection is not None and (last or step % config.train.eval_every == 0)
        saves = last or evaluates or step % config.train.save_every == 0
        if saves or step % config.train.log_every == 0 or step == start + 1:
            values = {name: float(value) for name, value in metrics.items()}
            _check_finite(values["loss/align"], step)
            now = time.monotonic()
            values["learning_rate"] = float(jax.numpy.asarray(learning_rate(step - 1)))
            values["images_per_second"] = config.data.batch_size * (step - logged_step) / (now - logged_at)
            values["data_wait_share"] = waited / (now - logged_at)
            tensorboard.scalars(values, step)
            steps.set_postfix_str(f"loss {values['loss/align']:.4f}", refresh=False)
            logged_at, logged_step, waited = now, step, 0.0
        if step % config.train.image_every == 0:
            overlays = _overlays(merge_model(graphdef, state), host_batch, seen_anchors)
            tensorboard.image("train/overlays", overlays, step)
        scores = None
        if evaluate_selection is not None and evaluates:
            scores = {k: v for k, v in evaluate_selection(merge_model(graphdef, state)).items() if v is not None}
            scores = scores if SELECTION_METRIC in scores else None
        if scores is not None:
            tensorboard.scalars({f"selection/{name}": value for name, value in scores.items()}, step)
            if jax.process_index() == 0:
                score = scores[SELECTION_METRIC]
                steps.write(f"step {step}: loss {float(metrics['loss/align']):.4f}, selection miou {score:.4f}")
        if saves:
            tensorboard.flush()
            checkpoints.save(state, batches, scores, step=step)
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
    for name in ("accumulate", "log_every", "image_every", "eval_every", "save_every"):
        if config.train[name] < 1:
            raise UserError(f"train.{name}={config.train[name]} must be at least 1; give a large number for never")
    devices, accumulate = jax.device_count(), config.train.accumulate
    if config.data.batch_size % (devices * accumulate):
        raise UserError(
            f"data.batch_size={config.data.batch_size} must be a multiple of "
            f"{devices} device(s) times train.accumulate={accumulate}"
        )


def _load_pretrained(model: SAZS, config: ConfigDict) -> None:
    if not config.pretrained:
        return
    if not isinstance(model.encoder, EfficientNetLite0) or config.pretrained != "package":
        raise UserError(
            f"model.pretrained={config.pretrained!r} does not go with model.encoder={config.encoder!r}; "
            "'package' goes with efficientnet_lite0, '' (random weights) with every encoder"
        )
    load_imagenet_weights(model.encoder)


def _check_finite(loss: float, step: int) -> None:
    if not np.isfinite(loss):
        raise UserError(
            f"the loss is {loss} at step {step}; lower optimizer.learning_rate, or use model.dtype=float32, "
            "and start again from the last checkpoint"
        )


def _overlays(model: SAZS, batch: Mapping[str, np.ndarray], anchors: jax.Array) -> np.ndarray:
    """A row an image: the crop, the truth over it, the prediction over it."""
    images, labels = batch["image"][:_OVERLAYS], batch["label"][:_OVERLAYS]
    logits = _logits(model, jax.numpy.asarray(images), anchors)
    logits = jax.image.resize(logits, (*labels.shape, logits.shape[-1]), "bilinear")
    predictions = np.asarray(jax.numpy.argmax(logits, axis=-1)).astype(np.uint8)
    predictions = np.where(labels == VOID, VOID, predictions)
    return visualization.sheet(
        [
            [
                ("image", image),
                ("truth", visualization.overlay(image, label)),
                ("prediction", visualization.overlay(image, prediction)),
            ]
            for image, label, prediction in zip(images, labels, predictions, strict=True)
        ]
    )


@nnx.jit
def _logits(model: SAZS, images: jax.Array, anchors: jax.Array) -> jax.Array:
    return cosine_logits(model(images), anchors)
