"""predict.py and evaluate.py as a person runs them."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from sazs_jax.spectral.fusion import RULES
from tests.tiny_run import command, complaint, make_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("commands"))


def test_masks_overlays_and_areas_beside_a_broken_image(workdir, tmp_path):
    rng = np.random.default_rng(0)
    images = [tmp_path / "a" / "photo.jpg", tmp_path / "a" / "broken.jpg", tmp_path / "b" / "photo.png"]
    for image, shape in zip(images, [(50, 70, 3), (40, 40, 3), (33, 64, 3)], strict=True):
        image.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(image)
    images[1].write_bytes(images[1].read_bytes()[:500])
    out = tmp_path / "out"

    result = command("predict.py", "--workdir", workdir, "--labels", "cat, zebra", "--out", out, *images)
    assert "broken.jpg" in complaint(result)
    kinds = ("json", "mask.png", "overlay.png")
    expected = {f"{name}.{kind}" for name in ("photo", "photo_2") for kind in kinds}
    assert {path.name for path in out.iterdir()} == expected  # the broken one costs the others nothing
    for name, size in (("photo", (50, 70)), ("photo_2", (33, 64))):
        mask = np.array(Image.open(out / f"{name}.mask.png"))
        summary = json.loads((out / f"{name}.json").read_text())
        assert mask.shape == tuple(summary["size"]) == size
        for value, label in ((1, "cat"), (2, "zebra")):
            found = summary["labels"][label]
            assert found["value"] == value
            assert found["pixels"] == (mask == value).sum()
            assert found["fraction"] == pytest.approx((mask == value).mean())
            assert found["mean_score"] is None or -1 <= found["mean_score"] <= 1
        with Image.open(out / f"{name}.overlay.png") as overlay:
            assert overlay.width >= size[1]
            assert overlay.height > size[0]  # the legend is below


def test_fused_masks_and_eigensegments(workdir, tmp_path):
    image = tmp_path / "photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)).save(image)
    arguments = ("predict.py", "--workdir", workdir, "--labels", "cat,zebra", "--eigensegments")
    for rule in ("agreement+diffusion", "none"):
        result = command(*arguments, "--fusion", rule, "--out", tmp_path / rule, image)
        assert result.returncode == 0, result.stderr
        kinds = ("eigensegments.png", "json", "mask.png", "overlay.png")
        assert sorted(path.name for path in (tmp_path / rule).iterdir()) == [f"photo.{kind}" for kind in kinds]
        with Image.open(tmp_path / rule / "photo.eigensegments.png") as sheet:
            assert sheet.width > 6 * 70  # the image and five eigenvectors
            assert sheet.height > 2 * 50
    masks = [(tmp_path / rule / "photo.mask.png").read_bytes() for rule in ("agreement+diffusion", "none")]
    assert masks[0] != masks[1]
    unknown = command(*arguments, "--fusion", "oracle", "--out", tmp_path / "oracle", image)
    assert "agreement+diffusion" in complaint(unknown)
    no_features = command(*arguments, "--features", "dinosaur", "--out", tmp_path / "no", image)
    assert "expected dino, lite, embeddings" in complaint(no_features)
    assert not (tmp_path / "no").exists()


def test_no_rule_but_the_oracle_looks_at_the_masks(workdir, tmp_path):
    """Scored on a copy of the data with scrambled masks, every label-free rule predicts the same, bit for bit."""
    devkit = workdir.parent / "devkit"
    copy = tmp_path / "scrambled"
    shutil.copytree(devkit, copy)
    rng = np.random.default_rng(0)
    for path in (copy / "SegmentationClassAug").iterdir():
        mask = np.array(Image.open(path))
        Image.fromarray(rng.permutation(mask.ravel()).reshape(mask.shape)).save(path)
    metrics = []
    for root in (devkit, copy):
        out = tmp_path / f"{root.name}_predictions"
        result = command("evaluate.py", "--workdir", workdir, "--data_root", root, "--predictions", out)
        assert result.returncode == 0, result.stderr
        metrics.append(json.loads((workdir / "eval" / "metrics.json").read_text()))
    folders = [tmp_path / f"{root.name}_predictions" for root in (devkit, copy)]
    files = [{str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.png")} for folder in folders]
    assert {name.split("/")[0] for name in files[0]} == set(RULES)
    assert len(files[0]) == 3 * len(RULES)  # three pairs
    assert files[0] == files[1]
    for rule in (*RULES, "oracle"):
        assert metrics[0]["fusion"][rule] != metrics[1]["fusion"][rule]
    assert set(metrics[0]["generalized"]) == {"raw", *RULES} - {"none"}


def test_bad_input_is_one_line_and_status_2(workdir, tmp_path):
    image = tmp_path / "photo.png"
    Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(image)
    out = tmp_path / "out"
    no_run = command("predict.py", "--workdir", tmp_path / "none", "--labels", "cat", "--out", out, image)
    assert "no checkpoint" in complaint(no_run)
    unknown = command("predict.py", "--workdir", workdir, "--labels", "cat,unicorn,griffin", "--out", out, image)
    assert "'unicorn', 'griffin'" in complaint(unknown)
    assert not out.exists()
    own = tmp_path / "photo.overlay.png"
    own.write_bytes(image.read_bytes())
    overwriting = command("predict.py", "--workdir", workdir, "--labels", "cat", "--out", tmp_path, image, own)
    assert "photo.overlay.png is an input and would be overwritten" in complaint(overwriting)
    assert own.read_bytes() == image.read_bytes()
    assert not (tmp_path / "photo.mask.png").exists()


def test_results_file_and_table(workdir):
    arguments = ("--workdir", workdir, "--config.eval.resize=64", "--config.eval.protocol=hsnet1000")
    result = command("evaluate.py", *arguments)
    assert result.returncode == 0, result.stderr
    metrics = json.loads((workdir / "eval" / "metrics.json").read_text())
    head = {key: metrics[key] for key in ("step", "fold", "episodes", "protocol", "resize")}
    assert head == {"step": 3, "fold": 1, "episodes": 1000, "protocol": "hsnet1000", "resize": 64}
    assert metrics["anchors"]["kind"] == "table"
    none = metrics["fusion"]["none"]
    assert list(none["per_class"]) == ["bus", "car", "cat", "chair", "cow"]
    assert none["pairs"] == {"bus": 0, "car": 0, "cat": 2, "chair": 0, "cow": 1}
    assert none["per_class"]["bus"] is None
    assert 0 <= none["per_class"]["cat"] <= 1
    assert none["miou_min_pairs"] is None
    assert set(metrics["fusion"]) == {*RULES, "oracle"}
    assert "oracle (upper bound)" in result.stdout
    assert {"seen", "unseen", "harmonic", "per_class"} <= set(metrics["generalized"]["raw"])
    assert metrics["generalized"]["raw"]["per_class"]["dog"] is not None  # images of all folds' lists
    assert "squashed to 64x64" in result.stdout

    written = (workdir / "eval" / "metrics.json").read_bytes()
    assert "eval.protocol, eval.resize" in complaint(
        command("evaluate.py", "--workdir", workdir, "--config.eval.size=3")
    )
    assert "eval.resize=50 must be a multiple of 8" in complaint(
        command("evaluate.py", "--workdir", workdir, "--config.eval.resize=50")
    )
    assert "at least 1" in complaint(command("evaluate.py", "--workdir", workdir, "--config.eval.batch_size=0"))
    assert (workdir / "eval" / "metrics.json").read_bytes() == written


def test_a_config_that_cannot_be_read_is_told_in_one_line(tmp_path):
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    for config, told in {"absent.py": "absent.py", "broken.py": "broken.py, line 1"}.items():
        line = complaint(command("train.py", "--config", tmp_path / config, "--workdir", tmp_path / "run"))
        assert told in line
    assert not (tmp_path / "run").exists()
