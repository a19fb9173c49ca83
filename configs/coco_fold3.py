"""COCO-20i, fold 3: every fourth class from the number 3 on (motorcycle, truck, stop sign, cat, ...) is unseen.

    python train.py --config configs/coco_fold3.py --workdir runs/coco3 --config.data.root=COCO
    python train.py --config configs/coco_fold3.py:lite --workdir runs/coco3-lite --config.data.root=COCO

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. Not measured here.
"""

from configs import coco


def get_config(variant: str = "vit_l16"):
    return coco.get_config(fold=3, variant=variant)
