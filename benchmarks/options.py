"""The flags that all benchmarks share, and the setting that they name."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from benchmarks import small
from sazs_jax.errors import UserError, exit_on_user_error

with exit_on_user_error():
    try:  # with a default, absl reads --config.KEY=VALUE at once
        _CONFIG = config_flags.DEFINE_config_file("config", "configs/pascal_fold1.py", "The setting, e.g. FILE.py:drn")
    except (AttributeError, KeyError, TypeError, ValueError, flags.Error) as error:
        raise UserError("unknown setting; --config.KEY=VALUE takes the keys of configs/defaults.py") from error
SMALL = flags.DEFINE_bool("small", False, "Smaller networks and images, in float32: seconds on a CPU")
OUT = flags.DEFINE_string("out", None, "File to write, JSON")
REPEATS = flags.DEFINE_integer("repeats", 5, "Rounds, in each of which everything is timed once", lower_bound=1)
BATCH = flags.DEFINE_multi_integer("batch", None, "Images at once; give it again for more sizes", lower_bound=1)
PEER = flags.DEFINE_bool("peer", True, "Time PyTorch beside it, where it is installed")


def setting(arguments: Sequence[str]) -> ConfigDict:
    """The config of --config with random weights and the align loss alone, made small by --small.

    What was given as --config.KEY=VALUE stays as given.

    Raises:
      UserError: there are `arguments` besides the flags.
    """
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    config = _CONFIG.value
    config.model.pretrained = ""  # speed does not depend on the weights
    config.loss.shape_weight = config.loss.bce_weight = 0.0
    if SMALL.value:
        small.make_small(config)
    config.update_from_flattened_dict(config_flags.get_override_values(flags.FLAGS["config"]))
    return config


def batches(default: Sequence[int]) -> list[int]:
    """Of --batch; else `default`, or with --small one small batch."""
    return BATCH.value or ([small.BATCH] if SMALL.value else list(default))
