"""The flags that all benchmarks share, and the setting that they name."""

from collections.abc import Sequence

from absl import flags
from ml_collections import ConfigDict, config_flags

from sazs_jax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", "configs/pascal_fold1.py", "The setting, e.g. FILE.py:drn")
SMALL = flags.DEFINE_bool("small", False, "Smaller networks and images, in float32: seconds on a CPU")
OUT = flags.DEFINE_string("out", None, "File to write, JSON")
REPEATS = flags.DEFINE_integer("repeats", 5, "Rounds, in each of which everything is timed once", lower_bound=1)
BATCH = flags.DEFINE_multi_integer("batch", None, "Images at once; give it again for more sizes", lower_bound=1)
PEER = flags.DEFINE_bool("peer", True, "Time PyTorch beside it, where it is installed")

_SMALL_ENCODERS = {"vit_l16": "vit_s16", "vit_b16": "vit_s16", "drn_d_105": "drn_d_22"}
_SMALL_BATCH = 2


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
        make_small(config)
    config.update_from_flattened_dict(config_flags.get_override_values(flags.FLAGS["config"]))
    return config


def make_small(config: ConfigDict) -> None:
    """Cut a config down to what two CPU cores do in seconds."""
    encoder = config.model.encoder
    config.model.encoder = _SMALL_ENCODERS.get(encoder, encoder)
    config.model.decoder_width = min(config.model.decoder_width, 128)
    config.model.dtype = "float32"
    config.data.crop = min(config.data.crop, 224)
    config.data.batch_size = config.eval.batch_size = _SMALL_BATCH


def batches(default: Sequence[int]) -> list[int]:
    """Of --batch; else `default`, or with --small one small batch."""
    return BATCH.value or ([_SMALL_BATCH] if SMALL.value else list(default))
