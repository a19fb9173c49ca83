"""Training, scoring and prediction on COCO-20i, and scoring across data sets, as a person runs them."""

import json

import numpy as np
import pytest
from PIL import Image

from data.coco_20i import CLASS_NAMES, FOLDS
from tests.tiny_coco import SIZE, Coco, box
from tests.tiny_run import command, complaint, make_run


def test_a_step_an_evaluation_and_a_prediction_on_real_photographs(sazs_data, tmp_path):
    words = ("others", *CLASS_NAMES)
    rows = np.random.default_rng(0).normal(size=(len(words), 64)).astype(np.float32)
    np.savez(tmp_path / "words.npz", names=words, embeddings=rows)
    settings = {
        "data.dataset": "coco_20i",
        "data.root": sazs_data / "coco_tiny",
        "data.cache": tmp_path / "cache",
        "data.batch_size": 4,
        "text.anchors": tmp_path / "words.npz",
        "loss.shape_weight": 0.0,
        "model.decoder_width": 8,
        "train.num_steps": 1,
        "eval.resize": 64,
    }
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    run = tmp_path / "run"
    result = command("train.py", "--config", "configs/demo.py", "--workdir", run, *overrides)
    assert result.returncode == 0, result.stderr
    assert "selection miou" in result.stderr + result.stdout

    evaluate = ("evaluate.py", "--workdir", run, "--config.spectral.features=", "--config.eval.protocol=hsnet1000")
    result = command(*evaluate)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((run / "eval/metrics.json").read_text())
    assert (metrics["step"], metrics["fold"], metrics["episodes"]) == (1, 1, 1000)
    scores = metrics["fusion"]["none"]
    assert list(scores["per_class"]) == [CLASS_NAMES[c] for c in FOLDS[1]]
    listed = [n for n in scores["pairs"].values() if n]
    assert sum(listed) == 27
    assert 0 <= scores["miou"] <= 1

    photograph = next((sazs_data / "coco_tiny/val2017").iterdir())
    result = command(
        "predict.py", "--workdir", run, "--labels", "person,couch", "--out", tmp_path / "masks", photograph
    )
    assert result.returncode == 0, result.stderr
    with Image.open(tmp_path / "masks" / f"{photograph.stem}.mask.png") as mask, Image.open(photograph) as image:
        assert mask.size == image.size


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An untrained run on VOC (fold 1 unseen: bus, car, cat, chair, cow) and a COCO folder."""
    folder = tmp_path_factory.mktemp("across")
    make_run(folder)
    coco = Coco(folder / "coco", "2017")
    coco.add("val", 1, (17, box(0, 0, *SIZE)))  # cat
    coco.add("val", 2, (80, box(0, 0, 48, 48)), (1, box(48, 0, 64, 48)))  # toaster, person
    coco.write()
    return folder


def test_a_run_on_voc_is_scored_on_coco(folder):
    arguments = ("evaluate.py", "--workdir", folder / "run", "--dataset", "coco_20i", "--data_root", folder / "coco")
    line = complaint(command(*arguments))
    assert "15 of the 80 classes of coco_20i were seen in training: person, bicycle" in line
    assert "--skip_seen" in line
    assert not (folder / "run/eval").exists()

    result = command(*arguments, "--skip_seen", "--config.spectral.features=")
    assert result.returncode == 0, result.stderr
    metrics = json.loads((folder / "run/eval/coco_20i.json").read_text())
    assert not (folder / "run/eval/metrics.json").exists()  # that of the run's own fold
    assert metrics["trained_on"] == {"dataset": "pascal_5i", "fold": 1, "exclude": []}
    assert (len(metrics["tested"]), len(metrics["skipped_as_seen"])) == (65, 15)
    assert "fold" not in metrics
    scores = metrics["fusion"]["none"]
    assert {name: n for name, n in scores["pairs"].items() if n} == {"cat": 1, "toaster": 1}
    assert "person" not in scores["per_class"]
    assert metrics["generalized"]["raw"]["per_class"]["person"] is not None  # a seen class there
    assert "65 classes of coco_20i, 2 episodes" in result.stdout
    assert "trained on pascal_5i without fold 1" in result.stdout
    assert "no tested class was seen in training; left out as seen: person, bicycle" in result.stdout


def test_unknown_data_sets_and_folders(folder):
    arguments = ("evaluate.py", "--workdir", folder / "run")
    assert "expected one of pascal_5i, coco_20i" in complaint(command(*arguments, "--dataset", "ade"))
    line = complaint(command(*arguments, "--dataset", "coco_20i", "--data_root", folder / "devkit"))
    assert "is not a COCO folder" in line
