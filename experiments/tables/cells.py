"""The value of each cell: mean and spread over seeds, or why there is none."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from experiments.tables.measurements import Measurements, MissingError
from experiments.tables.parts import FUSED, Column, Row
from experiments.tables.published import Published

ALL_FOLDS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Cell:
    """One figure; `value` and `spread` in the column's unit."""

    value: float | None = None
    spread: float | None = None  # sample standard deviation over seeds; None of fewer than two
    seeds: int = 0  # that it is of; 0: published, or of no run
    missing: str = ""  # why there is no value, or not of every seed


@dataclass(frozen=True)
class Choices:
    """What the command line chooses for all cells."""

    folds: tuple[int, ...] = ALL_FOLDS
    seeds: int = 1
    fusion: str = "agreement+diffusion"  # what FUSED stands for
    measure: str = "miou"


def cell(row: Row | Published, column: Column, measurements: Measurements, choices: Choices) -> Cell:
    """The figure of a row in a column, measured where that is still to do."""
    if isinstance(row, Published):
        return Cell(row.figures.get(column.title))
    if column.kind == "cost":
        try:
            return Cell(_cost(row, column, measurements, choices))
        except MissingError as error:
            return Cell(missing=str(error))
    values, missing = [], []
    for seed in range(choices.seeds):
        try:
            values.append(100 * _fraction(row, column, seed, measurements, choices))
        except MissingError as error:
            missing.append(str(error))
    return summarize(values, "; ".join(dict.fromkeys(missing)))


def summarize(values: Sequence[float], missing: str = "") -> Cell:
    """Mean and sample standard deviation."""
    if not values:
        return Cell(missing=missing)
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Cell(float(np.mean(values)), spread, len(values), missing)


def _fraction(row: Row, column: Column, seed: int, measurements: Measurements, choices: Choices) -> float:
    """The figure of one seed.

    Raises:
      MissingError: there is none.
    """
    across = row.setting.data == "coco_to_pascal"
    asked: tuple[int | None, ...] = (None,) if across else choices.folds
    if column.fold is not None:
        if column.fold not in asked:
            raise MissingError(f"fold {column.fold} is not among --folds")
        asked = (column.fold,)
    found = []
    for fold in asked:
        scores = _scores(row, fold, seed, measurements, choices)
        if column.kind == "class":
            value = scores["per_class"][column.title]
            subject = column.title
        else:
            value = scores["fbiou" if column.kind == "fbiou" else choices.measure]
            subject = "the data set" if fold is None else f"fold {fold}"
        if value is None:
            raise MissingError(f"{subject} has too few test pairs")
        found.append(value)
    return float(np.mean(found))


def _scores(row: Row, fold: int | None, seed: int, measurements: Measurements, choices: Choices) -> dict:
    """Of one run under the row's rule. What needs no eigensegments is scored without where they cannot be had."""
    rule = choices.fusion if row.rule == FUSED else row.rule
    try:
        metrics = measurements.scores(row.setting, fold, seed, dict(row.evaluation))
    except MissingError:
        if rule != "none" or measurements.overrides.get("spectral.features") == "":
            raise
        metrics = measurements.scores(row.setting, fold, seed, {"spectral.features": ""})
    if rule not in metrics["fusion"]:
        raise MissingError("spectral.features is empty, so nothing is fused")
    return metrics["fusion"][rule]


def _cost(row: Row, column: Column, measurements: Measurements, choices: Choices) -> float:
    if row.bound:
        raise MissingError("a rule that looks at the ground truth has no time of its own")
    found = measurements.cost(row.setting, choices.fusion if row.rule == FUSED else row.rule)
    return {
        "time": found["milliseconds_per_image"],
        "GFLOPs": found["gigaflops"],
        "parameters": found["parameters"]["total"] / 1e6,
    }[column.title]
