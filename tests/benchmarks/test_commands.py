"""Every benchmark as a command, at the size of the demo: what it writes, and what it says of bad input."""

import json

import pytest

from tests.tiny_run import command, complaint

TINY = ("--config", "configs/demo.py", "--nopeer", "--config.data.crop=32")
ONCE = (*TINY, "--batch", "2", "--repeats", "1")
NO_NETWORK = "not measured: transformers has no such network"
NOT_WANTED = "not measured: --nopeer"


def run(out, name, *arguments):
    result = command("-m", "benchmarks", name, "--out", out, *arguments)
    assert result.returncode == 0, result.stderr
    found = json.loads(out.read_text())
    assert {"benchmark", "command", "date", "hardware", "versions", "settings", "rows"} == set(found)
    assert found["benchmark"] == name
    assert found["command"].startswith(f"python -m benchmarks {name} ")
    assert found["hardware"]["devices"] == "1 x cpu"
    assert found["versions"]["jax"]
    for column in found["rows"][0]:
        assert column.replace("_", " ") in result.stdout
    return found


def test_train_step(tmp_path):
    found = run(tmp_path / "out.json", "train_step", *ONCE, "--batch", "3")
    assert [row["batch"] for row in found["rows"]] == [2, 3]
    first, second = found["rows"]
    assert first["peer"] == NO_NETWORK
    assert first["images_per_second"] == pytest.approx(2000 / first["milliseconds"])
    assert second["gigaflops_a_device"] == pytest.approx(1.5 * first["gigaflops_a_device"], rel=0.1)
    assert first["share_of_peak"] > 0


def test_inference(tmp_path):
    small = ("--config.spectral.grid=6", "--words", "3")
    found = run(tmp_path / "out.json", "inference", *ONCE, *small)
    (row,) = found["rows"]
    assert min(row["ratio_fused_eigh"], row["ratio_fused_subspace"], row["share_of_peak"]) > 0
    assert (found["settings"]["fusion"], found["settings"]["words"]) == ("agreement+diffusion", 3)


def test_eigensolvers(tmp_path):
    found = run(tmp_path / "out.json", "eigensolvers", *ONCE, "--nodes", "64", "--nodes", "100")
    assert [(row["nodes"], row["batch"]) for row in found["rows"]] == [(64, 2), (100, 2)]
    for row in found["rows"]:
        assert row["error"] < 1e-4
        assert min(row["ratio_eigh"], row["ratio_eigsh"], row["ratio_eigsh_shift_invert"]) > 0


def test_spectral(tmp_path):
    (row,) = run(tmp_path / "out.json", "spectral", *ONCE, "--config.spectral.grid=4")["rows"]
    assert row["ratio_eigh"] > 0
    assert row["peer"] == NOT_WANTED


def test_loading(tmp_path):
    found = run(tmp_path / "out.json", "loading", *ONCE, "--steps", "2")
    (row,) = found["rows"]
    assert row["ratio_of_rates"] == pytest.approx(row["loaded_images_per_second"] / row["trained_images_per_second"])
    assert 0 <= row["wait_share"] < 1


def test_loading_of_a_data_set(tmp_path, make_devkit):
    devkit = make_devkit()
    found = run(
        tmp_path / "out.json",
        "loading",
        *ONCE,
        *("--steps", "1", "--config.data.dataset=pascal_5i", f"--config.data.root={devkit.root}"),
        f"--config.data.cache={tmp_path / 'cache'}",
    )
    assert found["settings"]["source"] == str(devkit.root)


def test_startup(tmp_path):
    rows = run(tmp_path / "out.json", "startup", *ONCE)["rows"]
    assert [row["side"] for row in rows] == ["jax", "torch"]
    assert rows[0]["cold_seconds"] > 0
    assert rows[0]["warm_seconds"] > 0
    assert rows[1]["peer"] == NO_NETWORK


def test_memory(tmp_path):
    rows = run(tmp_path / "out.json", "memory", *ONCE, "--words", "4")["rows"]
    assert [row["task"] for row in rows] == ["train", "predict"]
    assert all(row["jax_mib"] > 0 for row in rows)


def test_sizes(tmp_path):
    sizes = ("--sides=32", "--sides=64", "--words=2", "--words=20", "--grids=4", "--grids=8")
    rows = run(tmp_path / "out.json", "sizes", *ONCE, *sizes)["rows"]
    growth = {(row["table"], row["size"]): row["operations_growth"] for row in rows}
    assert growth["side", 32] == growth["words", 2] == growth["nodes, eigh", 16] == 1
    assert growth["side", 64] > 4  # four times the pixels, and attention's square
    assert growth["nodes, eigh", 64] == pytest.approx(4**3)
    assert growth["nodes, subspace", 64] == pytest.approx(4**2)


def test_bfloat16_has_the_losses_of_plain_float32_within_one_percent(tmp_path):
    found = run(tmp_path / "out.json", "precision", *TINY, "--batch", "8")
    assert [row["step"] for row in found["rows"]] == [10, 20, 30, 40, 50]
    assert found["rows"][-1]["float32_loss"] < 0.7 * found["rows"][0]["float32_loss"]  # it learns
    assert 0 < found["settings"]["difference_of_means"] < 0.01


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("speed",), "which benchmark? python -m benchmarks eigensolvers|"),
        (("eigensolvers", "now"), "unexpected argument 'now'"),
        (("eigensolvers", "--nodes", "50"), "expected a square number"),
        (("train_step", "--repeats", "0"), "repeats"),
        (("train_step", "--config.data.size=63"), "takes the keys of configs/defaults.py"),
        (("train_step", "--config.train.accumulate=2", "--batch", "3"), "expected a multiple of"),
        (("sizes", "--config", "configs/demo.py", "--sides", "36"), "expected a multiple of 8"),
        (("startup", "--config", "configs/demo.py", "--config.data.crop=36"), "must be a multiple of 8"),
    ],
)
def test_bad_input_is_one_line(arguments, told):
    assert told in complaint(command("-m", "benchmarks", *arguments))
