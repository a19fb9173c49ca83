"""What a person can get wrong with a COCO folder: one line each, and nothing half-prepared."""

import json

import numpy as np
import pytest
from PIL import Image

import data
from data import coco_archives
from data.coco_20i import CocoFolder
from data.coco_annotations import decode_segmentation
from sazs_jax.errors import UserError
from tests.tiny_coco import SIZE, Coco, box
from tests.tiny_devkit import files_in

PERSON, CAR = 1, 3
WHOLE = box(0, 0, *SIZE)


@pytest.fixture
def coco(tmp_path) -> Coco:
    folder = Coco(tmp_path / "coco")
    folder.add("val", 1, (PERSON, WHOLE))
    folder.add("val", 2, (CAR, WHOLE))
    folder.add("train", 3, (CAR, WHOLE))
    return folder.write()


def edit(coco, change):
    content = json.loads(coco.json("val").read_text())
    change(content)
    coco.json("val").write_text(json.dumps(content))


def segmentation(coco, value):
    edit(coco, lambda content: content["annotations"][1].update(segmentation=value))


def no_folder(coco):
    coco.root.rename(coco.root.parent / "moved")


def no_annotations(coco):
    for split in ("train", "val"):
        coco.json(split).unlink()


def no_val_annotations(coco):
    coco.json("val").unlink()


def broken_json(coco):
    coco.json("val").write_text(coco.json("val").read_text()[:-30])


def json_is_no_text(coco):
    coco.json("val").write_bytes(b"\xff\xfe\x80")


def json_of_another_kind(coco):
    coco.json("val").write_text('{"images": []}')


def json_that_is_a_list(coco):
    coco.json("val").write_text("[]")


def unknown_category(coco):
    edit(coco, lambda content: content["annotations"][1].update(category_id=12))


def other_categories(coco):
    edit(coco, lambda content: content["categories"][2].update(name="lorry"))


def annotation_of_no_image(coco):
    edit(coco, lambda content: content["annotations"][1].update(image_id=77))


def annotation_without_crowd(coco):
    edit(coco, lambda content: content["annotations"][1].pop("iscrowd"))


def odd_polygon(coco):
    segmentation(coco, [[0, 0, 9, 0, 9, 9, 0]])


def polygon_far_away(coco):
    segmentation(coco, box(0, 0, 1e9, 1e9))


def polygon_of_words(coco):
    segmentation(coco, [["a", "b", "c"]])


def no_segmentation(coco):
    segmentation(coco, None)


def runs_too_long(coco):
    segmentation(coco, {"size": [48, 64], "counts": [0, 9999]})


def runs_of_another_size(coco):
    segmentation(coco, {"size": [64, 48], "counts": [0, 3072]})


def code_cut_short(coco):
    segmentation(coco, {"size": [48, 64], "counts": "PPYo"})


def missing_image(coco):
    coco.jpeg("val", 2).unlink()


def truncated_jpeg(coco):
    coco.jpeg("val", 2).write_bytes(coco.jpeg("val", 2).read_bytes()[:-200])


def image_of_another_size(coco):
    Image.new("RGB", (20, 20)).save(coco.jpeg("val", 2))


def nothing_large_enough(coco):
    edit(coco, lambda content: content.update(annotations=[]))


def listed_but_not_annotated(coco):
    coco.write_list("val_fold0", (1, 0), (99, 0))


def list_of_another_fold(coco):
    coco.write_list("val_fold0", (1, 2))


def list_is_no_list(coco):
    coco.write_list("val_fold0")
    (coco.root / "splits/val_fold0.npz").write_bytes(b"404")


def list_of_other_arrays(coco):
    coco.write_list("val_fold0")
    np.savez(coco.root / "splits/val_fold0.npz", pairs=[1])


def list_of_floats(coco):
    coco.write_list("val_fold0")
    np.savez(coco.root / "splits/val_fold0.npz", image_id=[1.5], class_id=[0])


