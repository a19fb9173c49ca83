"""python -m experiments calibration, as a person runs it, and what evaluate.py makes of its constant."""

import json
import shutil

import numpy as np
import pytest

from configs import affine_mlp, demo
from data.datasets import EMPTY_SPLIT, SegmentationData, Split
from data.folds import VOC_CLASSES, contiguous_folds
from experiments import commands
from experiments.left_out import train_left_out
from experiments.runs import Run
from sazs_jax.errors import UserError
from sazs_jax.training.run_config import claim_workdir, load_config
from tests.tiny_devkit import Devkit, disc, image_ids, write_words
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


@pytest.fixture
def shape_run(tmp_path):
    """A run with the shape constraint, without its network, whose selection images show a class of fold 2 alone."""
    mlp = affine_mlp.get_config("demo")
    mlp.data.dataset = "pascal_5i"
    claim_workdir(tmp_path / "affine", mlp)
    (tmp_path / "affine/checkpoints/00000150").mkdir(parents=True)
    config = demo.get_config()
    config.data.dataset, config.data.exclude = "pascal_5i", ("sofa",)
    config.loss.affine_mlp = str(tmp_path / "affine")
    (image,) = image_ids(1, 0)
    train = Split((), (image,), ((DOG - 1,),), {0: [], 2: [(0, DOG - 1)], 3: []})
    dataset = SegmentationData(VOC_CLASSES, contiguous_folds(20), train, EMPTY_SPLIT, "lists", hsnet_draws=False)
    return Run(str(tmp_path / "run"), config, None, None, dataset)  # type: ignore[arg-type]


@pytest.fixture
def trained(monkeypatch):
    """What would be trained, in order: (config, work directory, settings)."""
    calls = []
    monkeypatch.setattr(commands, "train", lambda *call: calls.append(call))
    return calls


def test_a_left_out_run_with_the_shape_constraint_gets_an_affine_mlp_without_its_classes(shape_run, trained, tmp_path):
    run, folder = tmp_path / "run", tmp_path / "run/left_out"
    without = {"data.exclude": ("sofa", *VOC_CLASSES[10:15])}
    assert train_left_out(shape_run) == [str(folder / "fold2")]
    assert trained == [
        (f"configs/of_run.py:{tmp_path / 'affine'}", folder / "affine2", without),
        (f"configs/of_run.py:{run}", folder / "fold2", {**without, "loss.affine_mlp": str(folder / "affine2")}),
    ]
    trained.clear()
    shape_run.config.loss.shape_weight = 0.0
    train_left_out(shape_run)
    assert trained == [(f"configs/of_run.py:{run}", folder / "fold2", without)]


def test_without_the_runs_own_affine_mlp_nothing_is_trained(shape_run, trained, tmp_path):
    shutil.rmtree(tmp_path / "affine")
    with pytest.raises(
        UserError, match=r"the affine MLP of .*run is not in .*affine.* put it back, or write where it is"
    ):
        train_left_out(shape_run)
    assert not trained


@pytest.mark.slow
def test_a_run_with_the_shape_constraint_is_calibrated(tmp_path):
    devkit, rng, names = Devkit(tmp_path / "devkit"), np.random.default_rng(0), image_ids(4, 4)
    for name in names:
        devkit.add_jpeg(name, (64, 64))
        mask = disc(rng, DOG)
        mask[:, :12] = np.where(mask[:, :12] == 0, SHEEP, mask[:, :12])
        devkit.add_mask(name, mask)
    for fold, category in {0: None, 1: None, 2: DOG, 3: SHEEP}.items():
        devkit.write_list("trn", fold, *(f"{name}__{category}" for name in names if category))
    write_words(tmp_path / "words.npz")
    common = {
        "data.dataset": "pascal_5i",
        "data.root": tmp_path / "devkit",
        "data.cache": tmp_path / "cache",
        "data.crop": 32,
        "data.exclude": ("tvmonitor",),
    }
    mlp = {"train.num_steps": 30, "data.batch_size": 16, "optimizer.learning_rate": 5e-4}
    run = {
        "train.num_steps": 2,
        "data.batch_size": 4,
        "text.anchors": tmp_path / "words.npz",
        "model.decoder_width": 8,
        "loss.affine_mlp": tmp_path / "affine",
        "eval.min_pixels": 100,
    }
    for config, name, settings in (("affine_mlp.py:demo", "affine", mlp), ("demo.py", "run", run)):
        overrides = (f"--config.{key}={value}" for key, value in {**common, **settings}.items())
        result = command("train.py", "--config", f"configs/{config}", "--workdir", tmp_path / name, *overrides)
        assert result.returncode == 0, result.stderr
    result = command("-m", "experiments", "calibration", "--workdir", tmp_path / "run")
    assert result.returncode == 0, result.stderr
    assert 0 <= json.loads((tmp_path / "run/calibration.json").read_text())["constant"] < 0.5
    losses = [load_config(tmp_path / name).loss for name in ("run", "run/left_out/fold2", "run/left_out/fold3")]
    assert [loss.shape_weight for loss in losses] == [0.3] * 3
    assert len({loss.affine_mlp_digest for loss in losses}) == 3
