"""Measures against NumPy, SciPy's distance transform and figures by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from sazs_jax.evaluation import metrics

OUTLINE_COUNTS = jax.jit(metrics.outline_counts)


def disk(height, width, cy, cx, radius):
    y, x = np.mgrid[:height, :width]
    return (y - cy) ** 2 + (x - cx) ** 2 <= radius**2


def outline(mask, known):
    """Pixels of the mask that touch a known pixel outside it, pixel by pixel."""
    height, width = mask.shape
    result = np.zeros_like(mask)
    for y, x in zip(*np.nonzero(mask), strict=True):
        for v, u in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if 0 <= v < height and 0 <= u < width and known[v, u] and not mask[v, u]:
                result[y, x] = True
    return result


def distance_to(mask):
    return np.asarray(ndimage.distance_transform_edt(~mask))


def boundary_counts_by_distance(prediction, closed, label):
    known = closed != 255
    truth = closed == label
    counted = distance_to(~known) > 2 if not known.all() else np.ones_like(known)
    ours, theirs = outline(prediction, np.ones_like(known)), outline(truth, known)

    def near(mask):
        return distance_to(mask) <= 2 if mask.any() else mask

    return [
        (ours & near(theirs) & counted).sum(),
        (ours & counted).sum(),
        (theirs & near(ours) & counted).sum(),
        (theirs & counted).sum(),
    ]


@pytest.fixture
def scene():
    """Two label maps with void, predictions of two episodes each, on a canvas larger than the images."""
    rng = np.random.default_rng(0)
    sizes = np.array([[40, 60], [64, 33]], np.int32)
    labels = np.full((2, 64, 64), 255, np.uint8)
    masks = rng.random((2, 64, 64, 2)) < 0.5  # outside the images too: there it must not count
    classes = np.array([[2, 0], [4, 2]], np.int32)
    for b, (height, width) in enumerate(sizes):
        label = np.zeros((height, width), np.uint8)
        for e, c in enumerate(classes[b]):
            cy, cx = 12 + 14 * e, 14 + 10 * e
            label[disk(height, width, cy, cx, 11)] = c + 1
            masks[b, :height, :width, e] = disk(height, width, cy + 3, cx + 1, 12)
        label[disk(height, width, 30, 20, 9) & ~disk(height, width, 30, 20, 2)] = 255
        labels[b, :height, :width] = label
    return masks, labels, classes, sizes


def test_overlap_counts_equal_numpy_with_void_masked_in_both(scene):
    masks, labels, classes, sizes = scene
    found = metrics.overlap_counts(jnp.asarray(masks), jnp.asarray(labels), jnp.asarray(classes))
    for b, (height, width) in enumerate(sizes):
        label = labels[b, :height, :width]
        valid = label != 255
        for e, c in enumerate(classes[b]):
            ours, truth = masks[b, :height, :width, e][valid], label[valid] == c + 1
            expected = [(ours & truth).sum(), (ours | truth).sum(), (~ours & ~truth).sum(), (~ours | ~truth).sum()]
            np.testing.assert_array_equal(found[b, e], expected)


def test_outline_counts_equal_distance_transform(scene):
    masks, labels, classes, sizes = scene
    found = OUTLINE_COUNTS(*map(jnp.asarray, (masks, labels, classes, sizes)))
    for b, (height, width) in enumerate(sizes):
        for e, c in enumerate(classes[b]):
            expected = boundary_counts_by_distance(masks[b, :height, :width, e], labels[b, :height, :width], c + 1)
            np.testing.assert_array_equal(found[b, e], expected)


def f_measure(prediction, labels, category=0):
    found = OUTLINE_COUNTS(
        jnp.asarray(prediction)[None, :, :, None],
        jnp.asarray(metrics.close_void(labels))[None],
        jnp.array([[category]]),
        jnp.array([labels.shape]),
    )
    return metrics.boundary_f(np.asarray(found)[0, 0])


def square(offset=0):
    mask = np.zeros((40, 40), bool)
    mask[10 + offset : 30 + offset, 10:30] = True
    return mask


def test_boundary_f_of_shifted_square():
    truth = square().astype(np.uint8)
    assert f_measure(square(), truth) == 1.0
    assert f_measure(square(2), truth) == 1.0  # two pixels are within tolerance
    # Three are not: of each outline's 76 pixels the far side is lost, but for its 2 x 2 near corners' upright sides.
    assert 0.3 < (f_measure(square(3), truth) or 0.0) < 0.8
    assert f_measure(np.zeros((40, 40), bool), truth) == 0.0


def test_void_ribbon_does_not_hide_the_outline():
    truth = square().astype(np.uint8)
    ribbon = truth.copy()
    ribbon[(distance_to(square()) <= 2) & (distance_to(~square()) <= 2)] = 255
    assert (metrics.close_void(ribbon) != 255).all()
    assert f_measure(square(), ribbon) == 1.0
    assert f_measure(np.zeros((40, 40), bool), ribbon) == 0.0


def test_wide_void_and_image_frame_are_no_outline():
    half = np.zeros((40, 40), np.uint8)
    half[:, :20] = 1
    half[:, 20:] = 255
    everything = np.ones((40, 40), bool)
    assert f_measure(everything, np.ones((40, 40), np.uint8)) is None
    assert f_measure(everything, half) is None


def test_episode_scores_by_hand():
    scores = metrics.EpisodeScores(3, min_pairs=2)
    full, none = np.array([10, 10, 10, 10]), np.array([0, 5, 0, 5])
    scores.add(0, 1, np.array([30, 60, 40, 70]), full)
    scores.add(0, 3, np.array([10, 20, 80, 90]), none)
    scores.add(1, 1, np.array([25, 100, 0, 75]), np.array([0, 0, 0, 0]))
    result = scores.result([0, 1, 2], ["a", "b", "c"])
    a, b = (30 + 3 * 10) / (60 + 3 * 20), 25 / 100
    assert result["per_class"] == {"a": a, "b": b, "c": None}
    assert result["miou"] == pytest.approx((a + b) / 2)
    assert result["miou_min_pairs"] == a
    assert result["fbiou"] == pytest.approx(((60 + 25) / (120 + 100) + (40 + 240) / (70 + 270 + 75)) / 2)
    assert result["boundary_f"] == pytest.approx(1 / 4)  # class b has no outline at all
    assert result["pairs"] == {"a": 2, "b": 1, "c": 0}


@pytest.mark.parametrize("kind", ["random", "one class all over", "others all over", "void all over"])
def test_scores_of_random_masks_equal_numpy(kind):
    rng = np.random.default_rng(2)
    values = {"one class all over": [2], "others all over": [0], "void all over": [255]}.get(kind, [0, 1, 2, 255])
    labels = rng.choice(np.array(values, np.uint8), (12, 16, 16))
    classes = rng.integers(0, 2, (12, 1)).astype(np.int32)  # class 2 of three has no pair
    masks = rng.random((12, 16, 16, 1)) < 0.4
    counts = np.asarray(metrics.overlap_counts(jnp.asarray(masks), jnp.asarray(labels), jnp.asarray(classes)))
    scores = metrics.EpisodeScores(3, min_pairs=1)
    for c, found in zip(classes[:, 0], counts[:, 0], strict=True):
        scores.add(int(c), 1, found, np.zeros(4, int))
    result = scores.result([0, 1, 2], ["a", "b", "c"])

    def iou(ours, truth):
        return (ours & truth).sum() / (ours | truth).sum() if (ours | truth).any() else None

    of_class = {}
    for c, name in enumerate("abc"):
        chosen = classes[:, 0] == c
        known = labels[chosen] != 255
        of_class[name] = iou(masks[chosen, ..., 0][known], labels[chosen][known] == c + 1)
    assert result["per_class"] == pytest.approx(of_class)
    defined = [value for value in of_class.values() if value is not None]
    assert result["miou"] == (pytest.approx(np.mean(defined)) if defined else None)
    known = labels != 255
    ours, truth = masks[..., 0][known], (labels == classes[:, :, None] + 1)[known]
    both = [value for value in (iou(ours, truth), iou(~ours, ~truth)) if value is not None]
    assert result["fbiou"] == (pytest.approx(np.mean(both)) if both else None)


def test_confusion_matrix_equals_numpy():
    rng = np.random.default_rng(1)
    labels = rng.choice(np.array([0, 1, 2, 3, 255], np.uint8), (2, 9, 7))
    prediction = rng.integers(0, 4, (2, 9, 7))
    expected = np.zeros((4, 4), int)
    for true, ours in zip(labels.ravel(), prediction.ravel(), strict=True):
        if true != 255:
            expected[true, ours] += 1
    np.testing.assert_array_equal(metrics.confusion_matrix(jnp.asarray(labels), jnp.asarray(prediction), 4), expected)


def test_generalized_scores_by_hand():
    confusion = np.array([[50, 5, 0, 5], [10, 30, 0, 0], [0, 10, 10, 0], [0, 0, 0, 0]])
    scores = metrics.generalized_scores(confusion, unseen=[1, 2], names=["a", "b", "c"])
    a, b = 30 / (40 + 45 - 30), 10 / 20
    assert scores["per_class"] == {"a": a, "b": b, "c": None}  # c has no pixel in the truth
    assert scores["seen"] == a
    assert scores["unseen"] == b
    assert scores["harmonic"] == pytest.approx(2 * a * b / (a + b))
    assert metrics.generalized_scores(confusion, [2], ["a", "b", "c"])["harmonic"] is None
