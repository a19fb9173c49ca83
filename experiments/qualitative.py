"""Masks without and with the shape constraint, fused, and the truth (Fig. 1, 3, 4, 7, 8).

python -m experiments qualitative [--without_shape W1] [--with_shape W2] --out DIR [--rows N] [--config.eval.KEY=VALUE]

Two runs of one fold; where one is not given, its column is left out. Writes to DIR: unseen.png and seen.png, test
images asked for one class known to be there (Fig. 3, 4, 7), with the IoU of every mask; scenes.png, images that hold
many classes, asked for all classes of the data set at once (Fig. 1, 8). Rows are taken at even steps from the lists,
not chosen by eye. "Fused" is the rule `eval.fusion` on the run with the shape constraint, or else on the other.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from configs import overrides
from data.loading import labelled_images
from experiments.chosen import crowded, spread
from experiments.panels import Cell, Row, panel_png
from experiments.runs import Run, open_run
from sazs_jax.atomic import check_folder, write_atomically
from sazs_jax.calibration import Calibration
from sazs_jax.errors import UserError
from sazs_jax.segmenter import Segmenter
from sazs_jax.text import text_source
from sazs_jax.visualization import overlay

_WITHOUT = flags.DEFINE_string("without_shape", None, "A run trained without the shape constraint")
_WITH = flags.DEFINE_string("with_shape", None, "A run trained with it")
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
_ROWS = flags.DEFINE_integer("rows", 6, "Rows of each figure", lower_bound=1)
overrides.define(("eval", "spectral"))


def main(arguments: Sequence[str]) -> None:
    """Open the runs and write the three figures."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    check_folder(_OUT.value)
    runs = open_pair(_WITHOUT.value, _WITH.value)
    last = list(runs.values())[-1]
    notes = [f"{title}: {run.name}" for title, run in runs.items()]
    notes += [f"{title}: no run given" for title in ("without shape", "with shape") if title not in runs]
    notes.append(f"fused: {last.rule} on {last.name}" if last.rule else "fused: eval.fusion is none")
    if calibrated(runs):
        notes.append("scenes: with each run's constant for untrained words")
    note = "; ".join(notes)

    val, fold = last.dataset.val, last.config.data.fold
    seen = [pair for pairs in val.pair_list.values() for pair in pairs if pair[1] not in last.withheld]
    scenes = crowded(val.present, last.withheld, _ROWS.value)
    figures = {
        "unseen.png": episode_rows(runs, spread(last.dataset.test_pairs(fold), _ROWS.value)),
        "seen.png": episode_rows(runs, spread(seen, _ROWS.value)),
        "scenes.png": scene_rows(runs, scenes),
    }
    for name, rows in figures.items():
        if not rows:
            print(f"{name} is left out: no such image in the val lists")
            continue
        write_atomically(Path(_OUT.value) / name, panel_png(rows, note))
        print(Path(_OUT.value) / name)


def open_pair(without: str | None, with_shape: str | None) -> dict[str, Run]:
    """The runs by the title of their column.

    Raises:
      UserError: none is given, one is of the other kind, or they are not of one fold and data set.
    """
    given = {"without shape": without, "with shape": with_shape}
    runs = {title: open_run(workdir) for title, workdir in given.items() if workdir}
    if not runs:
        raise UserError("no run; give --without_shape W1, --with_shape W2 or both")
    for title, run in runs.items():
        if run.has_shape != (title == "with shape"):
            loss = run.config.loss
            raise UserError(
                f"{run.workdir} was trained with loss.shape_weight={loss.shape_weight} and loss.bce_weight="
                f"{loss.bce_weight}: it is no run {title}; give it by the other flag"
            )
    first, last = next(iter(runs.values())), list(runs.values())[-1]
    if first.dataset.class_names != last.dataset.class_names:
        raise UserError(f"{first.workdir} and {last.workdir} are of other classes; give two runs on one data set")
    if first.withheld != last.withheld:
        names = [", ".join(run.dataset.class_names[c] for c in run.withheld) for run in (first, last)]
        raise UserError(
            f"{first.workdir} did not see {names[0]}, but {last.workdir} did not see {names[1]}; "
            "give two runs of one data.fold and data.exclude"
        )
    if first.dataset.val.image_ids != last.dataset.val.image_ids:
        raise UserError(f"{first.workdir} and {last.workdir} have other test images; give two runs on one data.root")
    return runs


def episode_rows(runs: dict[str, Run], pairs: Sequence[tuple[int, int]]) -> list[Row]:
    """A row a pair: image, each run alone, fused, truth."""
    if not pairs:
        return []
    last = list(runs.values())[-1]
    shown = {title: run.pictures(run.dataset.val, pairs) for title, run in runs.items()}
    rows = []
    for i, own in enumerate(shown[list(runs)[-1]]):
        cells = [Cell("image", own.image)]
        masks = [(title, pictures[i], "none") for title, pictures in shown.items()]
        if last.rule:
            masks.append(("fused", own, last.rule))
        for title, picture, rule in masks:
            iou = picture.iou[rule]
            below = "" if iou is None else f"IoU {100 * iou:.0f}%"
            cells.append(Cell(title, overlay(own.image, picture.masks[rule].astype(np.uint8)), below))
        cells.append(Cell("ground truth", overlay(own.image, own.truth)))
        rows.append(Row(starred(last, own.category), cells))
    return rows


def scene_rows(runs: dict[str, Run], images: Sequence[int]) -> list[Row]:
    """A row an image, asked for all classes at once: each run alone, fused, for its own words alone, and the truth."""
    last, with_constant = list(runs.values())[-1], calibrated(runs)
    names = list(last.dataset.class_names)
    columns = [(title, segmenter(run, "none", with_constant)) for title, run in runs.items()]
    final = segmenter(last, last.rule or "none", with_constant)
    if last.rule:
        columns.append(("fused", final))
    rows = []
    for item, i in zip(labelled_images(last.dataset.val, images), images, strict=True):
        own = list(last.dataset.val.present[i])
        maps = {title: one.segment(item.image, names).label_map for title, one in columns}
        found = final.segment(item.image, [names[c] for c in own]).label_map
        maps["its own words alone"] = np.array([0, *(c + 1 for c in own)])[found]
        maps["ground truth"] = item.label
        labels = sorted({int(v) for label_map in maps.values() for v in np.unique(label_map)} - {0, 255})
        cells = [Cell("image", item.image), *(Cell(title, overlay(item.image, m)) for title, m in maps.items())]
        legend = [(starred(last, v - 1), v, v - 1 in last.withheld) for v in labels]
        rows.append(Row("", cells, legend))
    return rows


def calibrated(runs: dict[str, Run]) -> bool:
    """Whether every run has a constant for untrained words; else none is used, for the columns are to be alike."""
    return all(Calibration.load(run.workdir) for run in runs.values())


def segmenter(run: Run, rule: str, with_constant: bool) -> Segmenter:
    """The Python API under the run's settings and this fusion rule."""
    return Segmenter(
        run.model,
        dict(zip(run.anchors.names, run.anchors.embeddings, strict=True)),
        lambda: text_source(run.config.text),
        fusion=rule,
        spectral=run.config.spectral,
        calibration=Calibration.load(run.workdir) if with_constant else None,
        resize=run.config.eval.resize,
    )


def starred(run: Run, category: int) -> str:
    """A class's name, with the paper's star where training did not see it."""
    return run.dataset.class_names[category] + ("*" if category in run.withheld else "")
