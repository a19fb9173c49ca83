import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from scipy.ndimage import binary_dilation, binary_erosion

import data
from data import builder, coco_20i, coco_archives
from data.coco_20i import CLASS_NAMES, MIN_PIXELS, CocoFolder
from data.coco_annotations import decode_segmentation, read_annotations
from data.codecs import decode_label
from data.folds import pairs_by_pixels
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import count_pairs, drawn_episodes
from tests.tiny_coco import SIZE, Coco, box
from tests.tiny_devkit import files_in

PERSON, BICYCLE, CAR, TRUCK, TOOTHBRUSH = 1, 2, 3, 8, 90  # ids of COCO's files
WHOLE = box(0, 0, *SIZE)
LEFT, RIGHT = box(0, 0, 44, 48), box(20, 0, 64, 48)  # 44 columns of 48: 2112 pixels each


def labels_of(split):
    return {record["image_id"]: decode_label(record["label"]) for record in split.source}


def uncompressed(mask: np.ndarray) -> dict:
    """COCO's run-length code of a mask, by hand: runs down the columns, the first of zeros."""
    flat = np.concatenate([[0], mask.T.ravel().astype(int), [2]])
    ends = np.flatnonzero(np.diff(flat))
    runs = np.diff(ends, prepend=0).tolist()
    return {"size": list(mask.shape), "counts": runs}


@pytest.fixture
def coco_config(data_config):
    def make(root: Path | str, **changes):
        return data_config(root, dataset="coco_20i", **changes)

    return make


@pytest.fixture(params=["2014", "2017"])
def coco(request, tmp_path) -> Coco:
    """Three training images and two val images, all listed by the rule."""
    folder = Coco(tmp_path / "coco", request.param)
    folder.add("train", 25, (PERSON, LEFT), (TRUCK, box(50, 0, 64, 48)))
    folder.add("train", 10, (BICYCLE, WHOLE))
    folder.add("train", 21, (TRUCK, WHOLE))
    folder.add("val", 5, (CAR, LEFT))
    folder.add("val", 4, (PERSON, RIGHT), (TOOTHBRUSH, box(0, 0, 20, 48)))
    return folder.write()


# --- class maps ---


def test_the_class_map_of_every_lent_image_is_its_instances_painted_in_the_order_of_their_ids(sazs_data, capsys):
    """Against pycocotools' own reader, and each polygon against Pillow's rasteriser."""
    num_polygons, num_codes = 0, 0
    for part in ("train2017", "val2017"):
        file = sazs_data / "coco_tiny/annotations" / f"instances_{part}.json"
        images, reference = read_annotations(file), COCO(str(file))
        capsys.readouterr()  # COCO prints
        assert len(images) == 50
        for image_id, image in images.items():
            annotations = sorted(reference.loadAnns(reference.getAnnIds(image_id)), key=lambda a: a["id"])
            expected = np.zeros(image.size, np.uint8)
            for is_crowd in (1, 0):
                for a in annotations:
                    if a["iscrowd"] == is_crowd:
                        value = CLASS_NAMES.index(reference.loadCats(a["category_id"])[0]["name"]) + 1
                        expected[reference.annToMask(a) == 1] = 255 if is_crowd else value
            np.testing.assert_array_equal(image.class_map(), expected)
            with Image.open(sazs_data / "coco_tiny" / part / f"{image_id:012d}.jpg") as photograph:
                assert photograph.size == image.size[::-1]
            for a in annotations:
                mask = decode_segmentation(a["segmentation"], image.size)
                if isinstance(a["segmentation"], dict):
                    runs = np.array(a["segmentation"]["counts"])
                    assert mask.sum() == runs[1::2].sum()
                    num_codes += 1
                else:
                    canvas = Image.new("1", (mask.shape[1], mask.shape[0]))
                    for polygon in a["segmentation"]:
                        ImageDraw.Draw(canvas).polygon(polygon, fill=1)
                    drawn = np.asarray(canvas)
                    # They differ at the outline, and in slits that Pillow closes.
                    beyond = mask & ~np.asarray(binary_dilation(drawn, iterations=2), bool)
                    within = np.asarray(binary_erosion(drawn, iterations=2, border_value=1), bool) & ~mask
                    assert not beyond.any()
                    assert within.sum() <= 6 + 0.04 * mask.sum()
                    num_polygons += 1
    assert num_codes == 10
    assert num_polygons == 842


