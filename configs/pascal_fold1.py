"""PASCAL-5i, fold 1: bus, car, cat, chair, cow are unseen.

    python train.py --config configs/pascal_fold1.py --workdir runs/fold1 --config.data.root=VOC2012
    python train.py --config configs/pascal_fold1.py:lite --workdir runs/fold1-lite --config.data.root=VOC2012

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. What was measured here is in docs/results.md.
"""

from configs import pascal


def get_config(variant: str = "vit_l16"):
    return pascal.get_config(fold=1, variant=variant)
