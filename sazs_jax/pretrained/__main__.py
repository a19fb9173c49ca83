"""Convert published weights once.

    python -m sazs_jax.pretrained timm timm/vit_large_patch16_384.augreg_in21k_ft_in1k vit_l16.safetensors
    python -m sazs_jax.pretrained drn drn_d_105.pth drn_d_105.safetensors
    python -m sazs_jax.pretrained dino facebook/dino-vits16 dino_s16.safetensors
    python -m sazs_jax.pretrained clip ViT-B-32.pt clip-vit-b32
    python -m sazs_jax.pretrained lseg lseg.ckpt runs/lseg --config configs/pascal_fold1.py --labels "aeroplane,..."

PATH is a file, a directory or a hub id; what is at OUT already is never written over. docs/weights.md says what each
source is and where it comes from.
"""

from collections.abc import Sequence

from absl import flags
from ml_collections import config_flags

from sazs_jax.errors import UserError, run_command
from sazs_jax.pretrained.convert import convert_clip, convert_dino, convert_encoder, convert_lseg
from sazs_jax.pretrained.sources import SOURCES

_CONFIG = config_flags.DEFINE_config_file("config", None, "lseg: config of the work directory")
_LABELS = flags.DEFINE_list("labels", None, "lseg: the classes of the config's data set, in its order, without others")


def main(arguments: Sequence[str]) -> None:
    """Convert `arguments`: source, path, and where to write."""
    names = (*(name for name in SOURCES if name != "lseg"), "lseg", "dino", "clip")
    if len(arguments) != 3 or arguments[0] not in names:
        raise UserError(f"expected SOURCE PATH_OR_HUB_ID OUT, SOURCE one of {', '.join(names)}")
    source, path, out = arguments
    if source == "clip":
        convert_clip(path, out)
        print(f"written to {out}; use it by --config.text.tower={out}")
    elif source == "dino":
        convert_dino(path, out)
        print(f"written to {out}; use it by --config.spectral.dino={out}")
    elif source == "lseg":
        if _CONFIG.value is None or not _LABELS.value:
            raise UserError("lseg needs --config and --labels: the work directory's config, its data set's classes")
        convert_lseg(path, out, _CONFIG.value, _LABELS.value)
        print(f"written to {out}; python evaluate.py --workdir {out}")
    else:
        encoder = convert_encoder(source, path, out)
        print(f"written to {out}; use it by --config.model.encoder={encoder} --config.model.pretrained={out}")


if __name__ == "__main__":
    run_command(main)
