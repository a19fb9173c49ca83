"""Time from pixels to label maps, without fusion and with it, beside the same network in PyTorch.

python -m benchmarks inference [--config configs/pascal_fold1.py] [--batch 1 --batch 16] [--words 20] [--small]

Images are of data.crop pixels a side. The rule is eval.fusion, or agreement+diffusion where that is none, with
eigenvectors of spectral.features computed within the time by each solver. Weights are random, DINO's too.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.operations import network_flops
from benchmarks.options import PEER, REPEATS, batches, setting
from benchmarks.peers import peers
from benchmarks.prediction import prediction
from benchmarks.random_dino import eigensegmenter
from benchmarks.report import publish
from benchmarks.timing import LargeProduct, interleaved, ratio
from benchmarks.training import random_anchors, random_batch
from sazs_jax.inference import Network
from sazs_jax.models.sazs import build_model
from sazs_jax.spectral.eigen import SOLVERS
from sazs_jax.spectral.fusion import FusionSettings

_WORDS = flags.DEFINE_integer("words", 20, "Labels that are asked for at once", lower_bound=2)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = setting(arguments)
    if config.eval.fusion == "none":
        config.eval.fusion = "agreement+diffusion"
    model = nnx.jit(lambda: build_model(config, rngs=nnx.Rngs(0)))()
    flops = network_flops(config, config.data.crop)
    network = Network(model)
    rows = []
    for size in batches((1, 6, 16)):
        config.data.batch_size = size
        rows.append(_row(config, network, flops * size / jax.local_device_count()))
    publish(
        "inference",
        rows,
        encoder=config.model.encoder,
        side=config.data.crop,
        dtype=config.model.dtype,
        words=_WORDS.value,
        fusion=config.eval.fusion,
        features=config.spectral.features,
        nodes=config.spectral.grid**2,
        rounds=REPEATS.value,
    )


def _row(config: ConfigDict, network: Network, flops: float) -> dict[str, Any]:
    """One batch size, for which the network does `flops` operations on each device."""
    pixels, product = random_batch(config)["image"], LargeProduct(config.model.dtype)
    anchors = random_anchors(_WORDS.value, config.model.embedding_dim)
    runs: dict[str, Callable[[], Any]] = {
        "jax": prediction(network, pixels, anchors),
        "product": product.run,
    }
    settings = FusionSettings.of_config(config.spectral)
    for solver in SOLVERS:
        segmenter = eigensegmenter(config.spectral, solver)
        runs[f"fused_{solver}"] = prediction(
            network, pixels, anchors, rule=config.eval.fusion, settings=settings, segmenter=segmenter
        )
    others, absent = peers(config, training=False, wanted=PEER.value)
    runs |= {name: lambda peer=peer: peer.predict(pixels, anchors) for name, peer in others.items()}
    times = interleaved(runs, REPEATS.value, settle=product.run)
    seconds = float(np.median(times["jax"]))
    return {
        "batch": config.data.batch_size,
        "milliseconds": 1000 * seconds,
        "images_per_second": config.data.batch_size / seconds,
        "peak_teraflops": product.teraflops(times),
        "share_of_peak": product.share(times, "jax", flops),
        **{f"ratio_{name}": ratio(times, name, "jax") for name in runs if name not in ("jax", "product")},
        **({"peer": absent} if absent else {}),
    }