def test_run_length_codes_compressed_or_not():
    rng = np.random.default_rng(0)
    for shape, share in (((48, 64), 0.5), ((1, 7), 0.5), ((9, 1), 1.0), ((5, 5), 0.0)):
        mask = rng.random(shape) < share
        encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
        compressed = {"size": list(shape), "counts": bytes(encoded["counts"]).decode()}  # pyright: ignore
        for code in (uncompressed(mask), compressed):
            np.testing.assert_array_equal(decode_segmentation(code, shape), mask)


def test_overlap_crowds_and_categories(tmp_path, coco_config):
    """A later annotation lies on an earlier one, whatever their place in the file; a crowd lies under all."""
    folder = Coco(tmp_path / "coco")
    crowd = np.zeros((48, 64), bool)
    crowd[:, 40:] = True
    folder.add("val", 1, (PERSON, LEFT), (TOOTHBRUSH, box(30, 0, 50, 48)), (CAR, uncompressed(crowd)))
    folder.files["val"]["annotations"].reverse()
    folder.write().write_list("val_fold0", (1, 0))
    (label,) = labels_of(data.load(coco_config(folder.root), splits=("val",)).val).values()
    expected = np.ones((48, 64))
    expected[:, 40:] = 255
    expected[:, 30:50] = 80
    np.testing.assert_array_equal(label, expected)


def test_parts_and_points():
    """Several polygons are one object; what has no area draws nothing."""
    two = decode_segmentation([*box(0, 0, 10, 10), *box(20, 20, 30, 30)], (48, 64))
    assert two.sum() == 200
    assert decode_segmentation([[3.0, 3.0, 9.0, 9.0], *box(0, 0, 10, 10)], (48, 64)).sum() == 100
    assert not decode_segmentation([], (48, 64)).any()


# --- images and lists ---


def test_either_layout_and_lists_by_the_rule(coco, coco_config):
    prepared = data.load(coco_config(coco.root))
    assert prepared.train.image_ids == ("000000000010", "000000000021", "000000000025")
    assert prepared.train.pair_list == {0: [(2, 0)], 1: [(0, 1)], 2: [], 3: [(1, 7)]}
    assert prepared.val.image_ids == ("000000000004", "000000000005")
    assert prepared.val.present == ((0, 79), (2,))
    assert prepared.val.pair_list == {0: [(0, 0)], 1: [], 2: [(1, 2)], 3: []}
    assert prepared.val.source[1]["image"] == coco.jpeg("val", 5).read_bytes()
    assert prepared.test_pairs(2) == [(1, 2)]
    assert prepared.seen(1) == tuple(c for c in range(80) if c % 4 != 1)
    assert [prepared.train.image_ids[i][-2:] for i in prepared.train_indices(0, "ignore")] == ["10", "21"]
    assert [prepared.train.image_ids[i][-2:] for i in prepared.train_indices(-1, "ignore")] == ["10", "21", "25"]


def test_a_class_counts_from_2048_pixels_on(tmp_path, coco_config):
    folder = Coco(tmp_path / "coco")
    enough = {"size": [48, 64], "counts": [0, MIN_PIXELS, 3072 - MIN_PIXELS]}
    too_few = {"size": [48, 64], "counts": [0, MIN_PIXELS - 1, 3073 - MIN_PIXELS]}
    folder.add("val", 1, (PERSON, enough))
    folder.add("val", 2, (PERSON, too_few))
    for annotation in folder.files["val"]["annotations"]:
        annotation["iscrowd"] = 0
    folder.write()
    assert data.load(coco_config(folder.root), splits=("val",)).val.image_ids == ("000000000001",)


