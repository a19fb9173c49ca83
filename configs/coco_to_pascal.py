"""Trained on COCO, scored on PASCAL VOC (paper, Table 2): VOC's twenty classes are left out of training.

    python train.py --config configs/coco_to_pascal.py --workdir runs/coco_voc --config.data.root=COCO
    python evaluate.py --workdir runs/coco_voc --dataset pascal_5i --data_root VOC2012

The variants are listed in configs/variants.py.
Not measured here. The paper does not say which of COCO's classes its own training saw.
"""

from configs import coco

VOC_IN_COCO = (  # VOC's classes by COCO's names
    "airplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "dining table",
    "dog",
    "horse",
    "motorcycle",
    "person",
    "potted plant",
    "sheep",
    "couch",
    "train",
    "tv",
)


def get_config(variant: str = "vit_l16"):
    config = coco.get_config(fold=-1, variant=variant)
    config.data.exclude = VOC_IN_COCO
    return config
