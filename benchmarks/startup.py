"""Time from the command to the end of the first training step, with an empty and a filled compilation cache.

python -m benchmarks startup [--config configs/pascal_fold1.py] [--batch 6] [--small] [--out FILE]

Each row is a process of its own that builds the network with random weights and goes one step: imports, building,
compiling. The caches are JAX's (JAX_COMPILATION_CACHE_DIR) and torch.compile's, in a folder of the benchmark's own.
"""

import tempfile
from collections.abc import Sequence

import jax
from ml_collections import ConfigDict

from benchmarks.children import CHILD, run_child, tell
from benchmarks.options import PEER, batches, setting
from benchmarks.peers import MODES, missing_network
from benchmarks.report import publish
from benchmarks.training import Training, random_batch


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write; or in a child go the first step."""
    config = setting(arguments)
    config.data.batch_size, *_ = batches((6,))
    if CHILD.value:
        _first_step(config, CHILD.value)
        tell(None)
        return
    absent = missing_network(config, PEER.value)
    rows = []
    for part in ("jax", *([] if absent else MODES)):
        with tempfile.TemporaryDirectory() as folder:
            caches = {"JAX_COMPILATION_CACHE_DIR": folder, "TORCHINDUCTOR_CACHE_DIR": folder}
            seconds = {cache: run_child("startup", part, caches)[0] for cache in ("cold", "warm")}
        first = rows[0] if rows else None
        ratios = {f"ratio_{cache}": seconds[cache] / first[f"{cache}_seconds"] for cache in seconds} if first else {}
        rows.append({"side": part, **{f"{cache}_seconds": value for cache, value in seconds.items()}, **ratios})
    if absent:
        rows.append({"side": "torch", "peer": absent})
    publish(
        "startup",
        rows,
        encoder=config.model.encoder,
        image_side=config.data.crop,
        dtype=config.model.dtype,
        batch=config.data.batch_size,
    )


def _first_step(config: ConfigDict, part: str) -> None:
    batch = random_batch(config)
    if part == "jax":
        jax.block_until_ready(Training(config).step(batch))
        return
    from benchmarks.torch_peer import Network

    Network(config, compiled=MODES[part], training=True).train(batch, 1)
