"""What a work directory holds: the config and Orbax checkpoints with weights, optimizer, data position and anchors.

    W/config.json
    W/checkpoints/STEP/{model,optimizer,batches[,anchors,text]}

The latest checkpoint and the best on the selection images are kept.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import grain
import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from ml_collections import ConfigDict
from orbax.checkpoint import checkpoint_managers

from sazs_jax.errors import UserError
from sazs_jax.models.sazs import SAZS, build_model
from sazs_jax.text import check_compatible, find_name, text_source
from sazs_jax.training.run_config import checkpoint_steps, claim_workdir, load_config
from sazs_jax.training.state import TrainState

_SCORE = "score"  # on data that is not trained on; the higher the better
_STEP_NAMES = ocp.path.step.standard_name_format(step_format_fixed_length=8)


@dataclasses.dataclass(frozen=True)
class StoredAnchors:
    """The anchors that a run was trained with.

    Attributes:
      names: `others`, then every class of the data set.
      embeddings: float32 (K, D), a row a name, not normalised.
      source: how they came about: a table's digest or a tower's name, and the prompt templates.
    """

    names: tuple[str, ...]
    embeddings: np.ndarray
    source: dict[str, Any]

    def embed(self, names: Sequence[str], text: ConfigDict) -> np.ndarray:
        """Rows (K, D) for any names: the stored ones, and what the run's text source says of the others.

        Args:
          names: VOC's odd names find the everyday ones and the reverse.
          text: the run's `config.text`; not looked at where all names are stored.

        Raises:
          UserError: the source cannot be opened, is another than the run's, or lacks a name.
        """
        known = dict(zip(self.names, self.embeddings, strict=True))
        found = {name: known[spelling] for name in names if (spelling := find_name(name, known)) is not None}
        if missing := [name for name in names if name not in found]:
            source = text_source(text)
            check_compatible(self.source, source.source)
            found.update(zip(missing, source.embed(missing), strict=True))
        return np.stack([found[name] for name in names])


class Checkpoints:
    """The checkpoints of a work directory, for a run that writes them."""

    def __init__(self, workdir: str | os.PathLike, anchors: StoredAnchors | None):
        self._anchors = anchors
        self._manager = ocp.CheckpointManager(
            Path(workdir).absolute() / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                    [
                        checkpoint_managers.LatestN(1),
                        checkpoint_managers.BestN(
                            get_metric_fn=lambda metrics: metrics[_SCORE],
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                best_fn=lambda metrics: metrics[_SCORE],  # without it no metrics are written
                step_name_format=_STEP_NAMES,
            ),
        )

    def latest_step(self) -> int | None:
        """The last complete checkpoint's step."""
        return self._manager.latest_step()

    def save(self, state: TrainState, batches: Iterator, score: float | None, *, step: int) -> None:
        """Start to save in the background. The state's values are copied before this returns."""
        if step in self._manager.all_steps():
            return
        weights, optimizer = _split(state)
        if jax.process_count() > 1:
            weights, optimizer = jax.tree.map(
                ocp.utils.fully_replicated_host_local_array_to_global_array, (weights, optimizer)
            )
        items = {
            **_model_items(weights, self._anchors),
            "optimizer": ocp.args.PyTreeSave(optimizer),
            "batches": grain.checkpoint.CheckpointSave(batches),
        }
        metrics = None if score is None else {_SCORE: score}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics)

    def restore(self, state: TrainState, batches: Iterator, *, step: int) -> TrainState:
        """The saved state; `batches` is set to where it was. `state` gives the structure.

        Raises:
          UserError: the checkpoint is damaged, or was written by another number of processes.
        """
        weights, optimizer = _split(state)
        try:
            restored: Any = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    model=_as_numpy(weights),
                    optimizer=_as_numpy(optimizer),
                    batches=grain.checkpoint.CheckpointRestore(batches),
                ),
            )
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"cannot go on from step {step} ({type(error).__name__}): the checkpoint is damaged, or another "
                "number of processes wrote it; use the same number, or train again in another --workdir"
            ) from error
        return TrainState(
            step=restored.optimizer["step"],
            params=restored.model["params"],
            model_state=restored.model["model_state"],
            opt_state=restored.optimizer["opt_state"],
        )

    def wait(self) -> None:
        """Return when the save under way is complete."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Finish the save under way."""
        self._manager.close()


def write_model(workdir: str | os.PathLike, config: ConfigDict, model: SAZS, anchors: StoredAnchors) -> None:
    """A work directory that predicts and can be scored, of a network that was trained elsewhere.

    Raises:
      UserError: the directory holds a run already.
    """
    if checkpoint_steps(workdir):
        raise UserError(f"{workdir} holds a run; choose another place")
    claim_workdir(workdir, config)
    _, params, model_state = nnx.split(model, nnx.Param, ...)
    items = _model_items({"params": params, "model_state": model_state}, anchors)
    options = ocp.CheckpointManagerOptions(step_name_format=_STEP_NAMES)
    with ocp.CheckpointManager(Path(workdir).absolute() / "checkpoints", options=options) as manager:
        manager.save(0, args=ocp.args.Composite(**items))