def test_official_lists_find_their_images_in_the_folders_of_either_year(coco, coco_config):
    """Lists of 2014 name as val what 2017 trains on."""
    coco.write_list("val_fold0", (21, 4), (4, 0), (21, 0))
    coco.write_list("val_fold3", (25, 7))
    prepared = data.load(coco_config(coco.root), splits=("val",))
    assert prepared.val.image_ids == ("000000000021", "000000000004", "000000000025")
    assert prepared.val.pair_list == {0: [(0, 4), (1, 0), (0, 0)], 3: [(2, 7)]}
    assert labels_of(prepared.val)["000000000025"].max() == 8


def test_images_of_one_year_with_the_annotations_of_the_other(tmp_path, coco_config):
    old, new = Coco(tmp_path / "coco"), Coco(tmp_path / "new", "2017")
    for folder in (old, new):
        folder.add("val", 5, (CAR, LEFT))
        folder.write()
    new.json("val").rename(old.root / "annotations/instances_train2017.json")
    old.json("val").unlink()
    old.write_list("val_fold2", (5, 2))
    val = data.load(coco_config(old.root), splits=("val",)).val
    assert val.source[0]["image"] == old.jpeg("val", 5).read_bytes()


def test_training_lists_hold_the_other_folds(coco, coco_config):
    coco.write_list("trn_fold0", (10, 1), (25, 3), (21, 7))
    with_one = data.load(coco_config(coco.root), splits=("train",))
    assert with_one.train.pair_list == {1: [(0, 1)], 2: [], 3: [(1, 3), (2, 7)]}
    assert len(with_one.train_indices(0, "ignore")) == 3
    with pytest.raises(UserError, match=r"folds 0 are missing: add splits/\{trn,val\}_fold"):
        with_one.train_indices(1, "ignore")
    coco.write_list("trn_fold3", (25, 0), (10, 1))
    with_two = data.load(coco_config(coco.root), splits=("train",))
    assert with_two.train.pair_list[0] == [(1, 0)]


def test_both_years_at_once_keep_train_and_val_apart(tmp_path, coco_config):
    """Images of val2014 are in train2017: without lists one year gives both splits."""
    old, new = Coco(tmp_path / "coco"), Coco(tmp_path / "coco", "2017")
    old.add("val", 1, (CAR, WHOLE))
    old.add("train", 2, (CAR, WHOLE))
    new.add("train", 1, (CAR, WHOLE))
    new.add("val", 3, (CAR, WHOLE))
    old.write()
    new.write()
    prepared = data.load(coco_config(old.root))
    assert (prepared.train.image_ids, prepared.val.image_ids) == (("000000000002",), ("000000000001",))
    for file in (old.json("val"), new.json("train")):
        file.unlink()
    only_val = data.load(coco_config(old.root))
    assert (only_val.train.image_ids, only_val.val.image_ids) == ((), ("000000000003",))


def test_each_annotation_file_is_read_once_and_the_folder_is_left_alone(coco, coco_config, monkeypatch):
    read = []

    def remember(file):
        read.append(file.name)
        return read_annotations(file)

    monkeypatch.setattr(coco_20i, "read_annotations", remember)
    coco.write_list("val_fold0", (21, 4), (4, 0))
    coco.write_list("trn_fold0", (10, 1), (21, 7))
    before = files_in(coco.root)
    config = coco_config(coco.root)
    data.load(config)
    assert sorted(read) == [f"instances_train{coco.year}.json", f"instances_val{coco.year}.json"]
    data.load(config)
    assert len(read) == 2  # what is prepared is opened as it is
    assert files_in(coco.root) == before


def test_the_rule_agrees_with_the_published_lists(sazs_data):
    """227 pairs of the lent images are listed; all that the rule makes are, and but four of them it makes."""
    listed = set()
    for file in (sazs_data / "splits/coco").glob("*.npz"):
        with np.load(file) as arrays:
            listed.update(zip(arrays["image_id"].tolist(), arrays["class_id"].tolist(), strict=True))
    images = {}
    for part in ("train2017", "val2017"):
        images.update(read_annotations(sazs_data / "coco_tiny/annotations" / f"instances_{part}.json"))
    ids = sorted(images)
    counts = np.array([np.bincount(images[i].class_map().ravel(), minlength=256)[1:81] for i in ids])
    made = {(ids[i], c) for pairs in pairs_by_pixels(counts, MIN_PIXELS, coco_20i.FOLDS).values() for i, c in pairs}
    listed = {pair for pair in listed if pair[0] in images}
    assert (len(listed), len(listed - made), len(made - listed)) == (227, 4, 0)


