"""Training with the shape constraint and the experiments on it, as a person runs them (paper 3.3)."""

import shutil

import grain
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from configs import affine_mlp
from sazs_jax.edges import TILE
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.training.checkpoints import Checkpoints
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.state import create_state
from tests.event_files import event_files, logged
from tests.random_weights import random_weights
from tests.tiny_devkit import Devkit, disc, image_ids, write_words
from tests.tiny_run import command, complaint

DOG = 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A devkit of VOC's and SBD's kinds of masks, half of its images in selection, and a table of words."""
    folder = tmp_path_factory.mktemp("shape")
    devkit, rng = Devkit(folder / "devkit"), np.random.default_rng(0)
    names = image_ids(4, 4)
    for i, name in enumerate(names):
        devkit.add_jpeg(name, (64, 64))
        devkit.add_mask(name, disc(rng, DOG, 5 * (i // 2 % 2)))
    for fold in range(4):
        devkit.write_list("trn", fold, *(f"{name}__{DOG}" for name in names if fold == 2))
    write_words(folder / "words.npz")
    return folder


def train(folder, config, workdir, **settings):
    """train.py on the tiny devkit, for two steps."""
    settings = {
        "data.dataset": "pascal_5i",
        "data.root": folder / "devkit",
        "data.cache": folder / "cache",
        "data.crop": 32,
        "data.batch_size": 4,
        "train.num_steps": 2,
        "train.image_every": 2,
        **settings,
    }
    overrides = (f"--config.{key}={value}" for key, value in settings.items())
    return command("train.py", "--config", f"configs/{config}", "--workdir", workdir, *overrides)


@pytest.fixture(scope="module")
def affine(folder):
    """The work directory of an affine MLP that learnt a little."""
    steps = {"train.num_steps": 30, "train.image_every": 30, "data.batch_size": 16, "optimizer.learning_rate": 5e-4}
    result = train(folder, "affine_mlp.py:demo", folder / "affine", **steps)
    assert result.returncode == 0, result.stderr
    assert "selection reduction" in result.stderr + result.stdout
    return folder / "affine"


def test_a_run_trains_all_of_equation_3_and_goes_on_with_its_own_affine_mlp_alone(folder, affine, tmp_path):
    mlp, run = tmp_path / "affine", tmp_path / "run"
    shutil.copytree(affine, mlp)
    settings = {
        "model.decoder_width": 8,
        "text.anchors": folder / "words.npz",
        "loss.affine_mlp": mlp,
        "loss.shape_weight": 0.3,
        "loss.bce_weight": 0.3,
    }
    result = train(folder, "demo.py", run, **settings)
    assert result.returncode == 0, result.stderr
    (file,) = event_files(run)
    found = {value.tag: value for step, value in logged(file) if step == 2}
    losses = {name: found[f"loss/{name}"].simple_value for name in ("total", "align", "shape", "bce")}
    assert min(losses.values()) > 0
    assert losses["total"] == pytest.approx(losses["align"] + 0.3 * losses["shape"] + 0.3 * losses["bce"], rel=1e-5)
    assert found["train/boundary"].image.width > 3 * 32  # image, true and predicted edges side by side

    other = random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0)))
    _, state = create_state(other, make_optimizer(affine_mlp.get_config().optimizer, 10, freeze_encoder=False))
    checkpoints = Checkpoints(mlp, None)
    checkpoints.save(state, iter(grain.MapDataset.range(4).to_iter_dataset()), 1.0, step=31)  # it was trained on
    checkpoints.close()
    line = complaint(train(folder, "demo.py", run, **settings))
    assert f"{run} was trained with another affine MLP than {mlp} holds now; put that one back" in line


def test_images_that_show_no_motion_train_no_affine_mlp(folder, tmp_path):
    line = complaint(train(folder, "affine_mlp.py:demo", tmp_path / "affine", **{"data.crop": 1}))
    assert "no tile of the first training images has enough edge, in more than one direction" in line
    assert not (tmp_path / "affine").exists()


def test_the_experiment_tells_what_an_affine_mlp_knows(affine):
    result = command("-m", "experiments", "affine_mlp", "--workdir", affine)
    assert result.returncode == 0, result.stderr
    for row in ("disturbed pairs", "undisturbed pairs", "shift x", "shift y", "rotation", "scale"):
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(row))
        assert np.isfinite([float(word) for word in line[20:].split("|")[0].split()]).all(), line


def test_edge_targets_of_both_kinds_of_masks_are_drawn(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SAZS_CACHE", str(folder / "cache"))
    sheet = tmp_path / "edges.png"
    result = command("-m", "experiments", "edge_targets", "--data_root", folder / "devkit", "--out", sheet)
    assert result.returncode == 0, result.stderr
    for kind in ("VOC", "SBD"):
        (line,) = (line for line in result.stdout.splitlines() if line.startswith(f"{kind}: "))
        assert 0.01 < float(line.split("edge pixels ")[1].split()[0]) < 0.1
    with Image.open(sheet) as picture:
        assert picture.width > 2 * 64


def test_edge_targets_tell_what_a_resize_does_to_void_bands(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("SAZS_CACHE", str(folder / "cache"))
    found = {}
    for band in (5, 10):  # the discs' outlines of 5 pixels become 15 wide
        arguments = ("--data_root", folder / "devkit", "--out", tmp_path / "x.png", "--scale=3", f"--void_band={band}")
        result = command("-m", "experiments", "edge_targets", *arguments)
        assert result.returncode == 0, result.stderr
        (line,) = (line for line in result.stdout.splitlines() if line.startswith("VOC: "))
        found[band] = float(line.split("edge pixels ")[1].split()[0])
    assert found[5] == 0
    assert found[10] > 0.01
