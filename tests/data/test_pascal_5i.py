import importlib
import io
import os
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

import data
from data import voc_archives
from data.codecs import decode_label
from data.folds import is_selection, pairs_by_pixels
from data.pascal_5i import FOLDS, Devkit
from sazs_jax.errors import UserError
from sazs_jax.label_map import IGNORED, VOID
from tests.tiny_devkit import files_in


def labels_of(split):
    return {record["image_id"]: decode_label(record["label"]) for record in split.source}


# --- what a prepared set holds ---


def test_records_are_the_folders_files(make_devkit, data_config):
    devkit = make_devkit()
    val = data.load(data_config(devkit.root)).val
    assert val.image_ids == ("v_cat_cow", "v_cow", "v_dog")
    for i, image_id in enumerate(val.image_ids):
        record = val.source[i]
        assert record["image_id"] == image_id
        assert record["image"] == devkit.jpeg(image_id).read_bytes()
        np.testing.assert_array_equal(decode_label(record["label"]), np.asarray(Image.open(devkit.mask(image_id))))
    assert val.present == ((7, 9), (9,), (11,))
    assert val.pair_list == {0: [], 1: [(0, 7), (1, 9), (0, 9)], 2: [(2, 11)], 3: []}


def test_three_sets(make_devkit, data_config, monkeypatch):
    devkit = make_devkit()
    prepared = data.load(data_config(devkit.root))
    assert not any(is_selection(image_id) for image_id in prepared.train.image_ids)
    ids = prepared.train.image_ids

    def names(indices):
        return [ids[i] for i in indices]

    assert ids == ("a_bird", "a_cat", "a_cat_and_dog", "a_dog")
    assert names(prepared.train_indices(1, "ignore")) == ["a_bird", "a_cat_and_dog", "a_dog"]
    assert names(prepared.train_indices(1, "others")) == ["a_bird", "a_cat_and_dog", "a_dog"]
    assert names(prepared.train_indices(1, "drop")) == ["a_bird", "a_dog"]
    # Each image once, though it is listed with two seen classes.
    assert names(prepared.train_indices(3, "ignore")) == ["a_bird", "a_cat", "a_cat_and_dog", "a_dog"]
    assert prepared.test_pairs(1) == [(0, 7), (1, 9), (0, 9)]
    assert prepared.selection_pairs(1, prepared.seen(1)) == []

    monkeypatch.setattr("data.datasets.is_selection", lambda image_id: image_id.startswith("a_cat"))
    assert names(prepared.train_indices(1, "ignore")) == ["a_bird", "a_dog"]
    assert [(ids[i], c) for i, c in prepared.selection_pairs(3, prepared.seen(3))] == [
        ("a_cat", 7),
        ("a_cat_and_dog", 7),
        ("a_cat_and_dog", 11),
    ]
    # The cat is unseen, and stays so when it is asked for.
    assert [(ids[i], c) for i, c in prepared.selection_pairs(1, (7, 11))] == [("a_cat_and_dog", 11)]


def test_excluded_classes_are_withheld_as_the_unseen_are(make_devkit, data_config):
    config = data_config(make_devkit().root)
    prepared = data.load(config)
    ids = prepared.train.image_ids
    assert [ids[i] for i in prepared.train_indices(1, "ignore", ("dog",))] == ["a_bird"]
    assert 11 not in prepared.seen(1, ("dog",))
    lookup = prepared.training_lookup(1, "ignore", ("dog",))
    assert lookup[12] == lookup[8] == IGNORED  # the dog, as the unseen cat
    assert sorted(set(lookup.tolist()) - {VOID, IGNORED}) == list(range(15))  # others and fourteen seen classes
    with pytest.raises(UserError, match="data.exclude names unicorn"):
        prepared.seen(1, ("unicorn",))


def test_a_folder_with_val_lists_alone_can_be_scored(make_devkit, data_config):
    devkit = make_devkit()
    for file in (devkit.root / "splits/trn").iterdir():
        file.unlink()
    for image_id in ("a_cat", "a_dog", "a_cat_and_dog", "a_bird"):
        devkit.jpeg(image_id).unlink()
    prepared = data.load(data_config(devkit.root))
    assert prepared.test_pairs(2) == [(2, 11)]
    with pytest.raises(UserError, match=r"folds 0, 2, 3 are missing: add splits/\{trn,val\}/fold\{0\.\.3\}\.txt"):
        prepared.train_indices(1, "ignore")


def test_scoring_does_not_look_at_the_training_images(make_devkit, data_config):
    devkit = make_devkit()
    devkit.jpeg("a_cat").unlink()
    config = data_config(devkit.root)
    assert data.load(config, splits=("val",)).test_pairs(2) == [(2, 11)]
    with pytest.raises(UserError, match="a_cat is listed"):
        data.load(config)


