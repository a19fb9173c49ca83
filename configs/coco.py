"""COCO-20i settings shared by the four folds. The variants are those of `variants.py`.

Five epochs of a fold's 62,000 to 74,000 training images, as the paper's ViT is trained. A tenth of them are selection
images, so evaluations on them are few. Not measured.
"""

from ml_collections import ConfigDict

from configs import variants


def get_config(fold: int, variant: str = "vit_l16") -> ConfigDict:
    """The config of one fold, of one variant; fold -1 leaves no fold unseen."""
    config = variants.get_config(variant)
    config.data.dataset = "coco_20i"
    config.data.fold = fold
    config.train.num_steps = 10_000 if variant == "lite" else 50_000
    config.train.eval_every = config.train.num_steps // 10
    config.train.save_every = 1000
    config.train.image_every = 1000
    return config
