"""Every table of the paper, as data."""

from data.coco_20i import CLASS_NAMES as COCO_CLASSES
from data.coco_20i import FOLDS as COCO_FOLDS
from data.folds import VOC_CLASSES
from data.pascal_5i import FOLDS as PASCAL_FOLDS
from experiments.tables import published
from experiments.tables.parts import (
    COST_COLUMNS,
    FOLD_COLUMNS,
    FUSED,
    MEAN_COLUMNS,
    Column,
    Data,
    Row,
    Section,
    Setting,
    Table,
)
from sazs_jax.evaluation.masks import ORACLE

LAMBDAS = (0.1, 0.3, 1.0, 3.0, 10.0)  # of Eq. 6; the paper gives none
DATA_TITLES: dict[Data, str] = {"pascal_5i": "PASCAL-5i", "coco_20i": "COCO-20i"}


def _sazs(data: Data, variant: str, *figures: published.Published) -> tuple[Row | published.Published, ...]:
    """The whole method: alone, fused, and by the ground truth; the paper's figures after."""
    shape = Setting(data, variant, "shape")
    alone, fused = Row("SAZS, network alone", shape), Row("SAZS, fused", shape, FUSED)
    return alone, fused, Row("SAZS", shape, ORACLE), *figures


def _lseg(data: Data, variant: str, *figures: published.Published) -> tuple[Row | published.Published, ...]:
    return Row("LSeg (shape part and fusion off)", Setting(data, variant, "plain")), *figures


def _spnet(data: Data, *figures: published.Published) -> tuple[Row | published.Published, ...]:
    return Row("SPNet-like (linear projection, encoder frozen)", Setting(data, "drn", "linear")), *figures


def _ablation(data: Data, variant: str, lseg: published.Published) -> Section:
    """Shape constraint on and off, fusion on and off."""
    plain, shape = Setting(data, variant, "plain"), Setting(data, variant, "shape")
    ours = (
        Row("neither", plain),
        Row("shape constraint", shape),
        Row("fusion", plain, ORACLE),
        Row("shape constraint and fusion", shape, ORACLE),
    )
    beside = [item for pair in zip(ours, published.ABLATION[data, variant], strict=True) for item in pair]
    label_free = (Row("fusion", plain, FUSED), Row("shape constraint and fusion", shape, FUSED))
    return Section(DATA_TITLES[data], FOLD_COLUMNS, (*beside, *label_free, lseg))


def _affinities(data: Data, figures: dict[str, published.Published]) -> tuple[Row | published.Published, ...]:
    """Eq. 4 and 5 alone and together, from one training."""
    setting = Setting(data, "drn", "shape")
    evaluations = {
        "Z_shape": (("spectral.features", "color"), ("spectral.color_weight", 1.0)),
        "Z_sem": (("spectral.color_weight", 0.0),),
    }
    evaluations |= {f"both, lambda {weight:g}": (("spectral.color_weight", weight),) for weight in LAMBDAS}
    rows: list[Row | published.Published] = [Row("neither affinity", setting)]
    if "neither" in figures:
        rows.append(figures["neither"])
    for rule in ("agreement", ORACLE):
        for title, evaluation in evaluations.items():
            rows.append(Row(title, setting, rule, evaluation))
            if rule == ORACLE and title in figures:
                rows.append(figures[title])
    return tuple(rows)


def _cost(variant: str) -> tuple[Row | published.Published, ...]:
    shape = Setting("coco_20i", variant, "shape")
    alone, fused = published.COST[variant]
    return Row("network alone", shape), alone, Row("fused", shape, FUSED), Row("fused", shape, ORACLE), fused


def _classes(data: Data, names: tuple[str, ...], folds: tuple[tuple[int, ...], ...]) -> Section:
    fold_of = {c: fold for fold, classes in enumerate(folds) for c in classes}
    columns = tuple(Column(name, "class", fold_of[c]) for c, name in enumerate(names))
    rows = [
        Row(title, Setting(data, variant, method), rule)
        for variant in ("vit_l16", "drn")
        for title, method, rule in (
            ("neither", "plain", "none"),
            ("shape constraint", "shape", "none"),
            ("shape constraint and fusion", "shape", FUSED),
            ("neither", "plain", ORACLE),
            ("shape constraint", "shape", ORACLE),
        )
    ]
    return Section(DATA_TITLES[data], columns, tuple(rows), transposed=True)


