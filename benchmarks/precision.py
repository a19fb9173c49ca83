"""Losses of a run in bfloat16, step by step, beside those of the plain float32 program.

python -m benchmarks precision [--config configs/pascal_fold1.py] [--steps 50] [--small] [--out FILE]

Both start from the same random weights and see the same scenes of the synthetic set, scaled to data.crop. The plain
program computes in float32, at the highest precision of matrix products. `difference` is at one step, relative;
rounding grows from step to step, so what is to stay within 1% is the mean over all of them.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from PIL import Image

from benchmarks.options import BATCH, setting
from benchmarks.report import publish
from benchmarks.training import Training
from data.shapes import CLASS_NAMES, draw_scene

_STEPS = flags.DEFINE_integer("steps", 50, "Training steps", lower_bound=1)
_EVERY = 10  # steps from one row to the next


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = setting(arguments)
    if BATCH.value:
        config.data.batch_size = BATCH.value[0]
    fast = _losses(config, "bfloat16")
    with jax.default_matmul_precision("highest"):
        plain = _losses(config, "float32")
    difference = np.abs(fast - plain) / plain
    steps = sorted({*range(_EVERY - 1, _STEPS.value, _EVERY), _STEPS.value - 1})
    rows: list[dict[str, Any]] = [
        {
            "step": step + 1,
            "float32_loss": float(plain[step]),
            "bfloat16_loss": float(fast[step]),
            "difference": float(difference[step]),
        }
        for step in steps
    ]
    publish(
        "precision",
        rows,
        encoder=config.model.encoder,
        side=config.data.crop,
        batch=config.data.batch_size,
        seed=config.train.seed,
        largest_difference=float(difference.max()),
        difference_of_means=float(abs(fast.mean() - plain.mean()) / plain.mean()),
    )


def _losses(config: ConfigDict, dtype: str) -> np.ndarray:
    """Loss of each step."""
    config = config.copy_and_resolve_references()
    config.model.dtype = dtype
    training = Training(config, num_anchors=1 + len(CLASS_NAMES))
    random = np.random.default_rng(config.train.seed)
    return np.array([float(training.step(_scenes(config, random))["loss/total"]) for _ in range(_STEPS.value)])


def _scenes(config: ConfigDict, random: np.random.Generator) -> dict[str, np.ndarray]:
    size = (config.data.crop, config.data.crop)
    scenes = [draw_scene(random) for _ in range(config.data.batch_size)]
    images = [Image.fromarray(image).resize(size, Image.Resampling.BILINEAR) for image, _ in scenes]
    labels = [Image.fromarray(label).resize(size, Image.Resampling.NEAREST) for _, label in scenes]
    return {"image": np.stack([np.asarray(x) for x in images]), "label": np.stack([np.asarray(x) for x in labels])}
