import dataclasses

import numpy as np
import pytest

from data.transforms import FILL, Augmentation
from sazs_jax.label_map import IGNORED

PLAIN = Augmentation(crop=32, scale=(1.0, 1.0), rotation=0.0, flip=False, jitter=0.0)


def scene(height=32, width=32):
    """Image whose colour tells the label of each pixel: label k is grey 20 k."""
    label = np.zeros((height, width), np.uint8)
    label[: height // 2, : width // 3] = 3
    label[height // 4 :, width // 2 :] = 7
    return np.repeat(20 * label[..., None], 3, axis=2), label


def views(augmentation, image, label, count=50):
    return [augmentation(image, label, np.random.default_rng(i)) for i in range(count)]


def test_nothing_to_do():
    image, label = scene()
    view, classes = PLAIN(image, label, np.random.default_rng(0))
    np.testing.assert_array_equal(view, image)
    np.testing.assert_array_equal(classes, label)


def test_a_crop_is_a_part_of_the_image_and_every_part_comes():
    image = np.random.default_rng(0).integers(0, 256, (34, 33, 3), dtype=np.uint8)
    label = image[..., 0]
    corners = set()
    for view, classes in views(PLAIN, image, label):
        (corner,) = [(y, x) for y in range(3) for x in range(2) if (view == image[y : y + 32, x : x + 32]).all()]
        np.testing.assert_array_equal(classes, view[..., 0])
        corners.add(corner)
    assert len(corners) == 6


def test_outside_a_small_image_is_grey_and_ignored():
    image = np.full((20, 50, 3), 200, np.uint8)
    label = np.full((20, 50), 4, np.uint8)
    for view, classes in views(PLAIN, image, label, 10):
        assert sorted(np.unique(classes)) == [4, IGNORED]
        assert ((classes == 4).sum(axis=0) == 20).all()
        assert (view[classes == 4] == 200).all()
        assert (view[classes == IGNORED] == FILL).all()


def test_flip_turns_image_and_label_together_half_of_the_time():
    image, label = scene()
    flipped = 0
    for view, classes in views(dataclasses.replace(PLAIN, flip=True), image, label, 100):
        np.testing.assert_array_equal(view[..., 0], 20 * classes)
        flipped += (classes == label[:, ::-1]).all()
    assert 30 < flipped < 70


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_scale_is_relative_to_the_image(factor):
    image, label = np.full((40, 40, 3), 9, np.uint8), np.full((40, 40), 2, np.uint8)
    augmentation = dataclasses.replace(PLAIN, crop=96, scale=(factor, factor))
    _, classes = augmentation(image, label, np.random.default_rng(0))
    assert (classes == 2).sum() == (40 * factor) ** 2


def test_scales_are_as_often_below_one_as_above():
    image, label = np.zeros((40, 40, 3), np.uint8), np.zeros((40, 40), np.uint8)
    augmentation = dataclasses.replace(PLAIN, crop=80, scale=(0.5, 2.0))
    sides = [np.sqrt((classes == 0).sum()) / 40 for _, classes in views(augmentation, image, label, 200)]
    assert 0.5 <= min(sides) < 0.6
    assert 1.8 < max(sides) <= 2.0
    assert 0.85 < np.median(sides) < 1.15


def test_images_are_antialiased_and_labels_are_not_mixed():
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 8
    image = np.repeat(stripes[..., None] * 25, 3, axis=2)
    augmentation = dataclasses.replace(PLAIN, scale=(0.5, 0.5))
    view, classes = augmentation(image, stripes, np.random.default_rng(0))
    assert np.abs(view[2:-2, 2:-2].astype(int) - 100).max() <= 1  # the mean of 0 and 200, not one of them
    assert set(np.unique(classes)) <= {0, 8}


def test_rotation_moves_image_and_label_alike_and_only_so_far():
    image, label = scene(96, 96)
    augmentation = dataclasses.replace(PLAIN, rotation=10.0)
    for view, classes in views(augmentation, image, label, 20):
        assert (classes != IGNORED).all()  # the crop lies within the image: what turns in comes from around it
        assert (np.abs(view[..., 0].astype(int) - 20 * classes) > 60).mean() < 0.05
    bar = np.zeros((64, 64), np.uint8)
    bar[28:36] = 1
    angles = []
    for _, classes in views(dataclasses.replace(PLAIN, crop=64, rotation=10.0), image[:64, :64], bar, 60):
        y, x = np.nonzero(classes == 1)
        angles.append(np.degrees(np.arctan(np.polyfit(x, y, 1)[0])))
    assert max(np.abs(angles)) < 10.5
    assert min(angles) < -5
    assert max(angles) > 5


def test_colours_change_only_in_the_image():
    image, label = np.full((20, 40, 3), (150, 100, 60), np.uint8), np.full((20, 40), 4, np.uint8)
    brightness = []
    for view, classes in views(dataclasses.replace(PLAIN, jitter=0.2), image, label, 40):
        assert (view[classes == IGNORED] == FILL).all()
        assert set(np.unique(classes)) == {4, IGNORED}
        brightness.append(view[classes == 4].mean() / image.mean())
    assert 0.78 < min(brightness) < 0.9
    assert 1.1 < max(brightness) < 1.22


def test_the_same_generator_gives_the_same_view():
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8), rng.integers(0, 5, (50, 70), dtype=np.uint8)
    augmentation = Augmentation(crop=48, scale=(0.5, 2.0), rotation=10.0, flip=True, jitter=0.2)
    first, again, other = (augmentation(image, label, np.random.default_rng(seed))[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert first.shape == (48, 48, 3)
