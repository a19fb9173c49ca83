"""The affine MLP of paper 3.3, trained in advance on edge masks alone; L_shape needs it.

python train.py --config configs/affine_mlp.py --workdir runs/affine --config.data.root=VOC2012 --config.data.fold=1

It sees the training images of one fold, with the unseen classes' pixels void, so that no shape of theirs comes in.
`configs/affine_mlp.py:demo` is the small one of `make demo`, on the synthetic `shapes` set.
"""

from ml_collections import ConfigDict

from configs import defaults

VARIANTS = ("", "demo")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; choose demo, or none")
    config = defaults.get_config()
    config.task = "affine_mlp"
    config.data.crop = 320
    config.data.batch_size = 32
    config.data.scale = (0.6, 1.6)
    config.data.jitter = 0.0
    config.optimizer.name = "adamw"
    config.optimizer.learning_rate = 2e-3
    config.optimizer.decoder_multiplier = 1.0
    config.optimizer.weight_decay = 1e-2
    config.optimizer.schedule = "one_cycle"
    config.optimizer.warmup = 0.1
    config.optimizer.clip_norm = 1.0
    config.train.num_steps = 4000
    config.train.eval_every = 500
    config.train.save_every = 500
    if variant == "demo":  # data, crop and patches of configs/demo.py
        config.data.dataset = "shapes"
        config.data.fold = 1
        config.data.crop = 64
        config.data.scale = (0.8, 1.25)
        config.data.rotation = 0.0
        config.loss.patches = (2, 2)
        config.train.num_steps = 150
        config.train.eval_every = 150
        config.train.save_every = 150
    return config
