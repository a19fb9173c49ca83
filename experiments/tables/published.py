"""The figures of the paper's tables, in percent; none of them is a run of this project.

Of SAZS the fused ones choose masks by the ground truth (docs/protocol.md): `bound`. Tables 8 and 9 are pictures.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FOLDS = ("fold 0", "fold 1", "fold 2", "fold 3")


@dataclass(frozen=True)
class Published:
    """A row of a table of the paper."""

    method: str
    encoder: str
    figures: Mapping[str, float]  # by column
    bound: bool = False  # masks chosen by the ground truth


def _row(method: str, encoder: str, *figures: float, bound: bool = False) -> Published:
    """Four folds, their mean, and FBIoU where it is given."""
    return Published(method, encoder, dict(zip((*FOLDS, "mIoU", "FBIoU"), figures, strict=False)), bound)


def _cross(method: str, encoder: str, miou: float, *, bound: bool = False) -> Published:
    return Published(method, encoder, {"mIoU": miou}, bound)


def _cost(method: str, encoder: str, miou: float, time: float, gflops: float, *, bound: bool = False) -> Published:
    return Published(method, encoder, {"mIoU": miou, "time": time, "GFLOPs": gflops}, bound)


# Table 1
FEW_SHOT_PASCAL = (
    _row("FWB, one-shot", "ResNet", 51.3, 64.5, 56.7, 52.2, 56.2),
    _row("DAN, one-shot", "ResNet", 54.7, 68.6, 57.8, 51.6, 58.2, 71.9),
    _row("PFENet, one-shot", "ResNet", 60.5, 69.4, 54.4, 55.9, 60.1, 72.9),
    _row("HSNet, one-shot", "ResNet", 67.3, 72.3, 62.0, 63.1, 66.2, 77.6),
)
FEW_SHOT_COCO = (
    _row("FWB, one-shot", "ResNet", 17.0, 18.0, 21.0, 28.9, 21.2),
    Published("DAN, one-shot", "ResNet", {"mIoU": 24.4, "FBIoU": 62.3}),
    _row("PFENet, one-shot", "ResNet", 36.8, 41.8, 38.7, 36.7, 38.5, 63.0),
    _row("HSNet, one-shot", "ResNet", 37.2, 44.1, 42.4, 41.3, 41.2, 69.1),
)
SPNET_PASCAL = _row("SPNet", "ResNet", 23.8, 17.0, 14.1, 18.3, 18.3, 44.3)
ZS3NET_PASCAL = _row("ZS3Net", "ResNet", 40.8, 39.4, 39.3, 33.6, 38.3, 57.7)
ZS3NET_COCO = _row("ZS3Net", "ResNet", 18.8, 20.1, 24.8, 20.5, 21.1, 55.1)
LSEG_RESNET_PASCAL = _row("LSeg", "ResNet", 52.8, 53.8, 44.4, 38.5, 47.4, 64.1)
LSEG_RESNET_COCO = _row("LSeg", "ResNet", 22.1, 25.1, 24.9, 21.6, 23.4, 57.9)
LSEG_VIT_PASCAL = _row("LSeg", "ViT-L", 61.3, 63.6, 43.1, 41.0, 52.3, 67.6)
LSEG_VIT_COCO = _row("LSeg", "ViT-L", 28.1, 27.5, 30.0, 23.2, 27.2, 59.9)
SAZS_DRN_PASCAL = _row("SAZS", "DRN", 57.3, 60.3, 58.4, 45.9, 55.5, 66.4, bound=True)
SAZS_DRN_COCO = _row("SAZS", "DRN", 34.2, 36.5, 34.6, 35.6, 35.2, 58.4, bound=True)
SAZS_VIT_PASCAL = _row("SAZS", "ViT-L", 62.7, 64.3, 60.6, 50.2, 59.4, 69.0, bound=True)
SAZS_VIT_COCO = _row("SAZS", "ViT-L", 33.8, 38.1, 34.4, 35.0, 35.3, 58.2, bound=True)

# Table 2, on PASCAL-5i: the first four were trained on it, the others on COCO
TRAINED_ON_PASCAL = (
    _cross("LSeg, trained on PASCAL-5i", "ViT-L", 52.3),
    _cross("SPNet, trained on PASCAL-5i", "ResNet", 18.3),
    _cross("ZS3Net, trained on PASCAL-5i", "ResNet", 38.3),
    _cross("LSeg, trained on PASCAL-5i", "ResNet", 47.4),
)
TRAINED_ON_COCO = (_cross("LSeg+", "ResNet", 59.0), _cross("OpenSeg", "ResNet", 60.0))
SAZS_CROSS = _cross("SAZS", "DRN", 62.7, bound=True)

# Tables 3, 4 and 5: without fusion {plain, shape}, fused {plain, shape}
ABLATION = {
    ("pascal_5i", "vit_l16"): (
        _row("neither", "ViT-L", 59.2, 61.9, 43.8, 41.9, 51.7),
        _row("shape constraint", "ViT-L", 59.7, 63.4, 44.3, 42.2, 52.4),
        _row("fusion", "ViT-L", 63.1, 62.4, 59.0, 49.2, 58.4, bound=True),
        _row("shape constraint and fusion", "ViT-L", 62.7, 64.3, 60.6, 50.2, 59.4, bound=True),
    ),
    ("coco_20i", "vit_l16"): (
        _row("neither", "ViT-L", 26.3, 32.0, 26.2, 26.2, 27.7),
        _row("shape constraint", "ViT-L", 30.0, 30.4, 27.5, 28.5, 29.1),
        _row("fusion", "ViT-L", 33.3, 39.0, 33.9, 32.7, 34.7, bound=True),
        _row("shape constraint and fusion", "ViT-L", 33.8, 38.1, 34.4, 35.0, 35.3, bound=True),
    ),
    ("coco_20i", "drn"): (
        _row("neither", "DRN", 24.2, 28.5, 24.4, 23.3, 25.1),
        _row("shape constraint", "DRN", 28.4, 27.6, 25.4, 25.1, 26.6),
        _row("fusion", "DRN", 33.7, 38.2, 33.4, 35.5, 35.2, bound=True),
        _row("shape constraint and fusion", "DRN", 34.2, 36.5, 34.6, 35.6, 35.2, bound=True),
    ),
}

# Table 6, trained on COCO and scored on PASCAL-5i
NEITHER_AFFINITY = _cross("neither affinity", "DRN", 58.4)
Z_SHAPE = _cross("Z_shape", "DRN", 58.6, bound=True)
Z_SEM = _cross("Z_sem", "DRN", 62.7, bound=True)

# Table 7, COCO-20i
COST = {
    "drn": (
        _cost("network alone", "DRN", 26.6, 177.43, 275.76),
        _cost("fused", "DRN", 35.2, 230.54, 275.76, bound=True),
    ),
    "vit_l16": (
        _cost("network alone", "ViT-L", 29.1, 196.95, 345.99),
        _cost("fused", "ViT-L", 35.3, 222.52, 345.99, bound=True),
    ),
}
