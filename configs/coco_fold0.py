"""COCO-20i, fold 0: every fourth class from the number 0 on (person, airplane, boat, parking meter, ...) is unseen.

    python train.py --config configs/coco_fold0.py --workdir runs/coco0 --config.data.root=COCO
    python train.py --config configs/coco_fold0.py:lite --workdir runs/coco0-lite --config.data.root=COCO

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. Not measured here.
"""

from configs import coco


def get_config(variant: str = "vit_l16"):
    return coco.get_config(fold=0, variant=variant)