def only_training_lists(coco):
    coco.write_list("trn_fold0", (3, 2))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_folder, r"data\.root: no folder .*; give COCO's"),
        (no_annotations, r"is not a COCO folder: no instances_\*\.json in its annotations/; expected"),
        (no_val_annotations, r"no test images in .*: expected splits/val_fold0\.npz .*instances_val2014\.json"),
        (broken_json, r"instances_val2014\.json is not a whole JSON file \(.*\); replace it"),
        (json_is_no_text, r"instances_val2014\.json is not a whole JSON file \(.*\); replace it"),
        (json_of_another_kind, r"is not of the form of COCO's instances_\*\.json \(lacks 'categories'\); replace it"),
        (json_that_is_a_list, r"is not of the form of COCO's instances_\*\.json .*; replace it"),
        (unknown_category, r"annotation 2001 is of category 12, which is none of COCO's 80; expected an official"),
        (other_categories, r"has the category 3 'lorry', which is none of COCO's 80; expected an official"),
        (annotation_of_no_image, r"annotation 2001 is of image 77, which the file does not list; replace the file"),
        (annotation_without_crowd, r"is not of the form of COCO's instances_\*\.json \(lacks 'iscrowd'\)"),
        (odd_polygon, r"annotation 2001: its segmentation is none \(a polygon that is no list.*; replace the file"),
        (polygon_far_away, r"annotation 2001: its segmentation is none \(a polygon that is no list"),
        (polygon_of_words, r"annotation 2001: its segmentation is none .*; replace the file"),
        (no_segmentation, r"annotation 2001: its segmentation is none .*; replace the file"),
        (runs_too_long, r"annotation 2001: .*counts do not add up to 3072"),
        (runs_of_another_size, r"annotation 2001: .*a run-length code of size \[64, 48\] for an image of \[48, 64\]"),
        (code_cut_short, r"annotation 2001: .*a compressed run-length code cut short"),
        (missing_image, r"image 2 is not there: expected .*/val2014/COCO_val2014_000000000002\.jpg, or .*; add it"),
        (truncated_jpeg, r"COCO_val2014_000000000002\.jpg is not a whole JPEG image \(.*truncated.*\); replace it"),
        (image_of_another_size, r"000000000002\.jpg is 20x20, but instances_val2014\.json says 64x48; expected"),
        (nothing_large_enough, r"the val lists of .* name no image; add pairs"),
        (
            listed_but_not_annotated,
            r"1 listed images, 99 among them, are in none of instances_val2014\.json, instances",
        ),
        (list_of_another_fold, r"val_fold0\.npz lists class 2; expected 0-based classes of fold 0, as in HSNet's"),
        (list_is_no_list, r"val_fold0\.npz is not a list of `image_id` and `class_id` .*; replace it"),
        (list_of_other_arrays, r"val_fold0\.npz is not a list of `image_id` and `class_id` .*; replace it"),
        (list_of_floats, r"val_fold0\.npz holds image_id float64\[1\].*; expected integers of one length"),
        (only_training_lists, r"no test images in .*: expected splits/val_fold0\.npz"),
    ],
)
def test_errors(coco, data_config, tmp_path, spoil, message):
    spoil(coco)
    before = files_in(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        data.load(data_config(coco.root, dataset="coco_20i"), splits=("val",))
    assert "\n" not in str(error.value)
    assert files_in(tmp_path) == before  # nothing half-prepared, nothing changed


def test_training_lists_that_tell_different_things(coco, data_config):
    coco.write_list("trn_fold0", (3, 2))
    coco.write_list("trn_fold1", (3, 6))
    with pytest.raises(UserError, match=r"trn_fold1\.npz and .*trn_fold0\.npz list different pairs of fold 2"):
        data.load(data_config(coco.root, dataset="coco_20i"), splits=("train",))


def test_a_folder_without_training_images_can_be_scored_and_says_what_training_lacks(coco, data_config):
    coco.json("train").unlink()
    prepared = data.load(data_config(coco.root, dataset="coco_20i"))
    assert prepared.test_pairs(0) == [(0, 0)]
    with pytest.raises(UserError, match=r"folds 1, 2, 3 are missing: add splits/\{trn,val\}_fold\{0\.\.3\}\.npz, or"):
        prepared.train_indices(0, "ignore")
    with pytest.raises(UserError, match=r"nothing to score for fold 1: its list is missing or empty; fill splits/"):
        prepared.test_pairs(1)


def test_folder_that_changes_while_it_is_read(coco, data_config, monkeypatch):
    read = CocoFolder.read_example

    def read_and_change(self, image_id, annotated):
        coco.jpeg("val", 1).touch()
        return read(self, image_id, annotated)

    monkeypatch.setattr(CocoFolder, "read_example", read_and_change)
    with pytest.raises(UserError, match="changed while it was read; run again"):
        data.load(data_config(coco.root, dataset="coco_20i"), splits=("val",))


def test_no_network(data_config, monkeypatch):
    monkeypatch.setattr(coco_archives, "ARCHIVES", {"http://127.0.0.1:9/val2014.zip": ""})
    with pytest.raises(
        UserError, match=r"data\.root is empty and http://127.0.0.1:9/val2014\.zip could not be"
    ) as error:
        data.load(data_config("", dataset="coco_20i"))
    assert "unpack all in one folder and give it as data.root" in str(error.value)


def test_random_codes_are_decoded_or_refused():
    rng = np.random.default_rng(0)
    for _ in range(300):
        counts = "".join(map(chr, rng.integers(40, 120, rng.integers(0, 12))))
        try:
            mask = decode_segmentation({"size": [8, 9], "counts": counts}, (8, 9))
        except ValueError:
            continue
        assert mask.shape == (8, 9)
