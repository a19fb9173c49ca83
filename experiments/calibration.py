"""Choose the constant that lets words outside a run's training vocabulary win pixels beside those inside it.

python -m experiments calibration --workdir W [--left_out DIR ...] [--hindsight] [--config.eval.KEY=VALUE ...]

The classes of each other fold are left out of training in turn: the run is repeated without them, in W/left_out, and on
its selection images they stand for unseen ones. (With the shape constraint an affine MLP that saw none of their shapes
is trained first, with the settings of the run's own, which must still be there.) What is chosen there is the share of
the trained classes' pixels that may go over to untrained words: that of the best mean, over these runs, of the harmonic
mean of seen and left-out classes. The constant that gives W this share on its own selection images is written to
W/calibration.json, where evaluate.py, predict.py and the Segmenter find it. Of W's unseen classes the words are looked
at, no label is. (A constant chosen directly carries over less well from one network to another: docs/results.md.)

--left_out names runs that were trained like this before. --hindsight also prints what the constant gives on the test
images, and the best one there, which looks at their labels.
"""

from collections.abc import Sequence

import numpy as np
from absl import flags

from configs import overrides
from experiments.calibration_curves import CONSTANTS, Curve, at, best_share, constant_of, score
from experiments.left_out import train_left_out
from experiments.runs import Run, open_run
from sazs_jax.calibration import Calibration
from sazs_jax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "The run to calibrate, as given to train.py", required=True)
_LEFT_OUT = flags.DEFINE_multi_string("left_out", [], "A run with more classes left out; by default they are trained")
_HINDSIGHT = flags.DEFINE_bool("hindsight", False, "Also look at the test images, for what the best constant would be")
overrides.define(("eval",))


def main(arguments: Sequence[str]) -> None:
    """Write the constant and print the scores that chose it."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    run = open_run(_WORKDIR.value, splits=("train", "val") if _HINDSIGHT.value else ("train",))
    names, hidden = run.dataset.class_names, run.withheld
    trained = [c for c in range(len(names)) if c not in hidden]
    selection = sorted({i for i, _ in run.dataset.selection_pairs(run.config.data.fold, trained)})
    curves = {}
    for workdir in _LEFT_OUT.value or train_left_out(run):
        left_out = open_run(workdir, splits=("train",))
        new = stand_ins(run, left_out)
        title = ", ".join(names[c] for c in new)
        curve = score(left_out, run.dataset.train, selection, trained, new, void=hidden)
        if np.isnan(curve).any():
            print(f"{title}: too few pixels on the selection images to say anything")
        else:
            curves[title] = curve
    if not curves:
        raise UserError(f"no run left classes out that have {run.config.eval.min_pixels} pixels on selection images")
    share = best_share(list(curves.values()))
    own = score(run, run.dataset.train, selection, range(len(names)), hidden, void=hidden)
    constant = round(constant_of(own, share), 3)
    Calibration(constant, tuple(names[c] for c in trained)).save(_WORKDIR.value)

    print(f"\nshare {share:.2f}, constant {constant:.3f}; on selection images, of classes left out:")
    for title, curve in curves.items():
        print("\n".join([f"{title}:", *_rows(curve, constant_of(curve, share))]))
    if _HINDSIGHT.value:
        listed = sorted({i for pairs in run.dataset.val.pair_list.values() for i, _ in pairs})
        curve = score(run, run.dataset.val, listed, range(len(names)), hidden, void=())
        print("\n".join([f"test images, unseen classes of fold {run.config.data.fold}:", *_rows(curve, constant)]))
        if curve.harmonic.max() > 0:
            print(f"  calibrated over best: {at(curve, constant)['harmonic'] / curve.harmonic.max():.2f}")


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


def _rows(curve: Curve, constant: float) -> list[str]:
    best = float(CONSTANTS[curve.harmonic.argmax()])
    ways = {"raw": 0.0, f"calibrated, {constant:.3f}": constant, f"best constant, {best:.3f}": best}
    lines = []
    for title, value in ways.items():
        cells = (f"{name} {100 * score:.1f}" for name, score in at(curve, value).items())
        lines.append(f"  {title:24s} {', '.join(cells)}")
    return lines
