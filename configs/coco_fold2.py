"""COCO-20i, fold 2: every fourth class from the number 2 on (car, train, fire hydrant, bird, ...) is unseen.

    python train.py --config configs/coco_fold2.py --workdir runs/coco2 --config.data.root=COCO
    python train.py --config configs/coco_fold2.py:lite --workdir runs/coco2-lite --config.data.root=COCO

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. Not measured here.
"""

from configs import coco


def get_config(variant: str = "vit_l16"):
    return coco.get_config(fold=2, variant=variant)
