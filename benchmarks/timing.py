"""Wall-clock time of programs, taken in turns so that what else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Times = dict[str, list[float]]  # name -> seconds, one a round


def interleaved(runs: Mapping[str, Callable[[], Any]], repeats: int, settle: Callable[[], Any] | None = None) -> Times:
    """Seconds of every run in each of `repeats` rounds, after one call of each that compiles.

    Args:
      runs: name -> function. JAX arrays that it returns are waited for; a function of another library waits itself.
      repeats: rounds.
      settle: called before each run and not timed. What a training step leaves to be freed would fall on the next run:
        on a CPU a short one took three times as long.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    times: Times = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            if settle:
                jax.block_until_ready(settle())
            start = time.perf_counter()
            jax.block_until_ready(run())
            times[name].append(time.perf_counter() - start)
    return times


def median_seconds(run: Callable[[], Any], repeats: int) -> float:
    """Median of `interleaved` for one function."""
    return float(np.median(interleaved({"run": run}, repeats)["run"]))


def ratio(times: Times, name: str, over: str) -> float:
    """How many times as long `name` takes as `over`: the median over rounds, each of which saw the same machine."""
    return float(np.median(np.array(times[name]) / np.array(times[over])))


class LargeProduct:
    """A matrix product that keeps one device busy: timed in the same rounds, it tells the peak that can be had then."""

    def __init__(self, dtype: str):
        side = 1536 if jax.default_backend() == "cpu" else 8192
        x = jnp.ones((side, side), dtype)
        product = jax.jit(lambda x: x @ x)
        self.flops = 2.0 * side**3  # a multiply-add is two
        self.run = lambda: product(x)

    def share(self, times: Times, name: str, flops: float) -> float:
        """Share of the peak at which `name` does its `flops`; this product's times are those of "product"."""
        floor = np.array(times["product"]) * flops / self.flops
        return float(np.median(floor / np.array(times[name])))

    def teraflops(self, times: Times) -> float:
        """The peak, in 10^12 operations a second on one device."""
        return self.flops / float(np.median(times["product"])) / 1e12
