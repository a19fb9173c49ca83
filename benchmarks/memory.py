"""Peak memory of training and of prediction, beside the same network in PyTorch at the same batch.

python -m benchmarks memory [--config configs/pascal_fold1.py] [--batch 6 --batch 16] [--words 1200] [--small]

Each number is of a process of its own. On a GPU it is the allocator's peak; on a CPU the growth of the process's peak
resident memory since its imports, in which what compiling takes is included.
"""

import resource
from collections.abc import Sequence
from typing import Any

import jax
from absl import flags
from flax import nnx
from ml_collections import ConfigDict

from benchmarks.children import CHILD, run_child, tell
from benchmarks.options import PEER, batches, setting
from benchmarks.peers import MODES, missing_network
from benchmarks.prediction import prediction
from benchmarks.report import publish
from benchmarks.training import Training, random_anchors, random_batch
from sazs_jax.inference import Network
from sazs_jax.models.sazs import build_model

_WORDS = flags.DEFINE_integer("words", 1200, "Labels that are asked for at once in prediction", lower_bound=2)
_STEPS = 3


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write; or in a child do one part."""
    config = setting(arguments)
    sizes = batches((6, 16))
    if CHILD.value:
        side, task, size = CHILD.value.split("/")
        config.data.batch_size = int(size)
        tell(_peak_of_jax(config, task) if side == "jax" else _peak_of_torch(config, task, side))
        return
    absent = missing_network(config, PEER.value)
    rows = []
    for task in ("train", "predict"):
        for size in sizes:
            sides = ("jax", *([] if absent else MODES))
            mib = {side: run_child("memory", f"{side}/{task}/{size}", {})[1] for side in sides}
            rows.append(
                {
                    "task": task,
                    "batch": size,
                    **{f"{side}_mib": value for side, value in mib.items()},
                    **{f"ratio_{side}": mib[side] / mib["jax"] for side in sides[1:]},
                    **({"peer": absent} if absent else {}),
                }
            )
    publish(
        "memory",
        rows,
        encoder=config.model.encoder,
        side=config.data.crop,
        dtype=config.model.dtype,
        words=_WORDS.value,
    )


def _peak_of_jax(config: ConfigDict, task: str) -> float:
    """MiB."""
    batch = random_batch(config)
    device = jax.local_devices()[0]
    before = _resident()
    if task == "train":
        training = Training(config)
        for _ in range(_STEPS):
            jax.block_until_ready(training.step(batch))
    else:
        network = Network(nnx.jit(lambda: build_model(config, rngs=nnx.Rngs(0)))())
        predict = prediction(network, batch["image"], random_anchors(_WORDS.value, config.model.embedding_dim))
        for _ in range(_STEPS):
            jax.block_until_ready(predict())
    statistics: Any = device.memory_stats()
    return statistics["peak_bytes_in_use"] / 2**20 if statistics else _resident() - before


def _peak_of_torch(config: ConfigDict, task: str, mode: str) -> float:
    """MiB."""
    from benchmarks.torch_peer import Network, peak_bytes

    batch = random_batch(config)
    before = _resident()
    network = Network(config, compiled=MODES[mode], training=task == "train")
    if task == "train":
        network.train(batch, _STEPS)
    else:
        anchors = random_anchors(_WORDS.value, config.model.embedding_dim)
        for _ in range(_STEPS):
            network.predict(batch["image"], anchors)
    allocated = peak_bytes()
    return _resident() - before if allocated is None else allocated / 2**20


def _resident() -> float:
    """Peak resident memory of this process, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
