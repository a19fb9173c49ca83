"""COCO-20i, fold 1: every fourth class from the number 1 on (bicycle, bus, traffic light, bench, ...) is unseen.

    python train.py --config configs/coco_fold1.py --workdir runs/coco1 --config.data.root=COCO
    python train.py --config configs/coco_fold1.py:lite --workdir runs/coco1-lite --config.data.root=COCO

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. Not measured here.
"""

from configs import coco


def get_config(variant: str = "vit_l16"):
    return coco.get_config(fold=1, variant=variant)
