"""The share and the constant of curves made by hand, and a network's curves against a slow count."""

import numpy as np
import pytest

from experiments.calibration_curves import CONSTANTS, Curve, best_share, constant_of, share_of_new
from sazs_jax.evaluation.constants import confusion_by_constant
from sazs_jax.evaluation.episodes import LabelledImage
from tests.tiny_network import TinyNetwork


def curve(peak: float, slope: float) -> Curve:
    """Harmonic mean highest at a constant; the share rises in proportion to the constant."""
    harmonic = 1 - np.abs(CONSTANTS - peak)
    return Curve(harmonic, harmonic, harmonic, np.minimum(CONSTANTS * slope, 1.0))


def test_constant_of_a_share_and_the_largest_where_it_is_never_reached():
    assert constant_of(curve(0.2, 2.0), 0.3) == pytest.approx(0.15)
    assert constant_of(curve(0.2, 2.0), 0.0) == 0
    assert constant_of(curve(0.2, 0.1), 0.3) == CONSTANTS[-1]
    jump = curve(0.2, 0.0)._replace(share=np.where(CONSTANTS < 0.1, 0.0, 0.8))
    assert constant_of(jump, 0.4) == pytest.approx(0.0975, abs=0.003)


def test_networks_that_differ_in_scale_agree_on_a_share():
    assert best_share([curve(0.2, 2.0), curve(0.4, 1.0)]) == pytest.approx(0.4)


def test_share_by_hand():
    """Of class 1: 10 pixels others, 20 its own, 10 new. Of class 2, too few pixels. Class 3 is new."""
    confusion = np.array([[[5, 0, 0, 0], [10, 20, 0, 10], [0, 1, 0, 2], [0, 0, 0, 7]]], float)
    assert share_of_new(confusion, new=[2], min_pixels=30) == pytest.approx(1 / 3)
    assert share_of_new(confusion, new=[2], min_pixels=1) == pytest.approx((1 / 3 + 2 / 3) / 2)
    assert np.isnan(share_of_new(confusion, new=[2], min_pixels=100)).all()


def test_confusion_by_constant_equals_numpy():
    rng = np.random.default_rng(0)
    anchors = rng.normal(size=(4, 6)).astype(np.float32)
    model, constants = TinyNetwork(seed=1), np.array([0.0, 0.2, 0.45])
    lookup = np.full(256, 255, np.uint8)
    lookup[[0, 7, 3, 9]] = [0, 1, 2, 3]
    images = []
    for i in range(3):
        label = rng.choice(np.array([0, 7, 3, 9, 4, 255], np.uint8), (32, 48))
        images.append(LabelledImage(str(i), rng.integers(0, 256, (32, 48, 3), dtype=np.uint8), label, {}))
    found = confusion_by_constant(model, images, anchors, [1, 2], constants, lookup=lookup, resize=0, batch_size=2)
    expected = np.zeros((3, 4, 4))
    for item in images:
        cosine = model.numpy_cosine(item.image, anchors)
        h, w = cosine.shape[:2]
        label = lookup[item.label[32 // h // 2 :: 32 // h, 48 // w // 2 :: 48 // w]]
        for g, constant in enumerate(constants):
            words = cosine[..., 1:] + np.array([0, constant, constant])
            winner = np.where(cosine[..., 0] >= cosine[..., 1:].max(-1), 0, 1 + words.argmax(-1))
            np.add.at(expected[g], (label[label != 255], winner[label != 255]), 32 * 48 / (h * w))
    np.testing.assert_allclose(found, expected)
    assert (expected[0] != expected[2]).any()
    assert share_of_new(found, [1, 2], 1)[2] > share_of_new(found, [1, 2], 1)[0]
