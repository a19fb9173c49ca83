"""python -m experiments calibration, as a person runs it, and what evaluate.py makes of its constant."""

import json

import pytest

from data.folds import VOC_CLASSES
from tests.tiny_devkit import Devkit, image_ids, write_words
from tests.tiny_run import command, complaint

CAT, DOG, SHEEP = (VOC_CLASSES.index(name) + 1 for name in ("cat", "dog", "sheep"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on dogs and sheep, half of its images in selection; fold 1, the cats', is unseen."""
    folder = tmp_path_factory.mktemp("calibration")
    devkit, names = Devkit(folder / "devkit"), image_ids(3, 4)
    for name in names:
        devkit.add(name, DOG, SHEEP, size=(64, 64))
    devkit.add("test", CAT, DOG, size=(64, 64))
    for fold, category in {0: None, 1: None, 2: DOG, 3: SHEEP}.items():
        devkit.write_list("trn", fold, *(f"{name}__{category}" for name in names if category))
    devkit.write_list("val", 1, f"test__{CAT:02d}")
    write_words(folder / "words.npz")
    settings = {
        "data.dataset": "pascal_5i",
        "data.root": folder / "devkit",
        "data.cache": folder / "cache",
        "data.crop": 32,
        "data.batch_size": 4,
        "train.num_steps": 2,
        "text.anchors": folder / "words.npz",
        "model.decoder_width": 8,
        "loss.shape_weight": 0,
        "loss.bce_weight": 0,
        "loss.affine_mlp": "",
        "data.fold": 1,
        "eval.min_pixels": 100,
    }
    overrides = (f"--config.{key}={value}" for key, value in settings.items())
    workdir = folder / "run"
    result = command("train.py", "--config", "configs/demo.py", "--workdir", workdir, *overrides)
    assert result.returncode == 0, result.stderr
    return workdir


def test_folds_are_left_out_in_turn_and_the_constant_is_used(run):
    result = command("-m", "experiments", "calibration", "--workdir", run, "--hindsight")
    assert result.returncode == 0, result.stderr
    left_out = {
        folder.name: json.loads((folder / "config.json").read_text()) for folder in (run / "left_out").iterdir()
    }
    excluded = {name: config["data"]["exclude"] for name, config in left_out.items()}
    assert excluded == {"fold2": list(VOC_CLASSES[10:15]), "fold3": list(VOC_CLASSES[15:])}  # no image shows fold 0
    stored = json.loads((run / "calibration.json").read_text())
    assert 0 <= stored["constant"] < 0.5
    assert stored["trained"] == [name for c, name in enumerate(VOC_CLASSES) if not 5 <= c < 10]
    assert f"constant {stored['constant']:.3f}" in result.stdout
    assert "test images, unseen classes of fold 1" in result.stdout

    again = command("-m", "experiments", "calibration", "--workdir", run, "--left_out", run / "left_out" / "fold2")
    assert again.returncode == 0, again.stderr
    assert "sheep" not in again.stdout

    (run / "calibration.json").write_text(json.dumps({**stored, "constant": 0.9}))
    scored = command("evaluate.py", "--workdir", run)
    assert scored.returncode == 0, scored.stderr
    metrics = json.loads((run / "eval" / "metrics.json").read_text())
    assert metrics["calibration"] == 0.9
    assert list(metrics["generalized"])[:2] == ["raw", "calibrated"]
    assert metrics["generalized"]["calibrated"]["per_class"]["dog"] == 0  # whatever wins from others is untrained
    assert "calibrated" in scored.stdout


def test_bad_input_is_one_line(run, tmp_path):
    assert "holds no checkpoint" in complaint(command("-m", "experiments", "calibration", "--workdir", tmp_path))
    itself = command("-m", "experiments", "calibration", "--workdir", run, "--left_out", run)
    assert "leaves no more classes out" in complaint(itself)
