"""Measures of masks: counts of pixels on the device, their sums over episodes and what follows from them.

Void (255) is masked out of prediction and truth. A ratio of nothing is None and left out of every mean.
"""

from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, UInt8
from scipy import ndimage

VOID = 255
TOLERANCE = 2  # pixels between outlines that still match, Euclidean
VOID_RIBBON = 3  # pixels: half the width of the void ribbon that VOC draws on outlines, rounded up


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is there; None of nothing."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def ratio(part: float | np.number, whole: float | np.number) -> float | None:
    """The quotient; None when the whole is 0."""
    return float(part / whole) if whole else None


# --- Counts on the device -------------------------------------------------------------------------------------------


def overlap_counts(
    masks: Bool[Array, "B H W E"], labels: UInt8[Array, "B H W"], classes: Int[Array, "B E"]
) -> Int[Array, "B E 4"]:
    """Foreground intersection and union, background intersection and union of each mask, in pixels.

    Args:
      masks: prediction of episode e of image b.
      labels: 0 others, c + 1 for class c, 255 void or outside the image.
      classes: the episodes' 0-based classes.
    """
    valid = (labels != VOID)[..., None]
    truth = labels[..., None] == (classes + 1)[:, None, None, :]
    both = jnp.sum(masks & truth & valid, axis=(1, 2), dtype=jnp.int32)
    either = jnp.sum((masks | truth) & valid, axis=(1, 2), dtype=jnp.int32)
    area = jnp.sum(valid, axis=(1, 2), dtype=jnp.int32)
    return jnp.stack([both, either, area - either, area - both], axis=-1)


def confusion_matrix(
    labels: UInt8[Array, "B H W"], prediction: Int[Array, "B H W"], num_labels: int
) -> Int[Array, "K K"]:
    """Pixels by true (row) and predicted (column) label, void left out. Both maps hold 0 .. num_labels - 1."""
    bins = num_labels * num_labels
    index = jnp.where(labels == VOID, bins, labels.astype(jnp.int32) * num_labels + prediction)
    return jnp.bincount(index.ravel(), length=bins + 1)[:bins].reshape(num_labels, num_labels)