def test_masks_are_built_from_vocs_and_sbds(empty_devkit, data_config):
    devkit = empty_devkit
    voc, sbd = np.full((40, 48), 3), np.full((40, 48), 5)
    sbd[:4] = 0
    for image_id in ("both", "sbd_only", "voc_only"):
        devkit.add_jpeg(image_id)
    devkit.add_mask("both", voc, "SegmentationClass")
    devkit.add_mask("voc_only", voc, "SegmentationClass")
    devkit.add_sbd("both", sbd)
    devkit.add_sbd("sbd_only", sbd)
    devkit.write_list("val", 0, "both__03", "sbd_only__05", "voc_only__03")
    labels = labels_of(data.load(data_config(devkit.root)).val)
    np.testing.assert_array_equal(labels["both"], voc)
    np.testing.assert_array_equal(labels["sbd_only"], sbd)
    np.testing.assert_array_equal(labels["voc_only"], voc)


def test_lists_by_the_2048_pixel_rule(empty_devkit, data_config):
    devkit = empty_devkit

    def with_pixels(image_id, sizes, folder="SegmentationClass"):
        """Mask of 64x80 that holds exactly so many pixels of each class."""
        values = np.zeros(64 * 80, np.uint8)
        start = 0
        for c, n in sizes.items():
            values[start : start + n] = c
            start += n
        devkit.add_jpeg(image_id, (80, 64))
        if folder == "sbd":
            devkit.add_sbd(image_id, values.reshape(64, 80))
        else:
            devkit.add_mask(image_id, values.reshape(64, 80), folder)

    with_pixels("val_1", {8: 2048, 12: 2047})
    with_pixels("val_2", {12: 3000, 8: 2048})
    with_pixels("val_small", {1: 2000})
    with_pixels("trn_1", {3: 2500})
    with_pixels("trn_sbd", {17: 2500}, folder="sbd")
    devkit.add_sbd("val_1", np.zeros((64, 80)))  # SBD annotates some of VOC's val images: they stay test images
    devkit.add_sbd("no_such_image", np.zeros((64, 80)))
    devkit.write_image_set("val", "val_1", "val_2", "val_small")
    devkit.write_image_set("train", "trn_1")
    prepared = data.load(data_config(devkit.root))
    assert prepared.val.image_ids == ("val_1", "val_2")
    assert prepared.val.pair_list == {0: [], 1: [(0, 7), (1, 7)], 2: [(1, 11)], 3: []}
    assert prepared.train.image_ids == ("trn_1", "trn_sbd")
    assert prepared.train.pair_list == {0: [(0, 2)], 1: [], 2: [], 3: [(1, 16)]}


def test_the_rule_agrees_with_the_published_lists(sazs_data):
    """2048 pixels at VOC's 500 are 838 at the lent photographs' 320."""
    devkit = Devkit.open(sazs_data / "voc_animals")
    lists = devkit.read_fold_lists("train")
    assert lists is not None
    published = {pair for pairs in lists.values() for pair in pairs}
    ids = devkit.candidates("train")
    assert len(ids) == 2352
    assert {image_id for image_id, _ in published} == set(ids)
    counts = np.array([np.bincount(devkit.read_mask(i)[1].ravel(), minlength=256)[1:21] for i in ids])
    made = {(ids[i], c) for pairs in pairs_by_pixels(counts, 838, FOLDS).values() for i, c in pairs}
    assert len(made & published) / len(made | published) > 0.97


def test_lent_photographs(sazs_data, data_config):
    prepared = data.load(data_config(sazs_data / "voc_animals"), splits=("val",))
    assert len(prepared.val.source) == len(prepared.val.image_ids) == 245
    assert [len(prepared.test_pairs(fold)) for fold in range(4)] == [1, 110, 159, 52]
    listed = [pair for pairs in prepared.val.pair_list.values() for pair in pairs]
    assert all(c in prepared.val.present[i] for i, c in listed)


# --- prepared data is never taken for another folder's ---


def test_scoring_b_after_a_scores_b_also_after_b_changes(make_devkit, data_config):
    a, b = make_devkit("a"), make_devkit("b")
    b.add("v_dog", 12, 13)
    labels_a = labels_of(data.load(data_config(a.root)).val)
    labels_b = labels_of(data.load(data_config(b.root)).val)
    np.testing.assert_array_equal(labels_b["v_dog"], np.asarray(Image.open(b.mask("v_dog"))))
    assert (labels_a["v_dog"] != labels_b["v_dog"]).any()

    # A change that leaves the file's size and time as they were.
    before = b.mask("v_dog").stat()
    changed = np.roll(labels_b["v_dog"], 20, axis=0)
    b.add_mask("v_dog", changed)
    with b.mask("v_dog").open("ab") as file:
        file.write(b"\0" * (before.st_size - b.mask("v_dog").stat().st_size))
    os.utime(b.mask("v_dog"), ns=(before.st_atime_ns, before.st_mtime_ns))
    np.testing.assert_array_equal(labels_of(data.load(data_config(b.root)).val)["v_dog"], changed)

    b.write_list("val", 1, "v_cow__10")
    assert data.load(data_config(b.root)).val.image_ids == ("v_cow", "v_dog")
    np.testing.assert_array_equal(labels_of(data.load(data_config(a.root)).val)["v_dog"], labels_a["v_dog"])


