"""Time of the dense and the partial eigensolver over nodes and batch, beside SciPy's eigsh on the CPU.

python -m benchmarks eigensolvers [--nodes 900 ...] [--batch 1 --batch 8] [--small] [--out FILE]

Affinities are Eq. 4 of smooth random features on a square grid. `error` is the largest difference between an
eigenvalue of the partial solver and SciPy's.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from benchmarks.eigsh import largest, shift_invert
from benchmarks.options import REPEATS, SMALL, batches, setting
from benchmarks.report import publish
from benchmarks.timing import interleaved, ratio
from sazs_jax.errors import UserError
from sazs_jax.spectral.affinity import SELF_AFFINITY, semantic_affinity
from sazs_jax.spectral.eigen import SOLVERS, laplacian_eigenvectors
from sazs_jax.spectral.fusion import FusionSettings

_NODES = flags.DEFINE_multi_integer("nodes", None, "Nodes of the graph, a square number", lower_bound=16)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    count = FusionSettings.of_config(setting(arguments).spectral).num_vectors
    nodes = _NODES.value or ((400, 900) if SMALL.value else (400, 900, 1600, 2500, 3600))
    if bad := [number for number in nodes if round(number**0.5) ** 2 != number]:
        raise UserError(f"--nodes={bad[0]}: expected a square number, as of a grid of cells")
    rows = [_row(round(number**0.5), size, count) for number in nodes for size in batches((1, 8))]
    publish("eigensolvers", rows, vectors=count, rounds=REPEATS.value)


def random_affinities(grid: int, batch: int) -> jax.Array:
    """Affinities (batch, grid * grid, grid * grid) of 64 features that change smoothly over the image."""
    coarse = jax.random.normal(jax.random.key(0), (batch, 6, 6, 64))
    smooth = jax.image.resize(coarse, (batch, grid, grid, 64), "cubic")
    z = semantic_affinity((smooth + 0.3 * jax.random.normal(jax.random.key(1), smooth.shape)).reshape(batch, -1, 64))
    return z + SELF_AFFINITY * jnp.eye(grid * grid)


def _row(grid: int, batch: int, count: int) -> dict[str, Any]:
    z = random_affinities(grid, batch)
    host = np.asarray(z)
    runs: dict[str, Callable[[], Any]] = {
        solver: lambda solver=solver: laplacian_eigenvectors(z, count=count, solver=solver).vectors
        for solver in SOLVERS
    }
    runs["eigsh"] = lambda: [largest(graph, count) for graph in host]
    runs["eigsh_shift_invert"] = lambda: [shift_invert(graph, count) for graph in host]
    times = interleaved(runs, REPEATS.value)
    found = np.asarray(laplacian_eigenvectors(z, count=count, solver="subspace").values)
    return {
        "nodes": grid * grid,
        "batch": batch,
        "subspace_milliseconds": 1000 * float(np.median(times["subspace"])),
        **{f"ratio_{name}": ratio(times, name, "subspace") for name in runs if name != "subspace"},
        "error": float(max(np.abs(found[i] - largest(graph, count)).max() for i, graph in enumerate(host))),
    }
