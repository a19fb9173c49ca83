"""Train a zero-shot segmenter, or the affine MLP that its shape loss needs.

python train.py --config configs/pascal_fold1.py --workdir runs/fold1 [--config.data.root=VOC2012 ...]
"""

import itertools
from collections.abc import Sequence
from functools import partial

import jax
from absl import flags
from ml_collections import ConfigDict, config_flags

import data
from data.loading import held_out_batches, labelled_images, run_batches
from sazs_jax.cache import keep_programs
from sazs_jax.errors import UserError, run_command
from sazs_jax.evaluation.episodes import count_pairs
from sazs_jax.evaluation.selection import selection_scores
from sazs_jax.text import text_source
from sazs_jax.training.affine import AffineRegression
from sazs_jax.training.checkpoints import StoredAnchors
from sazs_jax.training.frozen_mlp import restore_affine_mlp, weights_digest
from sazs_jax.training.loop import train
from sazs_jax.training.segmentation import Segmentation

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, e.g. configs/pascal_fold1.py:lite")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and TensorBoard events go; a run there is resumed")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts of this job")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, where no cluster tells it")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job, where no cluster tells it")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's number, where no cluster tells it")
flags.mark_flags_as_required(["config", "workdir"])


def main(arguments: Sequence[str]) -> None:
    """Join the data of the config, its task and the loop."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    if _DISTRIBUTED.value:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    else:  # one host that finds a program and one that compiles it could wait for each other for ever
        keep_programs()
    config = _CONFIG.value
    prepare = {"segmentation": segmentation, "affine_mlp": affine_mlp}
    if config.task not in prepare:
        raise UserError(f"task={config.task!r} is unknown; choose one of {', '.join(prepare)}")
    dataset = data.load(config.data, splits=("train",))
    indices = dataset.train_indices(config.data.fold, config.loss.unseen_pixels, config.data.exclude)
    host = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    batches = run_batches(config, dataset, indices, **host)
    train(config, str(_WORKDIR.value), batches=batches, **prepare[config.task](config, dataset))


def segmentation(config: ConfigDict, dataset: data.SegmentationData) -> dict:
    """The task with its text anchors and affine MLP, and the scores of the selection images."""
    names = ("others", *dataset.class_names)
    text = text_source(config.text)
    anchors = StoredAnchors(names, text.embed(names), text.source)
    seen = dataset.seen(config.data.fold, config.data.exclude)
    mlp = restore_affine_mlp(config.loss.affine_mlp, config) if config.loss.shape_weight else None
    config.loss.affine_mlp_digest = weights_digest(mlp) if mlp else ""
    task = Segmentation(config, anchors.embeddings[[0, *(1 + c for c in seen)]], mlp)
    pairs = dataset.selection_pairs(config.data.fold, seen)
    episodes = count_pairs(pairs, "all_pairs") if pairs else {}
    images = partial(labelled_images, dataset.train, sorted(episodes), episodes)
    evaluate = selection_scores(dataset.class_names, seen, anchors.embeddings, config, images)
    return {"task": task, "anchors": anchors, "evaluate": evaluate if episodes else None}


def affine_mlp(config: ConfigDict, dataset: data.SegmentationData) -> dict:
    """The task, and its errors on tiles of the selection images."""
    task = AffineRegression(config)
    indices = dataset.train_indices(config.data.fold, config.loss.unseen_pixels, config.data.exclude)
    task.check_shows_motion(itertools.islice(run_batches(config, dataset, indices), 8))  # the first is enough mostly
    batches = held_out_batches(config, dataset)
    return {"task": task, "evaluate": partial(task.evaluate, batches=batches) if batches else None}


if __name__ == "__main__":
    run_command(main)