def test_prepared_once(make_devkit, data_config, monkeypatch):
    config = data_config(make_devkit().root)
    data.load(config)
    monkeypatch.setattr(Devkit, "read_example", lambda *_: pytest.fail("prepared again"))
    data.load(config)


def test_the_source_folder_is_left_alone_and_the_cache_can_come_from_the_environment(
    make_devkit, data_config, monkeypatch, tmp_path
):
    devkit = make_devkit()
    before = files_in(devkit.root)
    monkeypatch.setenv("SAZS_CACHE", str(tmp_path / "elsewhere"))
    data.load(data_config(devkit.root, cache=""))
    assert files_in(devkit.root) == before
    assert any((tmp_path / "elsewhere").rglob("*array_record*"))
    assert not (tmp_path / "cache").exists()


def test_two_processes_at_once(make_devkit, data_config):
    """Both prepare with the same `random` state, which TFDS names its temporary folder by."""
    config = data_config(make_devkit().root)
    script = (
        "import random, sys, time; import data; from ml_collections import ConfigDict; random.seed(0)\n"
        "time.sleep(max(0, float(sys.argv[3]) - time.time()))\n"
        "d = data.load(ConfigDict({'dataset': 'pascal_5i', 'root': sys.argv[1], 'cache': sys.argv[2]}))\n"
        "print([r['image_id'] for r in d.val.source])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1])}
    command = [sys.executable, "-c", script, config.root, config.cache, str(time.time() + 4)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert outputs == ["['v_cat_cow', 'v_cow', 'v_dog']\n"] * 2
    assert data.load(config).val.image_ids == ("v_cat_cow", "v_cow", "v_dog")


# --- OpenCV ---


def opencv_or_its_like():
    """OpenCV, or what TFDS uses of it, with its way of reading a palette PNG."""
    try:
        return importlib.import_module("cv2")
    except ImportError:

        def imdecode(encoded, _):
            picture = Image.open(io.BytesIO(encoded.tobytes()))
            return np.asarray(picture) if picture.mode == "L" else np.asarray(picture.convert("RGB"))[..., ::-1]

        return SimpleNamespace(
            IMREAD_UNCHANGED=-1, COLOR_BGR2RGB=4, imdecode=imdecode, cvtColor=lambda image, _: image[..., ::-1]
        )


def test_labels_stay_class_values_when_opencv_is_installed(make_devkit, data_config, monkeypatch):
    """TFDS decodes with OpenCV as soon as it is there, and OpenCV gives a palette PNG's colours."""
    devkit = make_devkit()

    cv2 = opencv_or_its_like()
    monkeypatch.setattr("tensorflow_datasets.core.features.image_feature.cv2", cv2)
    encoded = np.frombuffer(devkit.mask("v_dog").read_bytes(), np.uint8)
    assert cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED).ndim == 3  # the trap

    val = data.load(data_config(devkit.root)).val
    expected = np.asarray(Image.open(devkit.mask("v_dog")))
    np.testing.assert_array_equal(decode_label(val.source[2]["label"]), expected)
    by_tfds = tfds.builder_from_directory(val.source.folder).as_data_source(split="val")[2]  # pyright: ignore
    np.testing.assert_array_equal(by_tfds["label"][..., 0], expected)


# --- the official archives ---


def test_archives_become_one_devkit(make_devkit, data_config, monkeypatch, tmp_path):
    """The layout of the official archives: VOC's masks and lists, SBD's annotations, joined and listed by the rule."""
    devkit = make_devkit("VOC2012")
    (devkit.root / "splits").rename(tmp_path / "splits")
    devkit.mask("v_dog").parent.rename(tmp_path / "masks")
    devkit.add_jpeg("big", (80, 64))
    devkit.add_mask("big", np.full((64, 80), 12), "SegmentationClass")
    devkit.add_jpeg("big_sbd", (80, 64))
    devkit.add_sbd("big_sbd", np.full((64, 80), 8))
    devkit.write_image_set("val", "big")
    devkit.write_image_set("train")
    sbd = tmp_path / "benchmark.tgz"
    with tarfile.open(sbd, "w:gz") as tar:
        tar.add(devkit.root / "benchmark_RELEASE", "benchmark_RELEASE")
    (devkit.root / "benchmark_RELEASE").rename(tmp_path / "packed")
    voc = tmp_path / "voc.tar"
    with tarfile.open(voc, "w") as tar:
        tar.add(devkit.root, "VOCdevkit/VOC2012")

    monkeypatch.setattr(voc_archives, "fetch", lambda url, cache, **_: voc if url == voc_archives.VOC_URL else sbd)
    prepared = data.load(data_config(""))
    assert prepared.val.image_ids == ("big",)
    assert prepared.train.image_ids == ("big_sbd",)
    assert prepared.train.pair_list == {0: [], 1: [(0, 7)], 2: [], 3: []}