def restore_model(workdir: str | os.PathLike) -> tuple[ConfigDict, SAZS, StoredAnchors, int]:
    """The best checkpoint's network, ready to predict; the latest where none was scored.

    Returns:
      The run's config, the model, its anchors and the step.

    Raises:
      UserError: there is no checkpoint, or its weights are not those of the config beside it.
    """
    config = config_of(workdir, "segmentation")
    items = {"anchors": ocp.args.PyTreeRestore(), "text": ocp.args.JsonRestore()}
    model, restored, step = restore_best(workdir, lambda: build_model(config, rngs=nnx.Rngs(0)), items)
    anchors = StoredAnchors(
        tuple(restored.text["names"]), np.asarray(restored.anchors["embeddings"]), restored.text["source"]
    )
    return config, model, anchors, step


def config_of(workdir: str | os.PathLike, task: str) -> ConfigDict:
    """The config of a run that has a checkpoint, of this task."""
    if not checkpoint_steps(workdir):
        workdir = Path(workdir).absolute()
        raise UserError(f"{workdir} holds no checkpoint; train one: python train.py --config F --workdir {workdir}")
    config = load_config(workdir)
    if config.get("task") != task:
        raise UserError(f"{workdir} is a run of task={config.get('task')}; give a run of task={task}")
    return config


def restore_best(workdir: str | os.PathLike, build: Callable[[], Any], items: dict[str, Any]) -> tuple[Any, Any, int]:
    """The model that `build` makes with the weights of the best checkpoint, the other `items`, and the step."""
    folder = Path(workdir).absolute() / "checkpoints"
    options = ocp.CheckpointManagerOptions(read_only=True, step_name_format=_STEP_NAMES)
    handlers: Any = {"model": ocp.PyTreeCheckpointHandler()}
    for name, args in items.items():
        is_json = isinstance(args, ocp.args.JsonRestore)
        handlers[name] = ocp.JsonCheckpointHandler() if is_json else ocp.PyTreeCheckpointHandler()
    with ocp.CheckpointManager(folder, options=options, item_handlers=handlers) as manager:
        scores = {step: stored_score(workdir, step) for step in manager.all_steps()}
        step = max(scores, key=lambda step: (scores[step], step))
        path = folder / _STEP_NAMES.build_name(step)
        graphdef, params, model_state = nnx.split(nnx.eval_shape(build), nnx.Param, ...)
        weights = {"params": params, "model_state": model_state}
        try:
            _check_weights(weights, manager.item_metadata(step).model.tree, path)
            restored = manager.restore(step, args=ocp.args.Composite(model=_as_numpy(weights), **items))
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise UserError(
                f"the checkpoint {path} is damaged ({type(error).__name__}); "
                "remove that folder to go back to another, or train again"
            ) from error
    weights = jax.tree.map(jax.numpy.asarray, restored.model)
    return nnx.merge(graphdef, weights["params"], weights["model_state"]), restored, step


def stored_score(workdir: str | os.PathLike, step: int) -> float:
    """A checkpoint's score on the selection images; lower than any where it has none."""
    folder = Path(workdir).absolute() / "checkpoints"
    try:
        return json.loads((folder / _STEP_NAMES.build_name(step) / "metrics" / "metrics").read_text())[_SCORE]
    except (OSError, ValueError, KeyError):
        return -math.inf


def _model_items(weights: dict, anchors: StoredAnchors | None) -> dict[str, Any]:
    items: dict[str, Any] = {"model": ocp.args.PyTreeSave(weights)}
    if anchors is not None:
        items["anchors"] = ocp.args.PyTreeSave({"embeddings": np.asarray(anchors.embeddings)})
        items["text"] = ocp.args.JsonSave({"names": list(anchors.names), "source": anchors.source})
    return items


def _split(state: TrainState) -> tuple[dict, dict]:
    weights = {"params": state.params, "model_state": state.model_state}
    return weights, {"step": state.step, "opt_state": state.opt_state}


def _as_numpy(tree: Any) -> ocp.args.PyTreeRestore:
    # NumPy arrays, whatever devices and hosts wrote them: a run may be taken up on other hardware.
    return ocp.args.PyTreeRestore(
        tree, restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), tree)
    )


def _check_weights(expected: Any, stored: Any, path: Path) -> None:
    def shapes(tree) -> dict[str, tuple[int, ...]]:
        leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
        return {".".join(_name(key) for key in keys): tuple(leaf.shape) for keys, leaf in leaves}

    expected, stored = shapes(expected), shapes(stored)
    wrong = [
        f"{name} ({stored.get(name, 'absent')} stored, {expected.get(name, 'absent')} expected)"
        for name in sorted(expected.keys() | stored.keys())
        if expected.get(name) != stored.get(name)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(
            f"the weights in {path} are not those of the config beside them: {', '.join(wrong[:3])}{more}; "
            "restore the config.json that the run was trained with"
        )


def _name(key: Any) -> str:
    return str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key))))
