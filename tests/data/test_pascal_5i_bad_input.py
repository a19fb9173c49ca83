"""What a person can get wrong with a VOC devkit folder: one line each, and nothing half-prepared."""

import os
import time

import numpy as np
import pytest
from PIL import Image

import data
from data import voc_archives
from data.codecs import decode_image
from data.pascal_5i import Devkit
from sazs_jax.errors import UserError
from tests.tiny_devkit import files_in


def no_mask(devkit):
    devkit.mask("v_dog").unlink()


def mask_of_another_size(devkit):
    devkit.add_mask("v_dog", np.zeros((20, 24)))


def truncated_jpeg(devkit):
    devkit.jpeg("v_dog").write_bytes(devkit.jpeg("v_dog").read_bytes()[:-200])


def not_a_jpeg(devkit):
    devkit.jpeg("v_dog").write_bytes(b"a page that says 404")


def truncated_mask(devkit):
    devkit.mask("v_dog").write_bytes(devkit.mask("v_dog").read_bytes()[:-40])


def mask_value(devkit):
    values = np.zeros((40, 48))
    values[5, 5] = 21
    devkit.add_mask("v_dog", values)


def colour_mask(devkit):
    Image.new("RGB", (48, 40)).save(devkit.mask("v_dog"))


def listed_but_absent(devkit):
    devkit.jpeg("v_dog").unlink()


def malformed_line(devkit):
    devkit.write_list("val", 2, "v_dog__12", "v_dog 12")


def class_of_another_fold(devkit):
    devkit.write_list("val", 2, "v_dog__10")


def list_is_no_text(devkit):
    (devkit.root / "splits/val/fold2.txt").write_bytes(b"\xff\xfe\x80")


def empty_split(devkit):
    for fold in range(4):
        devkit.write_list("val", fold)


def no_val_lists(devkit):
    for file in (devkit.root / "splits/val").iterdir():
        file.unlink()


def dangling_link(devkit):
    devkit.jpeg("v_dog").unlink()
    devkit.jpeg("v_dog").symlink_to(devkit.root / "nowhere.jpg")


def no_lists_at_all(devkit):
    (devkit.root / "splits").rename(devkit.root / "lists")


def no_masks_at_all(devkit):
    devkit.mask("v_dog").parent.rename(devkit.root / "masks")


def no_devkit(devkit):
    (devkit.root / "JPEGImages").rename(devkit.root / "images")


def no_folder(devkit):
    devkit.root.rename(devkit.root.parent / "moved")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_mask, r"image v_dog has no mask: expected .*/SegmentationClassAug/v_dog\.png; add it"),
        (mask_of_another_size, r"SegmentationClassAug/v_dog\.png is 24x20 but its image is 48x40; expected .*replace"),
        (truncated_jpeg, r"JPEGImages/v_dog\.jpg is not a whole JPEG image \(.*truncated.*\); replace it"),
        (not_a_jpeg, r"JPEGImages/v_dog\.jpg is not a whole JPEG image .*; replace it"),
        (truncated_mask, r"SegmentationClassAug/v_dog\.png is not a mask of class values .*; replace it"),
        (mask_value, r"v_dog\.png holds the value 21; expected 0 \(others\), 1\.\.20 \(classes\) or 255 \(void\)"),
        (colour_mask, r"v_dog\.png is not a mask of class values \(a picture of mode RGB.*\); replace it"),
        (listed_but_absent, r"v_dog is listed, but .*/JPEGImages/v_dog\.jpg is not there; add the image or remove it"),
        (malformed_line, r"splits/val/fold2\.txt, line 2 is 'v_dog 12'; expected <image id>__<class>"),
        (class_of_another_fold, r"fold2\.txt, line 1 is 'v_dog__10'; expected .* with a class from 11 to 15"),
        (list_is_no_text, r"splits/val/fold2\.txt is not a readable text file"),
        (empty_split, r"the val lists of .* name no image; add lines"),
        (no_val_lists, r"no test lists in .*: expected splits/val/fold0\.txt"),
        (dangling_link, r"JPEGImages/v_dog\.jpg cannot be read \(No such file .*\); replace or remove it"),
        (no_lists_at_all, r"no test lists in .* without splits/ ImageSets/Segmentation/val\.txt"),
        (no_masks_at_all, r"holds no masks: expected SegmentationClassAug, or SegmentationClass and SBD's"),
        (no_devkit, r"is not a VOC devkit folder: no JPEGImages in it; give the folder"),
        (no_folder, r"data\.root: no folder .*; give a VOC devkit folder"),
    ],
)
def test_errors(make_devkit, data_config, tmp_path, spoil, message):
    devkit = make_devkit()
    spoil(devkit)
    before = files_in(tmp_path)
    for _ in range(2):  # the second time too: nothing half-prepared is taken for good
        with pytest.raises(UserError, match=message) as error:
            data.load(data_config(devkit.root), splits=("val",))
        assert "\n" not in str(error.value)
    assert files_in(tmp_path) == before


