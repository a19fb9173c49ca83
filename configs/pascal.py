"""PASCAL-5i settings shared by the four folds. The variants are those of `variants.py`."""

from ml_collections import ConfigDict

from configs import variants


def get_config(fold: int, variant: str = "vit_l16") -> ConfigDict:
    """The config of one fold, of one variant."""
    config = variants.get_config(variant)
    config.data.fold = fold
    if variant == "lite":
        config.eval.fusion = "agreement+diffusion"
        config.train.num_steps = 800
        config.train.eval_every = 100
        config.train.save_every = 100
        config.train.image_every = 200
    return config
