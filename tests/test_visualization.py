import io

import numpy as np
import pytest
from PIL import Image

from sazs_jax import visualization


def test_palette_colours_differ():
    colours = visualization.palette()
    assert len({tuple(colour) for colour in colours.tolist()}) == 256
    first = colours[:21].astype(int)
    distance = np.abs(first[:, None] - first[None]).sum(axis=-1) + 1000 * np.eye(21, dtype=int)
    assert distance.min() >= 60  # those that a VOC picture shows are told apart by eye


def test_indexed_png_keeps_the_labels():
    labels = np.array([[0, 1, 2], [20, 254, 255]], np.int32)
    image = Image.open(io.BytesIO(visualization.indexed_png(labels)))
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image), labels)
    np.testing.assert_array_equal(np.array(image.convert("RGB"))[1, 0], visualization.palette()[20])
    with pytest.raises(ValueError, match="256"):
        visualization.indexed_png(np.array([[256]]))


def test_overlay_colours_labels_and_leaves_the_rest():
    image = np.full((20, 20, 3), 100, np.uint8)
    labels = np.zeros((20, 20), np.uint8)
    labels[5:15, 5:15] = 3
    result = visualization.overlay(image, labels)
    colour = visualization.palette()[3].astype(float)
    np.testing.assert_array_equal(result[:4], image[:4])
    np.testing.assert_allclose(result[10, 10], (100 + colour) / 2, atol=0.51)
    np.testing.assert_array_equal(result[5, 10], colour)  # the outline is in full colour
    np.testing.assert_array_equal(visualization.overlay(image, np.zeros_like(labels)), image)


def test_legend_shows_each_colour_and_wraps():
    names = ["cat", "a very long name of a thing", "sofa", "dog"]
    picture = visualization.overlay_with_legend(np.zeros((40, 320, 3), np.uint8), np.zeros((40, 320), int), names)
    assert picture.shape[1] == 320
    strip = picture[40:]
    for label in range(1, 5):
        assert (strip == visualization.palette()[label]).all(axis=-1).any()
    assert visualization.legend(names, range(1, 5), 60).shape[1] > 60  # wider rather than cut


def test_sheet_holds_every_picture():
    pictures = [np.full((30, 50 + i, 3), 10 * i, np.uint8) for i in range(1, 4)]
    result = visualization.sheet([[("one", pictures[0]), ("two", pictures[1])], [("three", pictures[2])]])
    for picture in pictures:
        assert (result == picture[0, 0]).all(axis=-1).sum() >= picture.shape[0] * picture.shape[1]
