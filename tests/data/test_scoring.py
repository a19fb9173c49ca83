"""A run on another data set: what is tested, and that training saw nothing of it."""

import pytest

import data
from configs import coco_to_pascal
from data.scoring import is_one_of, other_data_set, own_fold
from sazs_jax.errors import UserError
from tests.tiny_coco import SIZE, Coco, box

PERSON, CAR, COUCH, TOASTER = 1, 3, 63, 80  # ids of COCO's files
WHOLE = box(0, 0, *SIZE)


@pytest.fixture
def coco(tmp_path) -> Coco:
    folder = Coco(tmp_path / "coco", "2017")
    folder.add("val", 1, (COUCH, WHOLE))
    folder.add("val", 2, (TOASTER, WHOLE))
    return folder.write()


def test_classes_are_the_same_under_either_sets_names():
    pairs = {
        "aeroplane": "airplane",
        "diningtable": "dining table",
        "motorbike": "motorcycle",
        "pottedplant": "potted plant",
        "sofa": "couch",
        "tvmonitor": "tv",
        "cat": "cat",
    }
    for voc, coco in pairs.items():
        assert is_one_of(voc, {coco})
        assert is_one_of(coco, {voc})
    assert not is_one_of("sofa", {"chair", "bed"})


def test_a_run_on_coco_without_vocs_classes_is_scored_on_all_of_voc(make_devkit, data_config):
    devkit = make_devkit()
    config = data_config("nowhere", dataset="coco_20i", fold=-1, exclude=coco_to_pascal.VOC_IN_COCO)
    scored = other_data_set(config, "pascal_5i", str(devkit.root))
    assert scored.classes == tuple(range(20))
    assert scored.dataset.val.image_ids == ("v_cat_cow", "v_cow", "v_dog")
    assert scored.pair_lists == [[(0, 7), (1, 9), (0, 9)], [(2, 11)]]
    assert scored.count_pairs("all_pairs") == {0: {7: 1, 9: 1}, 1: {9: 1}, 2: {11: 1}}
    counts = scored.count_pairs("hsnet1000")  # a thousand a fold
    assert sum(sum(classes.values()) for classes in counts.values()) == 2000
    assert scored.facts == {
        "trained_on": {"dataset": "coco_20i", "fold": -1, "exclude": list(coco_to_pascal.VOC_IN_COCO)},
        "dataset": "pascal_5i",
        "tested": list(scored.dataset.class_names),
        "skipped_as_seen": [],
        "data_root": str(devkit.root),
    }


def test_a_tested_class_that_training_saw_is_refused_or_left_out(make_devkit, data_config):
    devkit = make_devkit()
    exclude = tuple(name for name in coco_to_pascal.VOC_IN_COCO if name not in ("cat", "couch"))
    config = data_config("nowhere", dataset="coco_20i", fold=-1, exclude=exclude)
    with pytest.raises(UserError, match="2 of the 20 classes of pascal_5i were seen in training: cat, sofa; ") as error:
        other_data_set(config, "pascal_5i", str(devkit.root))
    assert f'--config.data.exclude="{(*exclude, "cat", "couch")!r}"' in str(error.value)
    assert "--skip_seen" in str(error.value)
    assert "\n" not in str(error.value)
    scored = other_data_set(config, "pascal_5i", str(devkit.root), skip_seen=True)
    assert scored.facts["skipped_as_seen"] == ["cat", "sofa"]
    assert len(scored.classes) == 18
    assert scored.pair_lists == [[(1, 9), (0, 9)], [(2, 11)]]
    assert scored.images == [0, 1, 2]


def test_what_the_fold_withholds_was_not_seen(coco, data_config):
    """A run on VOC without fold 3's sofa, on COCO: the couch is tested, the person is not."""
    config = data_config("nowhere", dataset="pascal_5i", fold=3)
    scored = other_data_set(config, "coco_20i", str(coco.root), skip_seen=True)
    names = scored.dataset.class_names
    assert {"couch", "tv", "toaster", "potted plant"} <= {names[c] for c in scored.classes}
    assert scored.facts["skipped_as_seen"][:3] == ["person", "bicycle", "car"]
    assert sorted(pair for pairs in scored.pair_lists for pair in pairs) == [(0, 57), (1, 70)]


def test_nothing_unseen_to_score(tmp_path, data_config):
    folder = Coco(tmp_path / "people")
    folder.add("val", 1, (PERSON, WHOLE), (CAR, box(0, 0, 4, 4)))
    config = data_config("nowhere", dataset="pascal_5i", fold=3)
    with pytest.raises(UserError, match="nothing of coco_20i to score: no image is listed with a class that was not"):
        other_data_set(config, "coco_20i", str(folder.write().root), skip_seen=True)


def test_the_runs_own_fold(make_devkit, data_config):
    one, other = make_devkit("one"), make_devkit("other")
    other.write_list("val", 1, "v_cow__10")
    config = data_config(one.root)
    scored = own_fold(config)
    assert scored.classes == (5, 6, 7, 8, 9)
    assert scored.count_pairs("all_pairs") == {0: {7: 1, 9: 1}, 1: {9: 1}}
    assert scored.facts == {"fold": 1}
    scored = own_fold(config, str(other.root))
    assert scored.pair_lists == [[(0, 9)]]
    assert scored.facts == {"fold": 1, "data_root": str(other.root)}
    assert config.root == str(one.root)


def test_errors(make_devkit, data_config):
    config = data_config(make_devkit().root, fold=-1)
    with pytest.raises(UserError, match=r"no fold is unseen \(data.fold is -1\).*score another data set by --dataset"):
        own_fold(config)
    with pytest.raises(UserError, match="--data_root is empty"):
        own_fold(data_config(config.root), "")
    with pytest.raises(UserError, match=r"data\.dataset is 'ade'; expected one of pascal_5i, coco_20i, shapes"):
        other_data_set(config, "ade", "folder")
    with pytest.raises(UserError, match="are drawn; leave the folder out"):
        other_data_set(config, "shapes", "folder")
    with pytest.raises(UserError, match="data.exclude names unicorn"):
        other_data_set(data_config(config.root, exclude=("unicorn",)), "pascal_5i", config.root)


def test_the_classes_of_a_data_set_are_known_without_its_folder(data_config):
    known = data.load(data_config("nowhere", dataset="coco_20i"), splits=())
    assert len(known.class_names) == 80
    assert known.unseen(3) == tuple(range(3, 80, 4))
