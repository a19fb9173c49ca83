"""Score a run on the unseen classes of its fold.

python evaluate.py --workdir runs/fold1 [--data_root DIR] [--config.eval.resize=512 --config.spectral.features=lite ...]

Scores every fusion rule, writes W/eval/metrics.json and prints it as a table.
"""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

import data
from configs import overrides
from data.loading import labelled_images
from sazs_jax.calibration import Calibration
from sazs_jax.errors import UserError, run_command
from sazs_jax.evaluation import report
from sazs_jax.evaluation.episodes import count_pairs
from sazs_jax.evaluation.evaluator import Evaluator
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.training.checkpoints import restore_model

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, as given to train.py", required=True)
_DATA_ROOT = flags.DEFINE_string("data_root", None, "Score this VOC devkit folder instead of the run's own")
_PREDICTIONS = flags.DEFINE_string("predictions", None, "Folder for the masks of every episode, but for the oracle's")
overrides.define(("eval", "spectral"))


def main(arguments: Sequence[str]) -> None:
    """Join the restored network, the test pairs and the evaluator."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    config, model, anchors, step = restore_model(_WORKDIR.value)
    overrides.apply(config)
    if _DATA_ROOT.value is not None:
        if config.data.dataset != "pascal_5i" or not _DATA_ROOT.value:
            raise UserError("--data_root takes a VOC devkit folder, for a run on data.dataset=pascal_5i")
        config.data.root = _DATA_ROOT.value

    dataset = data.load(config.data, splits=("val",))
    if anchors.names != ("others", *dataset.class_names):
        raise UserError(f"{_WORKDIR.value} was trained for other classes than those of {config.data.dataset}")
    calibration = Calibration.load(_WORKDIR.value)
    counts = count_pairs(dataset.test_pairs(config.data.fold), config.eval.protocol)
    listed = sorted({image for pairs in dataset.val.pair_list.values() for image, _ in pairs})  # of all folds
    evaluator = Evaluator(
        dataset.class_names,
        dataset.unseen(config.data.fold),
        anchors.embeddings,
        resize=config.eval.resize,
        batch_size=config.eval.batch_size,
        min_pairs=config.eval.min_pairs,
        min_pixels=config.eval.min_pixels,
        constants=calibration.constants(dataset.class_names) if calibration else None,
        eigensegmenter=Eigensegmenter(config.spectral) if config.spectral.features else None,
    )
    write = report.mask_writer(_PREDICTIONS.value, dataset.class_names) if _PREDICTIONS.value else None
    scores = evaluator.run(model, labelled_images(dataset.val, listed, counts), record=write)
    metrics = {
        "step": int(step),
        "fold": config.data.fold,
        **({"data_root": _DATA_ROOT.value} if _DATA_ROOT.value else {}),
        "episodes": scores.pop("episodes"),
        "protocol": config.eval.protocol,
        "resize": config.eval.resize,
        "min_pixels": config.eval.min_pixels,
        **({"calibration": calibration.constant} if calibration else {}),
        "anchors": anchors.source,
        "spectral": config.spectral.to_dict(),
        **scores,
    }
    path = Path(_WORKDIR.value) / "eval" / "metrics.json"
    report.write_metrics(path, metrics)
    print(f"{report.table(metrics)}\nwritten to {path}")


if __name__ == "__main__":
    run_command(main)
