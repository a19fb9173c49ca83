"""Time of the whole spectral step, pixels to eigenvectors, beside DINO in PyTorch and SciPy's eigsh.

python -m benchmarks spectral [--batch 1 --batch 8] [--small] [--config.spectral.grid=30] [--out FILE]

Both sides run a DINO S/16 with random weights on images of data.crop pixels a side and take Eq. 4 of its keys.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks.eigsh import largest
from benchmarks.options import PEER, REPEATS, batches, setting
from benchmarks.peers import missing
from benchmarks.random_dino import ENCODER, eigensegmenter
from benchmarks.report import publish
from benchmarks.timing import interleaved, ratio
from benchmarks.training import random_batch
from sazs_jax.spectral.affinity import SELF_AFFINITY
from sazs_jax.spectral.eigen import SOLVERS


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = setting(arguments)
    config.spectral.features, config.spectral.color_weight = "dino", 0.0
    rows = []
    for size in batches((1, 8)):
        config.data.batch_size = size
        rows.append(_row(config))
    publish("spectral", rows, features=ENCODER, nodes=config.spectral.grid**2, rounds=REPEATS.value)


def _row(config: ConfigDict) -> dict[str, Any]:
    pixels = random_batch(config)["image"]
    runs: dict[str, Callable[[], Any]] = {}
    for solver in SOLVERS:
        segmenter = eigensegmenter(config.spectral, solver)
        runs[solver] = lambda segmenter=segmenter: segmenter(pixels, None).vectors
        count = segmenter.settings.num_vectors
    if (absent := missing(PEER.value)) is None:
        from benchmarks.torch_peer import Dino

        dino = Dino(ENCODER, config.spectral.grid)
        runs["torch_eigsh"] = lambda: [largest(_affinity(keys), count) for keys in dino.keys(pixels)]
    times = interleaved(runs, REPEATS.value)
    return {
        "batch": len(pixels),
        "subspace_milliseconds": 1000 * float(np.median(times["subspace"])),
        **{f"ratio_{name}": ratio(times, name, "subspace") for name in runs if name != "subspace"},
        **({"peer": absent} if absent else {}),
    }


def _affinity(keys: np.ndarray) -> np.ndarray:
    """Eq. 4 of the features (N, C) of one image, in NumPy."""
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    return np.maximum(unit @ unit.T, 0) + SELF_AFFINITY * np.eye(len(unit), dtype=unit.dtype)
