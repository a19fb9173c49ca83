"""An eigensegmenter that needs no file: DINO of the published S/16 size, with random weights."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
from flax import nnx
from ml_collections import ConfigDict

from configs.defaults import get_config
from sazs_jax.models.vit import VIT_CONFIGS, ViT
from sazs_jax.pretrained.weights_file import write_weights
from sazs_jax.spectral.eigensegmenter import Eigensegmenter

ENCODER = "vit_s16"


def eigensegmenter(spectral: ConfigDict, solver: str) -> Eigensegmenter:
    """Of the `spectral` group, with another solver; `spectral.dino` is used where it is not the default.

    Raises:
      UserError: a setting that cannot work.
    """
    with with_weights(spectral) as config:
        config.solver = solver
        return Eigensegmenter(config)


@contextlib.contextmanager
def with_weights(spectral: ConfigDict) -> Iterator[ConfigDict]:
    """A copy of the `spectral` group whose `dino`, where it is the default, is a file that is there for now."""
    config = spectral.copy_and_resolve_references()
    with tempfile.TemporaryDirectory() as folder:
        if "dino" in config.features.split("+") and config.dino == get_config().spectral.dino:
            config.dino = str(Path(folder) / "dino.safetensors")
            module = nnx.jit(
                lambda: ViT(VIT_CONFIGS[ENCODER], dtype=jnp.dtype("float32"), remat=False, rngs=nnx.Rngs(0))
            )()
            write_weights(config.dino, module, {})
        yield config
