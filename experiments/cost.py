"""What a network costs: parameters, FLOPs by XLA's own count, and time an image, with random weights (paper, Table 7).

python -m experiments cost --config configs/pascal_fold1.py:lite --out cost.json [--config.eval.fusion=agreement ...]

Images are of eval.resize, or else data.crop, pixels a side, eval.batch_size of them at once, and stand in memory. Time
is from pixels to a label map of two labels; with a fusion rule the eigenvectors are computed within it.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import nnx
from ml_collections import ConfigDict, config_flags

from benchmarks.operations import network_flops
from benchmarks.prediction import prediction
from benchmarks.timing import median_seconds
from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError
from sazs_jax.inference import Network
from sazs_jax.models.sazs import SAZS, build_model
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.fusion import RULES, WITHOUT_EIGENVECTORS, FusionSettings

_CONFIG = config_flags.DEFINE_config_file("config", None, "The setting, e.g. configs/pascal_fold1.py:lite")
_OUT = flags.DEFINE_string("out", None, "File to write, JSON", required=True)
flags.mark_flag_as_required("config")

_REPEATS = 5  # timed after the first, which compiles; the median counts


def main(arguments: Sequence[str]) -> None:
    """Measure, write and print."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    found = cost(_CONFIG.value)
    write_atomically(Path(_OUT.value), json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def cost(config: ConfigDict) -> dict[str, Any]:
    """Parameters by part, GFLOPs of the network on one image, milliseconds an image under `eval.fusion`.

    Raises:
      UserError: an unknown rule, or a rule that needs eigensegments without features for them.
    """
    rule, side, batch = config.eval.fusion, config.eval.resize or config.data.crop, config.eval.batch_size
    if rule not in RULES:
        raise UserError(f"eval.fusion={rule!r} is unknown; choose one of {', '.join(RULES)}")
    segmenter = None
    if rule not in WITHOUT_EIGENVECTORS:
        if not config.spectral.features:
            raise UserError(f"eval.fusion={rule} needs eigensegments; give spectral.features=lite or the like")
        segmenter = Eigensegmenter(config.spectral)
    model = nnx.jit(lambda: build_model(config, rngs=nnx.Rngs(0)))()
    if side % model.size_multiple:
        raise UserError(f"images of {side} pixels a side: expected a multiple of {model.size_multiple}")
    random = np.random.default_rng(0)
    predict = prediction(
        Network(model),
        random.integers(0, 256, (batch, side, side, 3), dtype=np.uint8),
        random.normal(size=(2, config.model.embedding_dim)).astype(np.float32),
        rule=rule,
        settings=FusionSettings.of_config(config.spectral),
        segmenter=segmenter,
    )
    device = jax.local_devices()[0]
    return {
        "device": f"{jax.local_device_count()} x {device.device_kind}",
        "dtype": config.model.dtype,
        "side": side,
        "batch_size": batch,
        "fusion": rule,
        "parameters": parameters(model),
        "gigaflops": network_flops(config, side) / 1e9,
        "milliseconds_per_image": 1000 * median_seconds(predict, _REPEATS) / batch,
    }


def parameters(model: SAZS) -> dict[str, int]:
    """Numbers of parameters by part of the network, and their `total`."""
    counts: dict[str, int] = {}
    for path, leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)):
        counts[str(path[0])] = counts.get(str(path[0]), 0) + leaf[...].size
    return {**counts, "total": sum(counts.values())}
