"""Test episodes: which (image, class) pairs are scored, and how often each counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sazs_jax.errors import UserError

HSNET_EPISODES = 1000


@dataclass(frozen=True)
class LabelledImage:
    """One image with its ground truth and the episodes it takes part in.

    `episodes` maps a 0-based class to how often its pair counts (more than 1 only under hsnet1000).
    It may be empty: the image then serves the generalised setting alone.
    """

    image_id: str
    image: np.ndarray  # uint8 (H, W, 3), RGB
    label: np.ndarray  # uint8 (H, W): 0 others, c + 1 for class c, 255 void
    episodes: dict[int, int]


def drawn_episodes(pairs: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """HSNet's 1000 episodes of COCO-20i, (image, class), without its draws of support images.

    `numpy.random` of seed 0 draws a class, then one of its images, each time. Classes ascend, and the images of each
    stand as in the list; a class without an image is left out.
    """
    images: dict[int, list[int]] = {}
    for image, category in pairs:
        images.setdefault(category, []).append(image)
    random = np.random.RandomState(0)
    walk = []
    for _ in range(HSNET_EPISODES):
        category = int(random.choice(sorted(images), 1, replace=False)[0])
        walk.append((int(random.choice(images[category], 1, replace=False)[0]), category))
    return walk


def count_pairs(pairs: Sequence[tuple[int, int]], protocol: str, *, draw: bool = False) -> dict[int, dict[int, int]]:
    """How often each (image index, 0-based class) pair counts: {image index: {class: count}}.

    `all_pairs` counts every pair of the list once. `hsnet1000` is HSNet's test, of 1000 episodes: of COCO-20i
    (`draw`) those of `drawn_episodes`; of PASCAL-5i it walks the list modulo its length, so a short list repeats
    unevenly and of a long one only the first 1000 pairs count.

    Raises:
        UserError: an unknown protocol, or no pair to score.
    """
    if protocol not in ("all_pairs", "hsnet1000"):
        raise UserError(f"eval.protocol is {protocol!r}; expected 'all_pairs' or 'hsnet1000'")
    if not pairs:
        raise UserError("no (image, class) pair to score: the val list of this fold is empty; choose another fold")
    if protocol == "hsnet1000":
        walk = drawn_episodes(pairs) if draw else [pairs[i % len(pairs)] for i in range(HSNET_EPISODES)]
    else:
        walk = list(dict.fromkeys(pairs))
    counts: dict[int, dict[int, int]] = {}
    for image, category in walk:
        classes = counts.setdefault(image, {})
        classes[category] = classes.get(category, 0) + 1
    return counts
