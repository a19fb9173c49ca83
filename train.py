"""Train a zero-shot segmenter.

python train.py --config configs/pascal_fold1.py --workdir runs/fold1 [--config.data.root=VOC2012 ...]
"""

from collections.abc import Sequence

import jax
from absl import flags
from ml_collections import config_flags

import data
from data.folds import seen_classes, training_lookup
from data.loading import labelled_images, training_batches
from sazs_jax.errors import UserError, run_command
from sazs_jax.evaluation.episodes import count_pairs
from sazs_jax.evaluation.evaluator import Evaluator
from sazs_jax.models.sazs import SAZS
from sazs_jax.text import text_source
from sazs_jax.training.checkpoints import StoredAnchors
from sazs_jax.training.loop import train

_CONFIG = config_flags.DEFINE_config_file("config", None, "The experiment, e.g. configs/pascal_fold1.py:lite")
_WORKDIR = flags.DEFINE_string("workdir", None, "Where checkpoints and TensorBoard events go; a run there is resumed")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "Join the other hosts of this job")
_COORDINATOR = flags.DEFINE_string("coordinator", None, "host:port of process 0, where no cluster tells it")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "Processes of the job, where no cluster tells it")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "This process's number, where no cluster tells it")
flags.mark_flags_as_required(["config", "workdir"])


def main(arguments: Sequence[str]) -> None:
    """Join the data, the text anchors, the evaluator of the selection images and the loop."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    if _DISTRIBUTED.value:
        jax.distributed.initialize(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    config = _CONFIG.value

    dataset = data.load(config.data, splits=("train",))
    names = ("others", *dataset.class_names)
    text = text_source(config.text)
    anchors = StoredAnchors(names, text.embed(names), text.source)
    unseen = dataset.unseen(config.data.fold)
    seen = seen_classes(len(dataset.class_names), unseen)

    indices = dataset.train_indices(config.data.fold, config.loss.unseen_pixels)
    lookup = training_lookup(len(dataset.class_names), unseen, config.loss.unseen_pixels)
    hosts = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    batches = training_batches(dataset.train, indices, lookup, config.data, seed=config.train.seed, **hosts)

    selection = dataset.selection_pairs(config.data.fold)
    evaluator = Evaluator(
        dataset.class_names,
        seen,
        anchors.embeddings,
        resize=config.data.crop,  # one size, one compilation
        batch_size=config.eval.batch_size,
        boundary=False,
        generalized=False,
    )

    def evaluate_selection(model: SAZS) -> dict[str, float | None]:
        episodes = count_pairs(selection, "all_pairs")
        scores = evaluator.run(model, labelled_images(dataset.train, sorted(episodes), episodes))["fusion"]["none"]
        return {name: scores[name] for name in ("miou", "fbiou")}

    train(
        config,
        str(_WORKDIR.value),
        anchors=anchors,
        seen=seen,
        batches=batches,
        evaluate_selection=evaluate_selection if selection else None,
    )


if __name__ == "__main__":
    run_command(main)
