"""Time of a training step, beside the same network in PyTorch, eager and compiled, at the same batch.

python -m benchmarks train_step [--config configs/pascal_fold1.py:drn] [--batch 6 --batch 16] [--small] [--out FILE]

Images and labels go from the host to the device within the step. Only the ViTs have a peer.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from benchmarks.operations import program_flops
from benchmarks.options import PEER, REPEATS, batches, setting
from benchmarks.peers import peers
from benchmarks.report import publish
from benchmarks.timing import LargeProduct, interleaved, ratio
from benchmarks.training import Training, random_batch


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = setting(arguments)
    steps = 1 if jax.default_backend() == "cpu" else 10  # dispatched one after the other, as in training
    rows = []
    for size in batches((6, 16)):
        config.data.batch_size = size
        rows.append(_row(config, steps))
    publish(
        "train_step",
        rows,
        encoder=config.model.encoder,
        side=config.data.crop,
        dtype=config.model.dtype,
        steps_a_round=steps,
        rounds=REPEATS.value,
    )


def _row(config: ConfigDict, steps: int) -> dict[str, Any]:
    batch, product = random_batch(config), LargeProduct(config.model.dtype)
    training = Training(config)
    others, absent = peers(config, training=True, wanted=PEER.value)
    runs: dict[str, Callable[[], Any]] = {"jax": lambda: [training.step(batch) for _ in range(steps)][-1]}
    runs["product"] = product.run
    runs |= {name: lambda peer=peer: peer.train(batch, steps) for name, peer in others.items()}
    times = interleaved(runs, REPEATS.value, settle=product.run)
    seconds = float(np.median(times["jax"])) / steps
    operations = program_flops("train", config)
    return {
        "batch": config.data.batch_size,
        "milliseconds": 1000 * seconds,
        "images_per_second": config.data.batch_size / seconds,
        "gigaflops_a_device": operations / 1e9,
        "peak_teraflops": product.teraflops(times),
        "share_of_peak": product.share(times, "jax", steps * operations),
        **{f"ratio_{name}": ratio(times, name, "jax") for name in others},
        **({"peer": absent} if absent else {}),
    }
