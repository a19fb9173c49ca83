"""The loop and its checkpoints, run as a user runs them: train.py in processes of its own."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from configs import demo
from data import shapes
from sazs_jax.pretrained.random_clip_text import write_random_tower
from sazs_jax.training.checkpoints import restore_model
from tests.event_files import event_files, logged

ROOT = Path(__file__).parents[2]
SAVE_EVERY = 4
NUM_STEPS = 24


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Path:
    """What the runs of this module share: prepared data, text tower, compiled programs."""
    folder = tmp_path_factory.mktemp("shared")
    words = sorted({word for name in shapes.CLASS_NAMES for word in name.split()} | {"others"})
    write_random_tower(folder / "tower", words, dim=demo.get_config().model.embedding_dim)
    return folder


def start(shared: Path, workdir: Path, *arguments: str, devices: int = 1) -> subprocess.Popen:
    """train.py on the synthetic set, tiny."""
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": str(shared / "programs"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    settings = {
        "text.tower": shared / "tower",
        "data.cache": shared / "cache",
        "data.crop": 32,
        "data.batch_size": 4,
        "model.decoder_width": 8,
        "loss.label_space": "sampled",
        "loss.shape_weight": 0.0,
        "loss.bce_weight": 0.0,
        "train.num_steps": NUM_STEPS,
        "train.log_every": 1,
        "train.save_every": SAVE_EVERY,
        "train.eval_every": 1000,
        "train.image_every": 1000,
    }
    command = [sys.executable, "train.py", "--config", "configs/demo.py", "--workdir", str(workdir)]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    return subprocess.Popen(
        [*command, *arguments], cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(process: subprocess.Popen) -> str:
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors[-2000:]
    return output


def losses(workdir: Path) -> list[dict[int, float]]:
    """Of each event file, oldest first: step -> loss. A file that a kill cut short is read as far as it goes."""
    runs = []
    for file in event_files(workdir):
        found = {step: value.simple_value for step, value in logged(file) if value.tag == "loss/align"}
        runs.append(found)
    return runs


def saved_steps(workdir: Path) -> list[int]:
    folder = workdir / "checkpoints"
    return sorted(ocp.path.step.checkpoint_steps(folder)) if folder.is_dir() else []


@pytest.fixture(scope="module")
def undisturbed(shared, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("undisturbed")
    finish(start(shared, workdir))
    return workdir


@pytest.mark.xdist_group("undisturbed")
def test_the_loss_falls_and_the_last_step_is_saved(undisturbed):
    (values,) = losses(undisturbed)
    assert sorted(values) == list(range(1, NUM_STEPS + 1))
    assert np.mean([values[step] for step in (22, 23, 24)]) < np.mean([values[step] for step in (1, 2, 3)])
    assert saved_steps(undisturbed) == [NUM_STEPS]


@pytest.mark.xdist_group("undisturbed")
def test_a_run_killed_at_random_moments_reaches_the_same_losses(shared, undisturbed, tmp_path):
    (expected,) = losses(undisturbed)
    rng = random.Random(0)
    kills = 0
    while kills < 3:
        process = start(shared, tmp_path)
        before = saved_steps(tmp_path)
        while process.poll() is None and saved_steps(tmp_path) == before:
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 0.5))
        if process.poll() is not None:
            break
        process.send_signal(signal.SIGKILL)
        process.communicate()
        kills += 1
    finish(start(shared, tmp_path))

    runs = losses(tmp_path)
    assert len(runs) >= 3  # it was killed at least twice
    for found in runs:
        for step, value in found.items():
            assert value == expected[step], f"step {step}"
    for killed, resumed in itertools.pairwise(runs):
        first = min(resumed)
        assert first > 1  # not from the start
        assert first >= max(killed, default=first) + 1 - SAVE_EVERY  # at most one save interval lost
    assert max(runs[-1]) == NUM_STEPS


def test_two_processes_train_as_one_and_save_one_checkpoint(shared, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    two, one = tmp_path / "two", tmp_path / "one"
    steps = ("--config.train.num_steps=2", "--config.train.save_every=2")
    joined = ("--distributed", f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    processes = [start(shared, two, *steps, *joined, f"--process_id={i}") for i in (0, 1)]
    for process in processes:
        finish(process)
    finish(start(shared, one, *steps, devices=2))
    (found,), (expected,) = losses(two), losses(one)  # one event file: host 0 alone writes
    assert sorted(found) == [1, 2]
    for step in found:
        np.testing.assert_allclose(found[step], expected[step], rtol=1e-5)
    assert saved_steps(two) == [2]
    assert restore_model(two)[3] == 2  # one host alone reads the weights


@pytest.mark.xdist_group("undisturbed")
def test_a_workdir_of_another_config_is_refused_and_left_whole(shared, undisturbed):
    before = {file: file.stat().st_mtime_ns for file in undisturbed.rglob("*") if file.is_file()}
    process = start(shared, undisturbed, "--config.loss.logit_scale=3.0")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    (line,) = [line for line in errors.splitlines() if line.startswith("error:")]
    assert "loss.logit_scale" in line
    assert {file: file.stat().st_mtime_ns for file in undisturbed.rglob("*") if file.is_file()} == before


@pytest.mark.xdist_group("undisturbed")
def test_the_config_is_stored_as_it_was_given(undisturbed):
    stored = json.loads((undisturbed / "config.json").read_text())
    assert stored["train"]["save_every"] == SAVE_EVERY
    assert stored["loss"]["label_space"] == "sampled"
