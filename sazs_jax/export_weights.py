"""Write the weights of a run's best checkpoint alone, as safetensors.

python -m sazs_jax.export_weights runs/fold1 fold1.safetensors [--dtype bfloat16]
"""

import json
import os
from collections.abc import Sequence

from absl import flags

from sazs_jax.errors import UserError, run_command
from sazs_jax.pretrained.weights_file import write_weights
from sazs_jax.training.checkpoints import restore_model

_DTYPE = flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16", "float16"], "Type of the stored weights")


def export_weights(workdir: str | os.PathLike, out: str | os.PathLike, *, dtype: str = "float32") -> None:
    """Write parameters and BatchNorm statistics, named by their path in the module, joined with dots.

    The file's metadata holds the run's config, the step and the names of the anchors.

    Raises:
      UserError: there is no checkpoint.
    """
    config, model, anchors, step = restore_model(workdir)
    metadata = {"config": config.to_json(), "step": str(step), "anchors": json.dumps(anchors.names)}
    write_weights(out, model, metadata, dtype=dtype)


def main(arguments: Sequence[str]) -> None:
    """Export the run `arguments[0]` to the file `arguments[1]`."""
    if len(arguments) != 2:
        raise UserError("expected two arguments: the run's work directory and the file to write")
    export_weights(arguments[0], arguments[1], dtype=_DTYPE.value)
    print(f"written to {arguments[1]}")


if __name__ == "__main__":
    run_command(main)
