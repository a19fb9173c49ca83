"""python -m experiments table3, as a person runs it: made, killed, made again, and with things missing."""

import csv
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.tiny_devkit import Devkit, disc, image_ids, write_words
from tests.tiny_run import REPOSITORY, command, complaint

CAT, DOG = 8, 12
SETTINGS = {
    "model.encoder": "vit_tiny",
    "model.pretrained": "",
    "model.embedding_dim": 64,
    "model.decoder_width": 8,
    "model.dtype": "float32",
    "loss.patches": "(2, 2)",
    "affine.rotation": 0,  # shifts alone are learnt in few steps: an affine MLP that learnt nothing is refused
    "affine.log_scale": 0,
    "affine.shear": 0,
    "affine.missing": 0,
    "affine.spurious": 0,
    "data.crop": 64,
    "data.batch_size": 4,
    "train.num_steps": 6,
    "train.eval_every": 6,
    "train.save_every": 1,
    "spectral.features": "embeddings",
    "spectral.grid": 6,
    "eval.resize": 64,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A devkit with eight dogs to train on and, unseen in fold 1, two cats to score; and a table of words."""
    folder = tmp_path_factory.mktemp("tables")
    devkit, rng = Devkit(folder / "devkit"), np.random.default_rng(0)
    dogs = image_ids(2, 6)
    for name, category in {**dict.fromkeys(dogs, DOG), "cat1": CAT, "cat2": CAT}.items():
        devkit.add_jpeg(name, (64, 64))
        devkit.add_mask(name, disc(rng, category))
    for fold in range(4):
        devkit.write_list("trn", fold, *(f"{name}__{DOG}" for name in dogs if fold == 2))
        devkit.write_list("val", fold, *(f"cat{i}__08" for i in (1, 2) if fold == 1))
    write_words(folder / "words.npz")
    return folder


def words_of(folder, table="table3", settings=SETTINGS) -> list[str]:
    """The command line, after `python`."""
    settings = {**settings, "text.anchors": folder / "words.npz", "data.cache": folder / "cache"}
    options = ["--root", str(folder / "devkit"), "--out", str(folder / "out"), "--variant", "lite", "--folds", "1"]
    options += ["--affine_steps", "50"]
    return ["-m", "experiments", table, *options, *(f"--config.{key}={value}" for key, value in settings.items())]


def files(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def kill_when(words: list[str], happened, kill) -> None:
    """Start the command, in a process group of its own, and `kill` it as soon as something has happened."""
    environment = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    with subprocess.Popen(
        [sys.executable, *words], cwd=REPOSITORY, env=environment, start_new_session=True, stderr=subprocess.DEVNULL
    ) as process:
        until = time.monotonic() + 250
        while not happened():
            assert process.poll() is None, "it ended before"
            assert time.monotonic() < until
            time.sleep(0.05)
        kill(process.pid)


@pytest.fixture(scope="module")
def made(folder):
    """What a whole run after a killed one printed."""
    run = folder / "out/runs/pascal_5i-lite-plain/fold1/seed0/checkpoints"
    kill_when(
        words_of(folder),
        lambda: any(path.name.isdigit() for path in run.glob("*")),
        lambda group: os.killpg(group, signal.SIGKILL),
    )
    assert not (folder / "out/table3.md").exists()
    result = command(*words_of(folder))
    assert result.returncode == 0, result.stderr
    return result


@pytest.mark.xdist_group("tables")
def test_a_table_is_made_and_a_run_that_was_killed_goes_on(folder, made):
    assert "resumed from step" in made.stderr
    assert (folder / "out/runs/affine-pascal_5i-crop64/fold1/checkpoints").is_dir()  # for the runs with shape alone
    text = (folder / "out/table3.md").read_text()
    assert made.stdout == text + "\n"
    with (folder / "out/table3.csv").open() as file:
        rows = list(csv.DictReader(file))
    ours = [row for row in rows if row["source"] == "ours"]
    assert {row["fusion"] for row in ours} == {"none", "agreement+diffusion", "oracle"}
    for row in ours:
        if row["column"] in ("fold 1", "mIoU", "FBIoU"):
            assert 0 <= float(row["value"]) <= 100
        else:
            assert row["not_measured"] == f"{row['column']} is not among --folds"
    assert "| neither | ViT-L | - | published | 59.2 | 61.9 | 43.8 | 41.9 | 51.7 | - |" in text


@pytest.mark.xdist_group("tables")
def test_what_was_measured_is_not_measured_again(folder, made):
    before = files(folder / "out/runs") | files(folder / "out/measured")
    result = command(*words_of(folder))
    assert (result.returncode, result.stdout, result.stderr) == (0, made.stdout, "")
    assert files(folder / "out/runs") | files(folder / "out/measured") == before

    again = command(*words_of(folder, table="table9"))  # by class, from the same runs
    assert again.returncode == 0, again.stderr
    assert files(folder / "out/runs") | files(folder / "out/measured") == before
    lines = [line for line in again.stdout.splitlines() if line.startswith("| cat | ")]
    assert len(lines) == 2  # the second of the upper bound
    assert not any("not measured" in line for line in lines)


@pytest.mark.xdist_group("tables")
def test_other_settings_in_the_same_folder_are_refused(folder, made):
    line = complaint(command(*words_of(folder, settings={**SETTINGS, "train.num_steps": 7})))
    assert "is of other settings (train.num_steps); repeat those, or choose another --out" in line


@pytest.mark.xdist_group("tables")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_ends_the_training_that_it_began(folder, tmp_path, number):
    started = []

    def end(pid: int) -> None:
        os.kill(pid, number)  # it alone
        started.append(pid)

    words = [*words_of(folder), "--out", str(tmp_path / "out")]
    kill_when(words, lambda: any((tmp_path / "out").rglob("config.json")), end)
    until = time.monotonic() + 10
    while has_members(started[0]):
        assert time.monotonic() < until, "train.py goes on alone"
        time.sleep(0.1)


def has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_what_is_missing_is_told_and_the_rest_goes_on(folder, tmp_path):
    words = words_of(folder, table="table1", settings={**SETTINGS, "model.pretrained": "/no/such/file"})
    result = command(*words, "--out", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    reasons = result.stdout.split("Not measured:")[1]
    assert "no COCO (a folder with annotations) was given by --root" in reasons
    assert "/no/such/file" in reasons
    assert "not measured: " in result.stderr
    assert "error: " not in result.stderr  # of train.py: the command itself went well
    assert "| LSeg | ViT-L | - | published | 61.3 |" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("table10", "--out", "x"), "table1|table2"),
        (("table3",), "--out"),
        (("table3", "--out", "x", "--root", "nowhere"), "no folder nowhere"),
        (("table3", "--out", "x", "--folds", "1,4"), "expected some of 0,1,2,3"),
        (("table3", "--out", "x", "--seeds", "0"), "expected at least 1"),
        (("table3", "--out", "x", "--fusion", "oracle"), "expected one of iou, agreement"),
        (("table3", "--out", "x", "--variant", "resnet"), "unknown variant 'resnet'"),
        (("table3", "--out", "x", "--config.data.fold=2"), "data.fold: the tables set this themselves"),
        (("table3", "--out", "x", "--config.train.steps=2"), "unknown setting"),
    ],
)
def test_bad_input_is_one_line(arguments, told, tmp_path, monkeypatch):
    assert told in complaint(command("-m", "experiments", *arguments))
    assert not (REPOSITORY / "x").exists()
