"""PASCAL-5i, fold 0: aeroplane, bicycle, bird, boat, bottle are unseen.

    python train.py --config configs/pascal_fold0.py --workdir runs/fold0 --config.data.root=VOC2012
    python train.py --config configs/pascal_fold0.py:lite --workdir runs/fold0-lite --config.data.root=VOC2012

The variants are listed in configs/variants.py.
Paper: 4 V100s, batch 6, 5 epochs. What was measured here is in docs/results.md.
"""

from configs import pascal


def get_config(variant: str = "vit_l16"):
    return pascal.get_config(fold=0, variant=variant)
