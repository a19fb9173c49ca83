"""python -m experiments fusion, on a tiny run."""

import json

import numpy as np
import pytest
from PIL import Image

from data.folds import is_selection
from experiments.runs import distinct_tails
from sazs_jax.spectral.fusion import RULES
from tests.tiny_run import command, complaint, make_run

DOG = 12


@pytest.fixture
def workdir(tmp_path):
    return make_run(tmp_path)


def experiment(workdir, out, *arguments):
    grid = ("--config.spectral.grid=6", "--config.eval.min_pairs=1")
    return command("-m", "experiments", "fusion", "--workdir", workdir, "--out", out, *grid, *arguments)


def test_the_test_pairs_under_every_rule_as_evaluation_scores_them(workdir, tmp_path):
    result = experiment(workdir, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    table = (tmp_path / "out" / "fusion.md").read_text()
    assert table in result.stdout
    rows = [line.split(" | ")[0] for line in table.split("### mean")[1].splitlines() if line.startswith("| ")]
    assert rows == ["| rule", *(f"| {rule}" for rule in RULES), "| oracle (upper bound)"]

    found = json.loads((tmp_path / "out" / "fusion.json").read_text())
    assert found["settings"][str(workdir)]["spectral"]["grid"] == 6
    run = found["runs"][str(workdir)]
    assert found["runs"]["mean"] == run  # of one run
    overrides = ("--config.spectral.grid=6", "--config.eval.min_pairs=1")
    assert command("evaluate.py", "--workdir", workdir, *overrides).returncode == 0
    scores = json.loads((workdir / "eval" / "metrics.json").read_text())["fusion"]
    for rule in (*RULES, "oracle"):
        for measure in ("miou_min_pairs", "fbiou", "boundary_f"):
            less = scores["none"][measure] if rule != "none" else 0
            value = run[rule][measure]
            assert value["value"] == pytest.approx(scores[rule][measure] - less, abs=1e-9)
            assert value["low"] <= value["high"]

    with Image.open(tmp_path / "out" / "run.png") as figure:
        assert figure.height > 3 * 40  # three pairs
        assert figure.width > (2 + len(RULES) + 1) * 24  # image, every rule, oracle, truth


def test_bad_input_is_one_line(workdir, tmp_path):
    line = complaint(experiment(workdir, tmp_path / "none", "--config.spectral.features="))
    assert "give --config.spectral.features=lite" in line
    line = complaint(experiment(workdir, tmp_path / "none", "--workdir", workdir))
    assert "a run is given twice" in line
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").write_text("mine")
    assert "is a file; choose another folder" in complaint(experiment(workdir, tmp_path / "file" / "folder"))


def test_runs_of_one_name_have_figures_of_their_own():
    assert distinct_tails(["x/fold1/seed0"]) == {"x/fold1/seed0": "seed0"}
    two = distinct_tails(["x/fold1/seed0", "x/fold2/seed0"])
    assert two == {"x/fold1/seed0": "fold1-seed0", "x/fold2/seed0": "fold2-seed0"}


def test_excluded_classes_on_selection_images(workdir, tmp_path):
    line = complaint(experiment(workdir, tmp_path / "none", "--excluded"))
    assert f"{workdir} excludes no class" in line

    names = [f"dog{i}" for i in range(60)]
    chosen = [name for name in names if is_selection(name)][:2]
    others = [name for name in names if not is_selection(name)][:2]
    root, rng = tmp_path / "devkit", np.random.default_rng(0)
    for name in (*chosen, *others):
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)).save(root / "JPEGImages" / f"{name}.jpg")
        mask = np.where(np.arange(32) < 16, DOG, 0).astype(np.uint8)[None].repeat(24, axis=0)
        Image.fromarray(mask).save(root / "SegmentationClassAug" / f"{name}.png")
    lines = "".join(f"{name}__{DOG}\n" for name in (*chosen, *others))
    (root / "splits" / "trn" / "fold2.txt").write_text(lines)
    stored = json.loads((workdir / "config.json").read_text())
    stored["data"]["exclude"] = ["dog"]
    (workdir / "config.json").write_text(json.dumps(stored))

    result = experiment(workdir, tmp_path / "out", "--excluded")
    assert result.returncode == 0, result.stderr
    run = json.loads((tmp_path / "out" / "fusion.json").read_text())["runs"][str(workdir)]
    assert 0 < run["oracle"]["miou_min_pairs"]["value"] + run["none"]["miou_min_pairs"]["value"] <= 1
    with Image.open(tmp_path / "out" / "run.png") as figure:
        assert 2 * 44 < figure.height < 3 * 44  # the two selection images alone, each under a title of 20 pixels
    # The target fold's own classes are no words that settings may be chosen with.
    line = complaint(experiment(workdir, tmp_path / "two", "--excluded", "--target_fold", "2"))
    assert f"no selection image shows a class that {workdir} was not trained on and that fold 2 does not test" in line
