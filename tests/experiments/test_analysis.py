"""python -m experiments analysis, as a person runs it, and what its parts make of cases by hand."""

import csv

import numpy as np
import pytest
from PIL import Image

from data.folds import VOC_CLASSES
from experiments.class_measures import compactness, correlate, locality
from experiments.scatter import Series, all_in_one, by_setting, told
from tests.tiny_run import command, complaint, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By name: fold 1 with and without the shape constraint."""
    folder = tmp_path_factory.mktemp("analysis")
    made = {}
    for name, settings in {"shape": {}, "plain": {"shape": False}}.items():
        (folder / name).mkdir()
        made[name] = make_run(folder / name, **settings)
    return made


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def test_tables_and_figures_of_two_settings(runs, tmp_path):
    workdirs = [word for name in ("shape", "plain") for word in ("--workdir", runs[name])]
    settings = ("--config.eval.min_pairs=1", "--config.eval.fusion=agreement")
    result = command("-m", "experiments", "analysis", *workdirs, "--out", tmp_path, *settings)
    assert result.returncode == 0, result.stderr

    classes = read(tmp_path / "classes.csv")
    titles = {row["setting"] for row in classes}
    assert titles == {"vit_tiny with shape constraint", "vit_tiny without shape constraint"}
    assert {"none", "agreement", "oracle"} <= {row["rule"] for row in classes}
    table = np.load(runs["shape"].parent / "words.npz")
    names: list[str] = list(VOC_CLASSES)  # after "others", before words of no class
    assert table["names"][1:21].tolist() == names
    of_classes = locality(table["embeddings"][1:21])
    for row in classes:
        expected = of_classes[names.index(row["name"])]
        np.testing.assert_allclose([float(row["locality_mean"]), float(row["locality_std"])], expected, rtol=1e-5)
    masks = {(row["image"], row["class"]): float(row["compactness"]) for row in read(tmp_path / "masks.csv")}
    assert set(masks) == {("one", "cat"), ("two", "cat"), ("two", "cow")}
    for (image, name), value in masks.items():
        label = np.array(Image.open(runs["shape"].parent / "devkit" / "SegmentationClassAug" / f"{image}.png"))
        assert value == pytest.approx(compactness(label == names.index(name) + 1))
    cat = next(row for row in classes if row["name"] == "cat")
    both = [masks["one", "cat"], masks["two", "cat"]]
    assert float(cat["compactness_variance"]) == pytest.approx(np.var(both, ddof=1))
    assert next(row for row in classes if row["name"] == "cow")["compactness_variance"] == ""  # one mask has none

    text = (tmp_path / "analysis.md").read_text()
    assert "the settings differ in data.root, text.anchors." in text  # each run has a folder of its own
    assert "Fewer than 10 classes: r and p mean nothing" in text
    assert text == result.stdout.removesuffix("\n")
    for name in ("compactness", "locality", "by_setting"):
        with Image.open(tmp_path / f"{name}.png") as picture:
            assert min(picture.size) > 300
    assert {row["means_something"] for row in read(tmp_path / "correlations.csv")} == {"False"}


def test_bad_input_is_one_line(runs, tmp_path):
    def line(*arguments):
        return complaint(command("-m", "experiments", "analysis", *arguments, "--out", tmp_path / "out"))

    assert "--workdir" in line()
    assert "holds no checkpoint" in line("--workdir", tmp_path)
    same = line("--workdir", runs["shape"], "--workdir", runs["shape"])
    assert "one setting and both of fold 1" in same
    assert not (tmp_path / "out").exists()


def series(rng, title, slope, count=20, bound=False):
    x = rng.uniform(0.01, 0.035, count)
    iou = np.clip(60 - slope * (x - 0.02) + rng.normal(scale=8, size=count), 0, 100)
    return Series(title, x, iou, [f"class {i}" for i in range(count)], correlate(x, iou), bound)


def test_figures_tell_r_and_p_of_enough_classes_alone():
    rng = np.random.default_rng(0)
    many, few = series(rng, "many", 1500), series(rng, "few", 1500, 6)
    assert many.correlation is not None
    assert f"r = {many.correlation.r:+.2f}" in told(many.correlation, 20)
    assert told(few.correlation, 6) == "6 classes, fewer than 10: no r, no p"
    assert told(None, 0) == "0 classes, fewer than 10: no r, no p"
    for draw in (all_in_one, by_setting):
        assert draw({"x": [many, few]}).startswith(b"\x89PNG")