TABLES = {
    "table1": Table(
        "Table 1: SAZS and baselines on PASCAL-5i and COCO-20i",
        (
            Section(
                "PASCAL-5i",
                FOLD_COLUMNS,
                (
                    *published.FEW_SHOT_PASCAL,
                    *_spnet("pascal_5i", published.SPNET_PASCAL),
                    published.ZS3NET_PASCAL,
                    *_lseg("pascal_5i", "drn", published.LSEG_RESNET_PASCAL),
                    *_sazs("pascal_5i", "drn", published.SAZS_DRN_PASCAL),
                    *_lseg("pascal_5i", "vit_l16", published.LSEG_VIT_PASCAL),
                    *_sazs("pascal_5i", "vit_l16", published.SAZS_VIT_PASCAL),
                ),
            ),
            Section(
                "COCO-20i",
                FOLD_COLUMNS,
                (
                    *published.FEW_SHOT_COCO,
                    *_spnet("coco_20i"),
                    published.ZS3NET_COCO,
                    *_lseg("coco_20i", "drn", published.LSEG_RESNET_COCO),
                    *_sazs("coco_20i", "drn", published.SAZS_DRN_COCO),
                    *_lseg("coco_20i", "vit_l16", published.LSEG_VIT_COCO),
                    *_sazs("coco_20i", "vit_l16", published.SAZS_VIT_COCO),
                ),
            ),
        ),
    ),
    "table2": Table(
        "Table 2: across data sets, scored on PASCAL-5i",
        (
            Section("Trained on COCO", MEAN_COLUMNS, (
                *_lseg("coco_to_pascal", "drn", *published.TRAINED_ON_COCO),
                *_sazs("coco_to_pascal", "drn", published.SAZS_CROSS),
            )),
            Section("Trained on PASCAL-5i, of each fold the seen classes", MEAN_COLUMNS, (
                *_spnet("pascal_5i"),
                *_lseg("pascal_5i", "drn"),
                *_lseg("pascal_5i", "vit_l16"),
                *published.TRAINED_ON_PASCAL,
            )),
        ),
        (
            "Our runs on COCO saw none of VOC's twenty classes. The paper does not say which of COCO's classes its own "
            "and the other published rows saw.",
        ),
    ),
    "table3": Table(
        "Table 3: ablation on PASCAL-5i, ViT-L",
        (_ablation("pascal_5i", "vit_l16", published.LSEG_VIT_PASCAL),),
    ),
    "table4": Table(
        "Table 4: ablation on COCO-20i, ViT-L",
        (_ablation("coco_20i", "vit_l16", published.LSEG_VIT_COCO),),
    ),
    "table5": Table(
        "Table 5: ablation on COCO-20i, DRN",
        (_ablation("coco_20i", "drn", published.LSEG_RESNET_COCO),),
    ),
    "table6": Table(
        "Table 6: Z_sem and Z_shape in the fusion",
        (
            Section("Trained on COCO, scored on PASCAL-5i", MEAN_COLUMNS, _affinities("coco_to_pascal", {
                "neither": published.NEITHER_AFFINITY,
                "Z_shape": published.Z_SHAPE,
                "Z_sem": published.Z_SEM,
            })),
            Section("Trained and scored on PASCAL-5i (not in the paper)", FOLD_COLUMNS, _affinities("pascal_5i", {})),
        ),
        (
            "All rows of a section are evaluations of the same runs. The rule is agreement, which uses eigensegments "
            "alone. The sweep of lambda is on test, as an analysis; choose a lambda on selection images "
            "(python -m experiments fusion --excluded).",
        ),
    ),
    "table7": Table(
        "Table 7: time and complexity, COCO-20i",
        (Section("COCO-20i", COST_COLUMNS, (*_cost("drn"), *_cost("vit_l16"))),),
        (
            "Ours: time is seconds for 1000 images in memory, from pixels to a label map; fused, eigenvectors are "
            "computed within it. GFLOPs are XLA's count for the network on one image, a multiplication and an addition "
            "being two; parameters are the network's, in millions, its boundary head included, DINO's not. Published: "
            "time is of a whole test of 1000 episodes with eigenvectors made beforehand; how its FLOPs were counted is "
            "not told.",
        ),
    ),
    "table8": Table(
        "Table 8: IoU by class, COCO-20i",
        (_classes("coco_20i", COCO_CLASSES, COCO_FOLDS),),
        ("The paper's figures are a picture and are not here.",),
    ),
    "table9": Table(
        "Table 9: IoU by class, PASCAL-5i",
        (_classes("pascal_5i", VOC_CLASSES, PASCAL_FOLDS),),
        ("The paper's figures are a picture and are not here.",),
    ),
}  # fmt: skip