def _beside(mask: jax.Array) -> jax.Array:
    """Pixels with one of the mask (B, H, W, E) above, below, left or right."""
    padded = jnp.pad(mask, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return padded[:, :-2, 1:-1] | padded[:, 2:, 1:-1] | padded[:, 1:-1, :-2] | padded[:, 1:-1, 2:]


def _dilated(mask: jax.Array) -> jax.Array:
    """Pixels no farther than TOLERANCE from the mask: up to 2, the steps to a neighbour tell the Euclidean disc."""
    for _ in range(TOLERANCE):
        mask = mask | _beside(mask)
    return mask


def _outline(mask: jax.Array, known: jax.Array) -> jax.Array:
    """Pixels of the mask beside a known one outside it. The image frame is no outline."""
    return mask & _beside(~mask & known)


def outline_counts(
    masks: Bool[Array, "B H W E"],
    closed_labels: UInt8[Array, "B H W"],
    classes: Int[Array, "B E"],
    sizes: Int[Array, "B 2"],
) -> Int[Array, "B E 4"]:
    """Outline pixels of prediction that match and in all, of truth that match and in all.

    An outline pixel matches when the other outline passes within TOLERANCE pixels. What lies within TOLERANCE of void
    counts on neither side.

    Args:
      masks: prediction of episode e of image b.
      closed_labels: label maps after `close_void`, 255 outside the image.
      classes: the episodes' 0-based classes.
      sizes: own height and width of every image.
    """
    _, height, width, _ = masks.shape
    rows, columns = jnp.arange(height)[None, :, None], jnp.arange(width)[None, None, :]
    inside = ((rows < sizes[:, 0, None, None]) & (columns < sizes[:, 1, None, None]))[..., None]
    known = (closed_labels != VOID)[..., None]
    counted = inside & ~_dilated(inside & ~known)
    truth = closed_labels[..., None] == (classes + 1)[:, None, None, :]
    predicted_outline = _outline(masks & inside, inside)
    true_outline = _outline(truth, known)

    def count(outline: jax.Array) -> jax.Array:
        return jnp.sum(outline & counted, axis=(1, 2), dtype=jnp.int32)

    return jnp.stack(
        [
            count(predicted_outline & _dilated(true_outline)),
            count(predicted_outline),
            count(true_outline & _dilated(predicted_outline)),
            count(true_outline),
        ],
        axis=-1,
    )


# --- Preparation on the host ----------------------------------------------------------------------------------------


def close_void(labels: UInt8[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Give void within VOID_RIBBON pixels of a labelled pixel the label of the nearest one.

    VOC draws a ribbon of void on every outline: closed like this, the outline runs along its middle. Wide void stays.
    """
    void = labels == VOID
    if not void.any() or void.all():
        return labels
    distance, nearest = np.empty(void.shape), np.empty((2, *void.shape), np.int32)
    ndimage.distance_transform_edt(void, return_indices=True, distances=distance, indices=nearest)
    return np.where(distance <= VOID_RIBBON, labels[tuple(nearest)], np.uint8(VOID))


def boundary_f(counts: Int[np.ndarray, "4"]) -> float | None:
    """F-measure of one episode from its four `outline_counts`; None when neither mask has an outline."""
    predicted_hits, predicted, true_hits, true = (int(count) for count in counts)
    if predicted == 0 and true == 0:
        return None
    if predicted == 0 or true == 0:
        return 0.0
    precision, recall = predicted_hits / predicted, true_hits / true
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


# --- Sums over a test set -------------------------------------------------------------------------------------------


class EpisodeScores:
    """Sums over episodes {others, class}, and the scores that follow (REFERENCE_FACTS protocol: HSNet's).

    mIoU: intersections and unions summed by class, IoU by class, mean over classes. FBIoU: foreground and background
    intersections and unions summed over all classes, mean of the two IoUs. Boundary F: mean over a class's episodes,
    then over classes. An episode that counts n times weighs n; `pairs` are the different ones.
    """

    def __init__(self, num_classes: int, min_pairs: int):
        self.min_pairs = min_pairs
        self.pairs = np.zeros(num_classes, np.int64)
        self._overlap = np.zeros((num_classes, 4), np.int64)
        self._boundary = np.zeros((num_classes, 2))  # weighted sum of F, sum of weights

    def add(
        self, category: int, weight: int, overlap: Int[np.ndarray, "4"], outline: Int[np.ndarray, "4"] | None
    ) -> None:
        """Add one pair: its 0-based class, how often it counts, its `overlap_counts` and `outline_counts`."""
        self.pairs[category] += 1
        self._overlap[category] += weight * overlap.astype(np.int64)
        f = None if outline is None else boundary_f(outline)
        if f is not None:
            self._boundary[category] += weight * f, weight

    def result(self, classes: Sequence[int], names: Sequence[str]) -> dict:
        """Scores over `classes` (0-based). `boundary_f` is None if no outlines were added."""
        iou = {c: ratio(self._overlap[c, 0], self._overlap[c, 1]) for c in classes}
        total = self._overlap[list(classes)].sum(axis=0)
        return {
            "miou": mean(iou.values()),
            "miou_min_pairs": mean(iou[c] for c in classes if self.pairs[c] >= self.min_pairs),
            "fbiou": mean((ratio(total[0], total[1]), ratio(total[2], total[3]))),
            "boundary_f": mean(ratio(*self._boundary[c]) for c in classes),
            "per_class": {names[c]: iou[c] for c in classes},
            "pairs": {names[c]: int(self.pairs[c]) for c in classes},
        }


def generalized_scores(
    confusion: Int[np.ndarray, "K K"], unseen: Sequence[int], names: Sequence[str], min_pixels: int = 0
) -> dict:
    """The generalised setting, all labels at once: mIoU of seen and of unseen classes and their harmonic mean.

    Args:
      confusion: (1 + C, 1 + C) pixels by true and predicted label, 0 for others.
      unseen: 0-based unseen classes.
      names: the C class names. A class without a pixel in the truth is None.
      min_pixels: the same three means over classes of at least so many pixels in the truth are under "min_pixels".
    """
    confusion = confusion.astype(np.int64)
    correct, true = np.diag(confusion), confusion.sum(axis=1)
    union = true + confusion.sum(axis=0) - correct
    iou = [float(correct[i] / union[i]) if true[i] else None for i in range(1, len(names) + 1)]

    def means(classes: Iterable[int]) -> dict[str, float | None]:
        classes = set(classes)
        seen = mean(iou[c] for c in classes - set(unseen))
        new = mean(iou[c] for c in classes & set(unseen))
        harmonic = None if seen is None or new is None else 2 * seen * new / (seen + new) if seen + new else 0.0
        return {"seen": seen, "unseen": new, "harmonic": harmonic}

    return {
        **means(range(len(names))),
        "min_pixels": means(c for c in range(len(names)) if true[c + 1] >= min_pixels),
        "per_class": dict(zip(names, iou, strict=True)),
        "pixels": {name: int(true[c + 1]) for c, name in enumerate(names)},
    }
