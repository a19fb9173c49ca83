"""Cost against size: image side, batch, number of words, nodes of the graph.

python -m benchmarks sizes [--config configs/pascal_fold1.py] [--small] [--out FILE]

Every row tells its time and its operations over those of the first row of its table. Time that grows no faster than
the operations has a `growth_over_operations` of at most 1, or near it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.eigensolvers import random_affinities
from benchmarks.operations import network_flops
from benchmarks.options import BATCH, REPEATS, SMALL, setting
from benchmarks.prediction import prediction
from benchmarks.report import publish
from benchmarks.timing import interleaved, ratio
from benchmarks.training import random_anchors
from sazs_jax.errors import UserError
from sazs_jax.inference import Network
from sazs_jax.models.sazs import SAZS, build_model
from sazs_jax.spectral.eigen import GUARD, ROUNDS, SOLVERS, laplacian_eigenvectors
from sazs_jax.spectral.fusion import FusionSettings

_SIDES = flags.DEFINE_multi_integer("sides", [224, 320, 480, 640], "Image sides", lower_bound=32)
_WORDS = flags.DEFINE_multi_integer("words", [2, 20, 150, 1200], "Numbers of labels", lower_bound=2)
_GRIDS = flags.DEFINE_multi_integer("grids", [20, 30, 40, 50, 60], "Sides of the graph's grid", lower_bound=4)

_UPSAMPLING = 6  # operations on one logit of the label map: two linear steps of two products and a sum
Case = tuple[int, Callable[[], Any], float]  # size, what is timed, its operations


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    config = setting(arguments)
    model = nnx.jit(lambda: build_model(config, rngs=nnx.Rngs(0)))()
    if bad := [side for side in _SIDES.value if side % model.size_multiple]:
        raise UserError(f"--sides={bad[0]}: expected a multiple of {model.size_multiple}")
    rows = []
    for name, cases in _cases(config, model):
        rows += _rows(name, cases)
    publish("sizes", rows, encoder=config.model.encoder, dtype=config.model.dtype, rounds=REPEATS.value)


def _cases(config: ConfigDict, model: SAZS) -> Iterator[tuple[str, list[Case]]]:
    """Each table's name and cases; one size changes, the others stay."""
    network = Network(model)
    side = config.data.crop
    sizes = BATCH.value or ([1, 2, 4] if SMALL.value else [1, 2, 4, 8, 16])

    def case(size: int, batch: int, side: int, words: int) -> Case:
        pixels = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        anchors = random_anchors(words, config.model.embedding_dim)
        grid = jax.eval_shape(network.embed, pixels).shape[1:3]
        cosine = 2 * grid[0] * grid[1] * config.model.embedding_dim * words
        operations = batch * (network_flops(config, side) + cosine + _UPSAMPLING * side * side * words)
        return size, prediction(network, pixels, anchors), operations

    yield "side", [case(number, 1, number, 20) for number in _SIDES.value]
    yield "batch", [case(number, number, side, 20) for number in sizes]
    yield "words", [case(number, 1, side, number) for number in _WORDS.value]
    count = FusionSettings.of_config(config.spectral).num_vectors
    for solver in SOLVERS:
        yield f"nodes, {solver}", [_eigenproblem(grid, count, solver) for grid in _GRIDS.value]


def _eigenproblem(grid: int, count: int, solver: str) -> Case:
    """Operations grow with N^3 of the dense solver; of the partial one they are its products with S."""
    nodes, z = grid * grid, random_affinities(grid, 1)
    operations = nodes**3 if solver == "eigh" else 2 * 2 * ROUNDS * nodes**2 * (count + GUARD)
    return nodes, lambda: laplacian_eigenvectors(z, count=count, solver=solver).vectors, float(operations)


def _rows(name: str, cases: Sequence[Case]) -> list[dict[str, Any]]:
    times = interleaved({str(size): run for size, run, _ in cases}, REPEATS.value)
    first, _, least = cases[0]
    rows = []
    for size, _, operations in cases:
        growth = ratio(times, str(size), str(first))
        rows.append(
            {
                "table": name,
                "size": size,
                "milliseconds": 1000 * float(np.median(times[str(size)])),
                "time_growth": growth,
                "operations_growth": operations / least,
                "growth_over_operations": growth / (operations / least),
            }
        )
    return rows
