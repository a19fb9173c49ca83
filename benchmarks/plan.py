"""What XLA plans for a GPU that need not be there: memory, traffic, and the lines of source that cost most.

JAX_PLATFORMS=cpu python -m benchmarks plan [--chip h100] [--task train --task predict --task decompose] [--batch 16]

Programs are compiled for the chip, not run, so nothing is measured. `floor_milliseconds` adds up what each kernel takes
at the peaks of the chip's data sheet: the larger of its bytes over the bandwidth, if all of them come from memory, and
its operations over the dense bfloat16 peak, whatever type it computes in. Products, convolutions and attention count as
operations, what eigensolvers and Cholesky factors do inside does not. Without --chip it is this machine's own plan,
without floors. `decompose` is the spectral step with `spectral.solver`, pixels to eigenvectors; DINO, if it is asked
for, is S/16 in `spectral.dtype`.

Compiling for an absent GPU needs `pip install 'jax[cuda12]'`. XLA chooses kernels by trying them; here it cannot, so
products are left to cuBLAS.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

import sazs_jax
from benchmarks.chips import CHIPS, Chip, compile_only_device
from benchmarks.kernels import Kernel, by_source, kernels
from benchmarks.options import batches, setting
from benchmarks.programs import PROGRAMS, compiled
from benchmarks.report import publish

_CHIP = flags.DEFINE_enum("chip", None, sorted(CHIPS), "Compile for this GPU; by default for this machine's device")
_TASKS = flags.DEFINE_multi_enum("task", ["train", "predict"], PROGRAMS, "What to compile")
_WORDS = flags.DEFINE_integer("words", 20, "Labels that are asked for at once in prediction", lower_bound=2)
_LINES = flags.DEFINE_integer("lines", 5, "Lines of source to list, the costliest first", lower_bound=0)

_PACKAGE = str(Path(sazs_jax.__file__).parent)
_HELPERS = ("models/convolutions.py",)  # which layer a convolution is of says more
_ANY = Chip("", 1.0, float("inf"))  # orders lines by their bytes


def main(arguments: Sequence[str]) -> None:
    """Compile, print, write."""
    config = setting(arguments)
    chip = CHIPS[_CHIP.value] if _CHIP.value else None
    device = compile_only_device(chip) if chip else jax.local_devices()[0]
    jax.config.update("jax_enable_compilation_cache", False)  # a kept program names the lines that it was made from
    jax.config.update("jax_traceback_in_locations_limit", 100)  # calls between a kernel and its line of source
    rows = []
    for task in _TASKS.value:
        for size in batches((6, 16)):
            config.data.batch_size = size
            rows += _rows(task, size, compiled(task, config, device, words=_WORDS.value), chip)
    publish(
        "plan",
        rows,
        chip=device.device_kind,
        encoder=config.model.encoder,
        side=config.data.crop,
        dtype=config.model.dtype,
        spectral_dtype=config.spectral.dtype,
        words=_WORDS.value,
        nodes=config.spectral.grid**2,
        solver=config.spectral.solver,
    )


def _rows(task: str, batch: int, program: Any, chip: Chip | None) -> list[dict[str, Any]]:
    """What the whole program costs, and its costliest lines."""
    memory = program.memory_analysis()
    found = kernels(program.as_text(), _PACKAGE, _HELPERS)
    whole = {
        "arguments_gib": memory.argument_size_in_bytes / 2**30,
        "peak_gib": (memory.argument_size_in_bytes + memory.temp_size_in_bytes) / 2**30,
    }
    _, bandwidth, peak = chip or _ANY
    lines = list(by_source(found, bandwidth, peak).items())[: _LINES.value]

    def row(source: str, part: Sequence[Kernel]) -> dict[str, Any]:
        floor = sum(kernel.floor(bandwidth, peak) for kernel in part)
        return {
            "task": task,
            "batch": batch,
            "source": source,
            "traffic_gb": sum(kernel.times * kernel.bytes for kernel in part) / 1e9,
            "teraflops": sum(kernel.times * kernel.operations for kernel in part) / 1e12,
            "kernels": sum(kernel.times for kernel in part),
            **({"floor_milliseconds": 1000 * floor} if chip else {}),
        }

    return [{**row("whole program", found), **whole}, *(row(source, part) for source, part in lines)]
