"""python -m experiments qualitative and gallery, as a person runs them."""

import base64
import csv
import io
import re

import pytest
from PIL import Image

from tests.tiny_run import command, complaint, make_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """By name: fold 1 with and without the shape constraint, fold 2 with it."""
    folder = tmp_path_factory.mktemp("pictures")
    made = {}
    for name, settings in {"shape": {}, "plain": {"shape": False}, "fold2": {"fold": 2}}.items():
        (folder / name).mkdir()
        made[name] = make_run(folder / name, **settings)
    return made


def sizes(folder):
    found = {}
    for path in folder.iterdir():
        with Image.open(path) as picture:
            found[path.name] = picture.size
    return found


def test_qualitative_figures_with_both_runs_and_with_one(runs, tmp_path):
    both = ("--without_shape", runs["plain"], "--with_shape", runs["shape"])
    arguments = ("-m", "experiments", "qualitative", "--config.eval.fusion=diffusion", "--rows=2")
    result = command(*arguments, *both, "--out", tmp_path / "both")
    assert result.returncode == 0, result.stderr
    whole = sizes(tmp_path / "both")
    assert set(whole) == {"unseen.png", "seen.png", "scenes.png"}
    result = command(*arguments, *both[:2], "--out", tmp_path / "one")
    assert result.returncode == 0, result.stderr
    for name, (width, _) in sizes(tmp_path / "one").items():
        assert width < whole[name][0]  # a column is missing


def test_qualitative_bad_input_is_one_line(runs, tmp_path):
    def line(*arguments):
        return complaint(command("-m", "experiments", "qualitative", *arguments, "--out", tmp_path / "out"))

    assert "give --without_shape W1, --with_shape W2 or both" in line()
    assert "holds no checkpoint" in line("--with_shape", tmp_path)
    assert "it is no run without shape" in line("--without_shape", runs["shape"])
    folds = line("--without_shape", runs["plain"], "--with_shape", runs["fold2"])
    assert "did not see bus, car, cat, chair, cow" in folds
    assert "give two runs of one data.fold" in folds
    assert not (tmp_path / "out").exists()


def test_the_gallery_is_one_page_with_its_pictures_inside(runs, tmp_path):
    arguments = ("--out", tmp_path, "--config.eval.fusion=diffusion")
    result = command("-m", "experiments", "gallery", "--workdir", runs["plain"], *arguments)
    assert result.returncode == 0, result.stderr
    text = (tmp_path / "index.html").read_text()
    sources = re.findall(r'src="([^"]*)"', text)
    assert len(sources) == 3 * 4  # three pairs: image, network alone, fused, truth
    for source in sources:
        head, content = source.split(",")
        assert head == "data:image/jpeg;base64"
        assert Image.open(io.BytesIO(base64.b64decode(content))).size == (48, 40)
    assert "href" not in text
    assert re.findall("<h2>(.*)</h2>", text) == ["Best", "Median", "Worst"]

    with (tmp_path / "episodes.csv").open() as file:
        rows = list(csv.DictReader(file))
    ious = [float(row["diffusion"]) for row in rows]
    assert ious == sorted(ious, reverse=True)
    shown = re.findall(r">diffusion: IoU ([\d.]+)%", text)
    assert shown == [f"{100 * iou:.1f}" for iou in ious]
    none = complaint(command("-m", "experiments", "gallery", "--workdir", tmp_path, "--out", tmp_path / "out"))
    assert "holds no checkpoint" in none
    assert not (tmp_path / "out").exists()