def test_a_mended_folder_loads(make_devkit, data_config):
    devkit = make_devkit()
    whole = devkit.jpeg("v_dog").read_bytes()
    truncated_jpeg(devkit)
    with pytest.raises(UserError):
        data.load(data_config(devkit.root))
    devkit.jpeg("v_dog").write_bytes(whole)
    val = data.load(data_config(devkit.root)).val
    assert decode_image(val.source[2]["image"]).shape == (40, 48, 3)


def test_folder_that_changes_while_it_is_read(make_devkit, data_config, monkeypatch):
    devkit = make_devkit()
    read_example = Devkit.read_example

    def read_and_change(self, image_id):
        devkit.jpeg("v_cow").touch()
        return read_example(self, image_id)

    monkeypatch.setattr(Devkit, "read_example", read_and_change)
    with pytest.raises(UserError, match="changed while it was read; run again"):
        data.load(data_config(devkit.root))
    monkeypatch.undo()
    assert len(data.load(data_config(devkit.root)).val.source) == 3


def test_empty_selection_of_training_images(make_devkit, data_config):
    devkit = make_devkit()
    for fold in (0, 2):
        devkit.write_list("trn", fold)
    prepared = data.load(data_config(devkit.root))
    with pytest.raises(UserError, match="no image to train on for fold 1"):
        prepared.train_indices(1, "ignore")
    with pytest.raises(UserError, match="nothing to score for fold 0"):
        prepared.test_pairs(0)
    with pytest.raises(UserError, match=r"data\.fold is 7"):
        prepared.train_indices(7, "ignore")
    with pytest.raises(UserError, match=r"data\.fold is 7"):
        prepared.test_pairs(7)


def test_cache_that_cannot_be_written(make_devkit, data_config, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written to .*/file/.*; give another folder as data\.cache"):
        data.load(data_config(make_devkit().root, cache=str(tmp_path / "file")))


def test_what_a_killed_preparation_left_is_removed_after_a_day(make_devkit, data_config, tmp_path):
    devkit = make_devkit()
    cache = tmp_path / "cache" / "pascal_5i" / Devkit.open(devkit.root).digest()
    old, new = cache / ".val-old", cache / ".val-new"
    for folder in (old, new):
        folder.mkdir(parents=True)
    two_days_ago = time.time() - 2 * 24 * 3600
    os.utime(old, (two_days_ago, two_days_ago))
    data.load(data_config(devkit.root), splits=("val",))
    assert {path.name for path in cache.iterdir()} == {".val-new", "val"}


def test_unknown_data_set(data_config):
    with pytest.raises(UserError, match=r"data\.dataset is 'ade'; expected one of pascal_5i, coco_20i, shapes"):
        data.load(data_config("", dataset="ade"))


def test_no_network(data_config, monkeypatch, tmp_path):
    monkeypatch.setattr(voc_archives, "VOC_URL", "http://127.0.0.1:9/voc.tar")
    with pytest.raises(UserError, match=r"data\.root is empty and http://127.0.0.1:9/voc\.tar could not be downloaded"):
        data.load(data_config(""))
