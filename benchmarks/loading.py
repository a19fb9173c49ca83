"""Rate of decoding and augmentation, and the share of a training step that waits for it.

python -m benchmarks loading [--config.data.root=VOC2012] [--config.data.num_workers=8] [--steps 20] [--small]

Without data.root, JPEGs of VOC's usual size are drawn in memory. The share is measured as train.py logs it
(`data_wait_share`): time in which the next batch was not there yet, over all.
"""

import io
import itertools
import time
from collections.abc import Sequence
from typing import Any

import grain
import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

import data
from benchmarks.options import REPEATS, batches, setting
from benchmarks.report import publish
from benchmarks.training import NUM_ANCHORS, Training, random_batch
from data.codecs import encode_png
from data.datasets import Split
from data.loading import run_batches, training_batches

_STEPS = flags.DEFINE_integer("steps", 10, "Training steps, and batches, that are timed in a round", lower_bound=1)
_WIDTH, _HEIGHT = 500, 375  # of most of VOC's photographs
_NUM_PICTURES = 32


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = setting(arguments)
    rows = []
    for size in batches((6, 16)):
        config.data.batch_size = size
        rows.append(_row(config))
    publish(
        "loading",
        rows,
        encoder=config.model.encoder,
        side=config.data.crop,
        dtype=config.model.dtype,
        source=config.data.root or f"{_NUM_PICTURES} drawn JPEGs of {_WIDTH}x{_HEIGHT}",
        workers=config.data.num_workers,
        steps=_STEPS.value,
        rounds=REPEATS.value,
    )


def _row(config: ConfigDict) -> dict[str, Any]:
    """Rates of loading alone and of training alone, in turns; then of both together."""
    loader, training, batch = _loader(config), Training(config), random_batch(config)
    jax.block_until_ready(training.step(batch))
    next(loader)
    loaded, trained = [], []
    for _ in range(REPEATS.value):
        start = time.perf_counter()
        for _ in itertools.islice(loader, _STEPS.value):
            pass
        between = time.perf_counter()
        jax.block_until_ready([training.step(batch) for _ in range(_STEPS.value)][-1])
        loaded.append(between - start)
        trained.append(time.perf_counter() - between)
    images = config.data.batch_size * _STEPS.value
    return {
        "batch": config.data.batch_size,
        "loaded_images_per_second": images / float(np.median(loaded)),
        "trained_images_per_second": images / float(np.median(trained)),
        "ratio_of_rates": float(np.median(np.array(trained) / np.array(loaded))),
        "wait_share": _wait_share(loader, training, REPEATS.value * _STEPS.value),
    }


def _wait_share(loader: grain.DatasetIterator, training: Training, steps: int) -> float:
    metrics, waited, start = None, 0.0, time.perf_counter()
    for _ in range(steps):
        waiting_since = time.perf_counter()
        batch = next(loader)
        waited += time.perf_counter() - waiting_since
        metrics = training.step(batch)  # not waited for, as in training
    jax.block_until_ready(metrics)
    return waited / (time.perf_counter() - start)


def _loader(config: ConfigDict) -> grain.DatasetIterator:
    if config.data.root:
        dataset = data.load(config.data, splits=("train",))
        indices = dataset.train_indices(config.data.fold, config.loss.unseen_pixels, config.data.exclude)
        return run_batches(config, dataset, indices)
    pictures = [_picture(number) for number in range(_NUM_PICTURES)]
    split = Split(pictures, tuple(picture["image_id"] for picture in pictures), (), {})
    lookup = np.arange(256, dtype=np.uint8)
    return training_batches(split, range(_NUM_PICTURES), lookup, config.data, seed=config.train.seed)


def _picture(number: int) -> dict[str, Any]:
    """A record of coloured blotches with grain, about as many bytes as a photograph, and a label map."""
    random = np.random.default_rng(number)

    def blotches(values: np.ndarray, resampling: Image.Resampling) -> np.ndarray:
        return np.asarray(Image.fromarray(values).resize((_WIDTH, _HEIGHT), resampling))

    colors = blotches(random.integers(0, 256, (12, 16, 3), dtype=np.uint8), Image.Resampling.BICUBIC)
    pixels = np.clip(colors + random.normal(0, 12, colors.shape), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="jpeg", quality=85)
    label = blotches(random.integers(0, NUM_ANCHORS, (4, 5), dtype=np.uint8), Image.Resampling.NEAREST)
    return {"image": buffer.getvalue(), "label": encode_png(label), "image_id": f"drawn_{number}"}
