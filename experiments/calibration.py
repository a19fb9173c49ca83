"""Choose the constant that lets words outside a run's training vocabulary win pixels beside those inside it.

python -m experiments calibration --workdir W [--left_out DIR ...] [--hindsight] [--config.eval.KEY=VALUE ...]

The classes of each other fold are left out of training in turn: the run is repeated without them, in W/left_out, and on
its selection images they stand for unseen ones. The constant of the best mean, over these runs, of the harmonic mean of
seen and left-out classes is written to W/calibration.json, where evaluate.py, predict.py and the Segmenter find it. No
label of W's own unseen classes is looked at. --left_out names runs that were trained like this before. --hindsight also
prints what the constant gives on the test images, and the best one there, which looks at their labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from absl import flags
from jaxtyping import Float

from configs import overrides
from data.datasets import SegmentationData, Split
from data.loading import labelled_images
from experiments import commands
from experiments.runs import Run, open_run
from sazs_jax.calibration import Calibration
from sazs_jax.errors import UserError
from sazs_jax.evaluation.constants import confusion_by_constant
from sazs_jax.evaluation.metrics import VOID, generalized_scores

_WORKDIR = flags.DEFINE_string("workdir", None, "The run to calibrate, as given to train.py", required=True)
_LEFT_OUT = flags.DEFINE_multi_string("left_out", [], "A run with more classes left out; by default they are trained")
_HINDSIGHT = flags.DEFINE_bool("hindsight", False, "Also look at the test images, for what the best constant would be")
overrides.define(("eval",))

CONSTANTS = np.arange(0.0, 0.5, 0.005)


class Curve(NamedTuple):
    """Scores of one run by constant; NaN where nothing decides them."""

    seen: Float[np.ndarray, "G"]
    new: Float[np.ndarray, "G"]
    harmonic: Float[np.ndarray, "G"]


def main(arguments: Sequence[str]) -> None:
    """Write the constant and print the scores that chose it."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    run = open_run(_WORKDIR.value, splits=("train", "val") if _HINDSIGHT.value else ("train",))
    trained = [c for c in range(len(run.dataset.class_names)) if c not in run.withheld]
    selection = sorted({i for i, _ in run.dataset.selection_pairs(run.config.data.fold, trained)})
    curves = {}
    for workdir in _LEFT_OUT.value or train_left_out(run):
        left_out = open_run(workdir, splits=("train",))
        standins = stand_ins(run, left_out)
        curve = score(left_out, run.dataset.train, selection, standins, hidden=run.withheld)
        names = ", ".join(run.dataset.class_names[c] for c in standins)
        if np.isnan(curve.harmonic).any():
            print(f"{names}: too few pixels on the selection images to say anything")
        else:
            curves[names] = curve
    if not curves:
        raise UserError(f"no run left classes out that have {run.config.eval.min_pixels} pixels on selection images")
    best = int(np.mean([curve.harmonic for curve in curves.values()], axis=0).argmax())
    trained = set(range(len(run.dataset.class_names))) - set(run.withheld)
    words = tuple(run.dataset.class_names[c] for c in sorted(trained))
    Calibration(float(CONSTANTS[best]), words).save(_WORKDIR.value)

    print(
        f"\nconstant {CONSTANTS[best]:.3f}, written to {_WORKDIR.value}; selection images, classes left out as unseen"
    )
    for names, curve in curves.items():
        print(f"{names}:\n{_row('raw', curve, 0)}\n{_row('calibrated', curve, best)}\n{_best(curve)}")
    if _HINDSIGHT.value:
        dataset = run.dataset
        listed = sorted({i for pairs in dataset.val.pair_list.values() for i, _ in pairs})
        curve = score(run, dataset.val, listed, run.withheld, hidden=())
        print(f"\ntest images, unseen classes of fold {run.config.data.fold}:")
        print(f"{_row('raw', curve, 0)}\n{_row('calibrated', curve, best)}\n{_best(curve)}")
        if curve.harmonic.max() > 0:
            print(f"  calibrated over best: {curve.harmonic[best] / curve.harmonic.max():.2f}")


def train_left_out(run: Run) -> list[str]:
    """Train the run again without the classes of each other fold, but for folds that no selection image shows."""
    dataset, config = run.dataset, run.config
    workdirs = []
    for fold in range(len(dataset.folds)):
        classes = [c for c in dataset.unseen(fold) if c not in run.withheld]
        if not classes or not dataset.selection_pairs(config.data.fold, classes):
            continue
        names = (*config.data.exclude, *(dataset.class_names[c] for c in classes))
        workdir = Path(_WORKDIR.value) / "left_out" / f"fold{fold}"
        commands.train(f"configs/of_run.py:{_WORKDIR.value}", workdir, {"data.exclude": names})
        workdirs.append(str(workdir))
    return workdirs


def stand_ins(run: Run, left_out: Run) -> list[int]:
    """The 0-based classes that stand for unseen ones: those that `left_out` alone was not shown.

    Raises:
      UserError: it was shown a class that the run was not, or all that the run was.
    """
    if left_out.dataset.class_names != run.dataset.class_names:
        raise UserError(f"{left_out.workdir} was trained on another data set than {run.workdir}")
    shown = [run.dataset.class_names[c] for c in run.withheld if c not in left_out.withheld]
    standins = [c for c in left_out.withheld if c not in run.withheld]
    if shown or not standins:
        fault = f"was shown {', '.join(shown)}" if shown else "leaves no more classes out"
        raise UserError(
            f"{left_out.workdir} {fault}: expected a run that was shown nothing of the unseen classes of {run.workdir} "
            "and of some more (data.exclude)"
        )
    return standins


def score(run: Run, split: Split, images: Sequence[int], new: Sequence[int], hidden: Sequence[int]) -> Curve:
    """The generalised setting by constant.

    Args:
      run: its network is scored.
      split: where the images are.
      images: their numbers.
      new: 0-based classes that count as unseen.
      hidden: classes that are no words here and whose pixels are void.
    """
    settings = run.config.eval
    words, lookup = label_space(run.dataset, hidden)
    new = [words.index(c) for c in new]
    sums = confusion_by_constant(
        run.model,
        labelled_images(split, images),
        run.anchors.embeddings[[0, *(c + 1 for c in words)]],
        new,
        CONSTANTS,
        lookup=lookup,
        resize=settings.resize or run.config.data.crop,
        batch_size=settings.batch_size,
    )
    names = [run.dataset.class_names[c] for c in words]
    found = [
        generalized_scores(confusion.round().astype(np.int64), new, names, settings.min_pixels)["min_pixels"]
        for confusion in sums
    ]
    columns = [[s[key] for s in found] for key in ("seen", "unseen", "harmonic")]
    return Curve(*(np.array(column, float) for column in columns))


def label_space(dataset: SegmentationData, hidden: Sequence[int]) -> tuple[list[int], np.ndarray]:
    """The classes that are words, and a table from label values to their rows, "others" being 0."""
    words = [c for c in range(len(dataset.class_names)) if c not in hidden]
    lookup = np.full(256, VOID, np.uint8)
    lookup[[0, *(c + 1 for c in words)]] = np.arange(len(words) + 1)
    return words, lookup


def _row(title: str, curve: Curve, at: int) -> str:
    cells = ", ".join(f"{name} {100 * values[at]:.1f}" for name, values in curve._asdict().items())
    return f"  {title:24s} {cells}"


def _best(curve: Curve) -> str:
    at = int(curve.harmonic.argmax())
    return _row(f"best constant {CONSTANTS[at]:.3f}", curve, at)
