"""PASCAL-5i, fold 2: diningtable, dog, horse, motorbike, person are unseen.

    python train.py --config configs/pascal_fold2.py --workdir runs/fold2 --config.data.root=VOC2012
    python train.py --config configs/pascal_fold2.py:lite --workdir runs/fold2-lite --config.data.root=VOC2012

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. What was measured here is in docs/results.md.
"""

from configs import pascal


def get_config(variant: str = "vit_l16"):
    return pascal.get_config(fold=2, variant=variant)