def test_lent_photographs(sazs_data, coco_config):
    prepared = data.load(coco_config(sazs_data / "coco_tiny"))
    assert (len(prepared.train.image_ids), len(prepared.val.image_ids)) == (48, 47)
    assert sum(len(prepared.val.pair_list[fold]) for fold in range(4)) == 97


def test_hsnets_episodes_of_the_official_lists(sazs_data, tmp_path):
    """Seed 0, a class by choice, then an image by choice: known from HSNet's own run without support images."""
    (tmp_path / "splits").symlink_to(sazs_data / "splits/coco")
    lists = CocoFolder(tmp_path).read_fold_lists("val")
    assert lists is not None
    assert [len(lists[fold]) for fold in range(4)] == [35783, 17912, 14563, 14315]
    episodes = drawn_episodes(lists[0])
    assert episodes[:2] == [(507081, 72), (205594, 32)]
    counts = count_pairs(lists[0], "hsnet1000", draw=True)
    assert sum(n for classes in counts.values() for n in classes.values()) == len(episodes) == 1000
    assert counts[507081][72] >= 1
    training = CocoFolder(tmp_path).read_fold_lists("train")
    assert training is not None
    assert {fold: len(pairs) for fold, pairs in training.items()} == {0: 75015, 1: 36564, 2: 29437, 3: 29475}


# --- preparation of much data ---


@pytest.mark.parametrize("num_images", [4, 5])
def test_many_shards_keep_the_order(tmp_path, coco_config, monkeypatch, num_images):
    monkeypatch.setattr(builder, "EXAMPLES_PER_SHARD", 2)
    folder = Coco(tmp_path / "coco")
    for i in range(num_images):
        folder.add("val", i, (CAR if i != 1 else PERSON, WHOLE))
    val = data.load(coco_config(folder.write().root), splits=("val",)).val
    ids = [f"{i:012d}" for i in range(num_images)]
    assert [record["image_id"] for record in val.source] == list(val.image_ids) == ids
    assert [labels_of(val)[i].max() for i in ids] == [3, 1, *[3] * (num_images - 2)]
    assert len(list((tmp_path / "cache").rglob("*array_record-*"))) == 3


def test_archives_become_one_folder(tmp_path, coco_config, monkeypatch):
    folder = Coco(tmp_path / "packed")
    folder.add("train", 10, (BICYCLE, WHOLE))
    folder.add("val", 5, (CAR, LEFT))
    folder.write()
    (folder.root / "annotations/captions_val2014.json").write_text("[]")
    for url in coco_archives.ARCHIVES:
        name = Path(url).stem.removesuffix("_trainval2014")
        with zipfile.ZipFile(tmp_path / Path(url).name, "w") as zipped:
            for file in (folder.root / name).iterdir():
                zipped.write(file, f"{name}/{file.name}")
    fetched = []

    def fetch(url, cache, **_):
        fetched.append(url)
        return tmp_path / Path(url).name

    monkeypatch.setattr(coco_archives, "fetch", fetch)
    for _ in range(2):
        prepared = data.load(coco_config(""))
        assert prepared.train.image_ids == ("000000000010",)
        assert prepared.val.image_ids == ("000000000005",)
    assert fetched == list(coco_archives.ARCHIVES)  # once
    unpacked = {
        str(file.relative_to(tmp_path / "cache/COCO2014")) for file in (tmp_path / "cache/COCO2014").rglob("*.*")
    }
    assert "annotations/captions_val2014.json" not in unpacked
    assert len(unpacked) == 4


def test_the_official_category_list_is_the_lent_one(sazs_data):
    content = json.loads((sazs_data / "coco_tiny/annotations/instances_val2017.json").read_text())
    names = [c["name"] for c in sorted(content["categories"], key=lambda c: c["id"])]
    assert tuple(names) == CLASS_NAMES
    assert [CLASS_NAMES[c] for c in (0, 32, 72)] == ["person", "sports ball", "refrigerator"]
