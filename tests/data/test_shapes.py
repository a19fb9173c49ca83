import numpy as np
import pytest

import data
from data import shapes
from data.codecs import decode_image, decode_label


@pytest.fixture
def small(data_config, monkeypatch):
    monkeypatch.setattr(shapes, "NUM_SCENES", {"train": 30, "val": 40})
    return data.load(data_config("", dataset="shapes"))


def test_a_fold_hides_combinations_but_no_colour_and_no_shape():
    names = shapes.CLASS_NAMES
    assert len(set(names)) == 20
    for fold in range(4):
        hidden = [names[c].split() for c in range(5 * fold, 5 * fold + 5)]
        seen = [name.split() for c, name in enumerate(names) if c not in range(5 * fold, 5 * fold + 5)]
        assert {color for color, _ in hidden} == set(shapes.COLORS)
        for color in shapes.COLORS:
            assert len({shape for c, shape in seen if c == color}) == 3
        for shape in shapes.SHAPES:
            assert len({color for color, s in seen if s == shape}) >= 3


def test_scenes(small):
    assert (len(small.train.source), len(small.val.source)) == (30, 40)
    assert small.class_names == shapes.CLASS_NAMES
    covered = []
    for i, record in enumerate(small.val.source):
        image, label = decode_image(record["image"]), decode_label(record["label"])
        assert image.shape == (64, 64, 3)
        assert record["image_id"] == small.val.image_ids[i] == f"val_{i:05d}"
        sizes = np.bincount(label.ravel(), minlength=21)
        assert small.val.present[i] == tuple(np.flatnonzero(sizes[1:]))
        listed = {c for pairs in small.val.pair_list.values() for image, c in pairs if image == i}
        assert listed == set(np.flatnonzero(sizes[1:] >= shapes.MIN_PIXELS))
        covered.append(1 - sizes[0] / label.size)
    assert 0.08 < np.mean(covered) < 0.5
    assert max(map(len, small.val.present)) >= 3
    assert all(small.test_pairs(fold) for fold in range(4))


def test_the_label_says_the_colour_of_its_pixels(small):
    hues = {name: np.array(rgb) / np.linalg.norm(rgb) for name, rgb in shapes.COLORS.items()}
    right = []
    for record in small.val.source:
        image, label = decode_image(record["image"]).astype(float), decode_label(record["label"])
        for value in np.unique(label[label > 0]):
            pixels = image[label == value]
            if len(pixels) >= shapes.MIN_PIXELS:
                mean = pixels.mean(axis=0) / np.linalg.norm(pixels.mean(axis=0))
                nearest = max(hues, key=lambda name: float(hues[name] @ mean))
                right.append(nearest == shapes.CLASS_NAMES[value - 1].split()[0])
    assert np.mean(right) > 0.97


def test_scenes_are_the_same_every_time_and_differ_between_splits():
    one, again, other = (shapes.draw_scene(np.random.default_rng(seed))[0] for seed in ([0, 3], [0, 3], [1, 3]))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_other_settings_are_other_prepared_data(data_config, monkeypatch):
    monkeypatch.setattr(shapes, "NUM_SCENES", {"train": 3, "val": 4})
    assert len(data.load(data_config("", dataset="shapes")).val.source) == 4
    monkeypatch.setattr(shapes, "NUM_SCENES", {"train": 3, "val": 5})
    assert len(data.load(data_config("", dataset="shapes")).val.source) == 5
