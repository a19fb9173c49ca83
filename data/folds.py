"""Which classes are unseen in a fold, and what training may see of their pixels."""

import hashlib
import operator

import numpy as np
from jaxtyping import Integer, UInt8

from sazs_jax.errors import UserError
from sazs_jax.label_map import IGNORED, VOID

NUM_FOLDS = 4
NO_FOLD = -1  # as data.fold: no fold is unseen, only what data.exclude names
OTHERS = 0
UNSEEN_PIXELS = ("ignore", "others", "drop")

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


Folds = tuple[tuple[int, ...], ...]  # fold -> its 0-based classes, ascending


def contiguous_folds(num_classes: int) -> Folds:
    """PASCAL-5i's way: fold f holds the f-th quarter of the classes, 5f..5f+4 of 20."""
    size = num_classes // NUM_FOLDS
    return tuple(tuple(range(fold * size, (fold + 1) * size)) for fold in range(NUM_FOLDS))


def interleaved_folds(num_classes: int) -> Folds:
    """COCO-20i's way: fold f holds every fourth class from f on, f, f+4, ..., f+76 of 80."""
    return tuple(tuple(range(fold, num_classes, NUM_FOLDS)) for fold in range(NUM_FOLDS))


def unseen_classes(folds: Folds, fold: int) -> tuple[int, ...]:
    """0-based classes that fold `fold` tests and training never sees; none for `NO_FOLD`.

    Raises:
        UserError: the fold is not one of 0..3 or -1.
    """
    if isinstance(fold, bool) or fold not in range(NO_FOLD, len(folds)):
        raise UserError(f"data.fold is {fold}; expected one of 0..{len(folds) - 1}, or {NO_FOLD} for none")
    fold = operator.index(fold)
    return () if fold == NO_FOLD else folds[fold]


def seen_classes(num_classes: int, unseen: tuple[int, ...]) -> tuple[int, ...]:
    """0-based classes outside `unseen`, ascending: class `seen[i]` is i + 1 in a training label map."""
    return tuple(c for c in range(num_classes) if c not in unseen)


def training_lookup(num_classes: int, unseen: tuple[int, ...], unseen_pixels: str) -> UInt8[np.ndarray, "256"]:
    """Table from label values on disk (0 others, c + 1 class c, 255 void) to those that training sees.

    Seen classes become 1..S in ascending order, whatever the ids of the unseen ones; pixels of unseen
    classes become `IGNORED` ('ignore', and 'drop', which leaves such images out altogether) or others ('others').
    Any value that is no class becomes void.

    Raises:
        UserError: an unknown `unseen_pixels`.
    """
    if unseen_pixels not in UNSEEN_PIXELS:
        raise UserError(f"loss.unseen_pixels is {unseen_pixels!r}; expected one of {', '.join(UNSEEN_PIXELS)}")
    lookup = np.full(256, VOID, np.uint8)
    lookup[OTHERS] = OTHERS
    for i, c in enumerate(seen_classes(num_classes, unseen)):
        lookup[c + 1] = i + 1
    lookup[[c + 1 for c in unseen]] = OTHERS if unseen_pixels == "others" else IGNORED
    return lookup


def is_selection(image_id: str) -> bool:
    """Whether a training image belongs to *selection*: a fixed tenth, by a hash of the id."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") % 10 == 0


def pairs_by_pixels(
    counts: Integer[np.ndarray, "images classes"], min_pixels: int, folds: Folds
) -> dict[int, list[tuple[int, int]]]:
    """Fold lists by size: image i is listed with every class that covers at least `min_pixels` in its mask.

    Args:
        counts: pixels of each 0-based class in each image.
        min_pixels: the published lists of PASCAL-5i and COCO-20i follow 2048 closely.
        folds: the classes of each.

    Returns:
        fold -> (image index, 0-based class), ordered by class, then image, as the published lists are.
    """
    return {
        fold: [(int(i), c) for c in classes for i in np.flatnonzero(counts[:, c] >= min_pixels)]
        for fold, classes in enumerate(folds)
    }
