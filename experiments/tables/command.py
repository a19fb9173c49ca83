"""The paper's tables, from the user's own data and weights.

python -m experiments table3 --root VOC2012 --out tables [--seeds 3 --folds 1,2 --variant lite --config.KEY=VALUE ...]

table1..table9 are the paper's. Runs are trained under OUT/runs, scores kept under OUT/measured, and OUT/table3.md and
OUT/table3.csv written: mean and spread over seeds, and beside them the paper's own figures, marked as published. Given
again after an interruption, a command goes on; what was measured is not measured again. Without its data or weights a
cell says "not measured", and the reason stands below the table.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

from configs import overrides, variants
from experiments.tables.cells import ALL_FOLDS, Choices, cell
from experiments.tables.measurements import Measurements, check_settings
from experiments.tables.paper import TABLES
from experiments.tables.report import Filled, csv, markdown
from experiments.tables.source_folders import find_folders
from sazs_jax.atomic import check_folder, write_atomically
from sazs_jax.errors import UserError
from sazs_jax.spectral.fusion import RULES

_ROOTS = flags.DEFINE_multi_string(
    "root", [], "VOC devkit or COCO folder, or a folder that holds them; may be repeated"
)
_OUT = flags.DEFINE_string("out", None, "Folder for runs, measurements and tables", required=True)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Runs of each setting, seeds from 0 on")
_FOLDS = flags.DEFINE_list("folds", list(map(str, ALL_FOLDS)), "Folds to train and score, such as 1,2")
_VARIANT = flags.DEFINE_string("variant", None, f"Instead of the paper's encoders: {', '.join(variants.VARIANTS)}")
_DRN_WEIGHTS = flags.DEFINE_string("drn_weights", "", "File of DRN's ImageNet weights, see docs/weights.md")
_AFFINE_STEPS = flags.DEFINE_integer(
    "affine_steps", 0, "Steps that each affine MLP is trained for; 0: those of configs/affine_mlp.py", lower_bound=0
)
_FUSION = flags.DEFINE_string("fusion", "agreement+diffusion", "Rule of the rows with fusion, without the ground truth")
_MEASURE = flags.DEFINE_enum("measure", "miou", ["miou", "miou_min_pairs"], "mIoU of all classes, or of frequent ones")
overrides.define(("model", "text", "loss", "data", "affine", "optimizer", "train", "spectral", "eval"))


def main(name: str, arguments: Sequence[str]) -> None:
    """Fill the table's cells one by one, then write it."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    check_folder(_OUT.value)
    choices = _choices()
    settings = overrides.given()
    check_settings(settings, _VARIANT.value)
    drn_weights = _DRN_WEIGHTS.value and str(Path(_DRN_WEIGHTS.value).absolute())
    measurements = Measurements(
        Path(_OUT.value), find_folders(_ROOTS.value), settings, drn_weights, _AFFINE_STEPS.value
    )
    table = TABLES[name]
    filled = []
    for section in (section.with_variant(_VARIANT.value) for section in table.sections):
        cells = [[cell(row, column, measurements, choices) for column in section.columns] for row in section.rows]
        filled.append(Filled(section, cells))
    text = markdown(table, filled, _notes(choices, settings), fusion=choices.fusion, seeds=choices.seeds)
    write_atomically(Path(_OUT.value) / f"{name}.csv", csv(name, filled, fusion=choices.fusion))
    write_atomically(Path(_OUT.value) / f"{name}.md", text)
    print(text)


def _choices() -> Choices:
    if _SEEDS.value < 1:
        raise UserError(f"--seeds={_SEEDS.value}: expected at least 1")
    folds = tuple(dict.fromkeys(_FOLDS.value))
    if not folds or set(folds) - set(map(str, ALL_FOLDS)):
        raise UserError(f"--folds={','.join(_FOLDS.value)}: expected some of {','.join(map(str, ALL_FOLDS))}")
    if _FUSION.value not in RULES or _FUSION.value == "none":
        raise UserError(f"--fusion={_FUSION.value}: expected one of {', '.join(r for r in RULES if r != 'none')}")
    return Choices(tuple(sorted(map(int, folds))), _SEEDS.value, _FUSION.value, _MEASURE.value)


def _notes(choices: Choices, settings: dict) -> list[str]:
    """What holds for all cells."""
    notes = [
        "Percent where no unit is given. Rows marked published are figures of the paper, not runs of this project."
    ]
    if choices.seeds > 1:
        notes.append(f"Ours: mean ± sample standard deviation over seeds 0 to {choices.seeds - 1}.")
    else:
        notes.append("Ours: seed 0 alone, hence no spread.")
    if choices.measure != "miou":
        notes.append("Ours: mIoU over the classes of eval.min_pairs test pairs or more; published over all classes.")
    if choices.folds != ALL_FOLDS:
        folds = ", ".join(map(str, choices.folds))
        notes.append(f"Our means are over these folds alone: {folds}; the published ones over all four.")
    if _VARIANT.value:
        notes.append(f"Ours: encoder {_VARIANT.value} in place of the paper's; not comparable with its figures.")
    if _AFFINE_STEPS.value:
        notes.append(f"Ours: affine MLPs trained for {_AFFINE_STEPS.value} steps.")
    if settings:
        notes.append(f"Ours: with {', '.join(f'{key}={value}' for key, value in settings.items())}.")
    return notes
