"""Write the weights of a run's best checkpoint alone, as safetensors.

python -m sazs_jax.export_weights runs/fold1 fold1.safetensors [--dtype bfloat16]
"""

import json
import os
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import safetensors.numpy
from absl import flags
from flax import nnx

from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError, run_command
from sazs_jax.training.checkpoints import restore_model

_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Type of the stored weights")


def export_weights(workdir: str | os.PathLike, out: str | os.PathLike, *, dtype: str = "float32") -> None:
    """Write parameters and BatchNorm statistics, named by their path in the module, joined with dots.

    The file's metadata holds the run's config, the step and the names of the anchors.

    Raises:
      UserError: there is no checkpoint.
    """
    config, model, anchors, step = restore_model(workdir)
    leaves, _ = jax.tree_util.tree_flatten_with_path(nnx.to_pure_dict(nnx.state(model)))
    tensors = {
        ".".join(str(getattr(key, "key", getattr(key, "idx", key))) for key in path): jnp.asarray(leaf, dtype)
        for path, leaf in leaves
    }
    metadata = {"config": config.to_json(), "step": str(step), "anchors": json.dumps(anchors.names)}
    arrays = {name: jax.device_get(tensor) for name, tensor in tensors.items()}
    write_atomically(out, safetensors.numpy.save(arrays, metadata))


def main(arguments: Sequence[str]) -> None:
    """Export the run `arguments[0]` to the file `arguments[1]`."""
    if len(arguments) != 2:
        raise UserError("expected two arguments: the run's work directory and the file to write")
    export_weights(arguments[0], arguments[1], dtype=_DTYPE.value)
    print(f"written to {arguments[1]}")


if __name__ == "__main__":
    run_command(main)
