"""A run trained again without the classes of each other fold in turn, for what they tell of unseen words.

W/left_out/foldN       the run without the classes of fold N
W/left_out/affineN     its affine MLP, where the run has the shape constraint: that of W saw those classes' shapes
"""

from pathlib import Path
from typing import Any

from experiments import commands
from experiments.runs import Run
from sazs_jax.errors import UserError
from sazs_jax.training.checkpoints import config_of
from sazs_jax.training.run_config import checkpoint_steps


def train_left_out(run: Run) -> list[str]:
    """Train the run again without the classes of each other fold, but for folds that no selection image shows.

    What is finished is not trained again.

    Returns:
      The work directories of these runs.

    Raises:
      UserError: a training failed, or the affine MLP that the run was trained with is gone.
    """
    dataset, config = run.dataset, run.config
    folder = Path(run.workdir) / "left_out"
    workdirs = []
    for fold in range(len(dataset.folds)):
        classes = [c for c in dataset.unseen(fold) if c not in run.withheld]
        if not classes or not dataset.selection_pairs(config.data.fold, classes):
            continue
        names = (*config.data.exclude, *(dataset.class_names[c] for c in classes))
        changes: dict[str, Any] = {"data.exclude": names}
        if config.loss.shape_weight:
            affine_mlp, original = folder / f"affine{fold}", _affine_mlp_of(run)
            commands.train(f"configs/of_run.py:{original}", affine_mlp, changes)
            changes = {**changes, "loss.affine_mlp": str(affine_mlp)}
        workdir = folder / f"fold{fold}"
        commands.train(f"configs/of_run.py:{run.workdir}", workdir, changes)
        workdirs.append(str(workdir))
    return workdirs


def _affine_mlp_of(run: Run) -> Path:
    """The work directory whose settings the affine MLPs of the left-out runs take over."""
    workdir = Path(run.config.loss.affine_mlp).expanduser()
    if not checkpoint_steps(workdir):
        raise UserError(
            f"the affine MLP of {run.workdir} is not in {workdir}, and ones without more classes are trained with its "
            f"settings: put it back, or write where it is to loss.affine_mlp in {Path(run.workdir) / 'config.json'}"
        )
    config_of(workdir, "affine_mlp")
    return workdir
