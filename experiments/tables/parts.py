"""What a table is made of: settings that are trained, rows, columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from experiments.tables.published import Published
from sazs_jax.evaluation.masks import ORACLE

FUSED = "fused"  # stands for the label-free rule that the command line chooses

METHODS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},  # LSeg: the shape part off
    "shape": {"loss.shape_weight": 0.3, "loss.bce_weight": 0.3},  # Eq. 3 with the published scripts' weights
    "linear": {"model.decoder_width": 0, "model.freeze_encoder": True},  # SPNet-like
}
Data = Literal["pascal_5i", "coco_20i", "coco_to_pascal"]


@dataclass(frozen=True)
class Setting:
    """What is trained: one run a fold and seed."""

    data: Data
    variant: str  # of configs/variants.py
    method: str  # of METHODS

    @property
    def name(self) -> str:
        """Its folder."""
        return f"{self.data}-{self.variant}-{self.method}"


@dataclass(frozen=True)
class Row:
    """A trained setting under one fusion rule."""

    method: str
    setting: Setting
    rule: str = "none"
    evaluation: tuple[tuple[str, Any], ...] = ()  # settings by key in which its evaluation differs

    @property
    def bound(self) -> bool:
        """Whether it looks at the ground truth."""
        return self.rule == ORACLE


Kind = Literal["fold", "mean", "fbiou", "class", "cost"]


@dataclass(frozen=True)
class Column:
    """One figure of a row."""

    title: str
    kind: Kind
    fold: int | None = None  # of a fold or class
    unit: str = "%"


@dataclass(frozen=True)
class Section:
    """Rows under one head."""

    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row | Published, ...]
    transposed: bool = False  # printed with a line a column

    def with_variant(self, variant: str | None) -> "Section":
        """With another encoder everywhere; what that makes equal is there once."""
        if variant is None:
            return self
        rows = [
            replace(row, setting=replace(row.setting, variant=variant)) if isinstance(row, Row) else row
            for row in self.rows
        ]
        seen: list[Row | Published] = []
        for row in rows:
            if isinstance(row, Published) or row not in seen:
                seen.append(row)
        return replace(self, rows=tuple(seen))


@dataclass(frozen=True)
class Table:
    """One table of the paper."""

    title: str
    sections: tuple[Section, ...]
    notes: tuple[str, ...] = field(default=())


FOLD_COLUMNS = (
    *(Column(f"fold {fold}", "fold", fold) for fold in range(4)),
    Column("mIoU", "mean"),
    Column("FBIoU", "fbiou"),
)
MEAN_COLUMNS = (Column("mIoU", "mean"), Column("FBIoU", "fbiou"))
COST_COLUMNS = (
    Column("mIoU", "mean"),
    Column("time", "cost", unit="s"),
    Column("GFLOPs", "cost", unit="GFLOPs"),
    Column("parameters", "cost", unit="millions"),
)
