"""Score a run on the unseen classes of its fold, or on another data set whose classes it never saw.

python evaluate.py --workdir runs/fold1 [--data_root DIR] [--config.eval.resize=512 --config.spectral.features=lite ...]
python evaluate.py --workdir runs/coco --dataset pascal_5i --data_root VOC2012

Scores every fusion rule, writes W/eval/metrics.json (or W/eval/DATASET.json) and prints it as a table.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

import data
from configs import overrides
from data.loading import labelled_images
from data.scoring import other_data_set, own_fold
from sazs_jax.cache import keep_programs
from sazs_jax.calibration import Calibration
from sazs_jax.errors import UserError, run_command
from sazs_jax.evaluation import report
from sazs_jax.evaluation.evaluator import Evaluator
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.training.checkpoints import restore_model

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, as given to train.py", required=True)
_DATASET = flags.DEFINE_string("dataset", None, "Score another data set, by class names: pascal_5i or coco_20i")
_DATA_ROOT = flags.DEFINE_string("data_root", None, "Folder of what is scored, instead of the run's own")
_SKIP_SEEN = flags.DEFINE_bool("skip_seen", False, "With --dataset: leave out the classes that the run was trained on")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder for the masks of every episode, but for the oracle's")
overrides.define(("eval", "spectral"))


def main(arguments: Sequence[str]) -> None:
    """Join the restored network, the test pairs and the evaluator."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    keep_programs()
    config, model, anchors, step = restore_model(_WORKDIR.value)
    overrides.apply(config)
    if anchors.names != ("others", *data.load(config.data, splits=()).class_names):
        raise UserError(f"{_WORKDIR.value} was trained for other classes than those of {config.data.dataset}")
    if _DATASET.value is None:
        scored = own_fold(config.data, _DATA_ROOT.value)
    else:
        scored = other_data_set(config.data, _DATASET.value, _DATA_ROOT.value, skip_seen=_SKIP_SEEN.value)
    names = scored.dataset.class_names
    calibration = Calibration.load(_WORKDIR.value)
    evaluator = Evaluator(
        names,
        scored.classes,
        anchors.embed(("others", *names), config.text),
        resize=config.eval.resize,
        batch_size=config.eval.batch_size,
        min_pairs=config.eval.min_pairs,
        min_pixels=config.eval.min_pixels,
        constants=calibration.constants(names) if calibration else None,
        eigensegmenter=Eigensegmenter(config.spectral) if config.spectral.features else None,
    )
    images = labelled_images(scored.dataset.val, scored.images, scored.count_pairs(config.eval.protocol))
    write = report.mask_writer(_PREDICTIONS.value, names) if _PREDICTIONS.value else None
    scores = evaluator.run(model, images, record=write)
    metrics = {
        "step": int(step),
        **scored.facts,
        "episodes": scores.pop("episodes"),
        "protocol": config.eval.protocol,
        "resize": config.eval.resize,
        "min_pixels": config.eval.min_pixels,
        **({"calibration": calibration.constant} if calibration else {}),
        "anchors": anchors.source,
        "spectral": config.spectral.to_dict(),
        **scores,
    }
    path = Path(_WORKDIR.value) / "eval" / f"{_DATASET.value or 'metrics'}.json"
    report.write_metrics(path, metrics)
    print(f"{report.table(metrics)}\nwritten to {path}")


if __name__ == "__main__":
    run_command(main)
