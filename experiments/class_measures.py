"""What the paper correlates with the IoU of a class: shape compactness and language embedding locality (4.6, 4.7)."""

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import spatial, stats
from skimage.measure import perimeter_crofton

FEWEST_CLASSES = 10  # with fewer, r and p mean nothing


class Correlation(NamedTuple):
    """Pearson's r and its two-sided p over `classes` points."""

    classes: int
    r: float
    p: float

    @property
    def means_something(self) -> bool:
        """Whether there are at least FEWEST_CLASSES."""
        return self.classes >= FEWEST_CLASSES


def compactness(mask: Bool[np.ndarray, "H W"]) -> float | None:
    """Shape compactness 4 pi A / P^2 of all parts of a mask together: 1 of a disc, pi / 4 of a square; None of no mask.

    The perimeter counts holes and the image's frame, where it cuts the mask. It is Crofton's formula in four directions
    (scikit-image), which has no bias where outlines run in all directions: of discs and rings of radius 20 or more the
    compactness is at most 6% too small, of axis-aligned squares up to 14% too large, of squares at 20 degrees up to 5%
    too small.
    """
    if not mask.any():
        return None
    return float(4 * np.pi * mask.sum() / perimeter_crofton(mask, directions=4) ** 2)


def locality(anchors: Float[np.ndarray, "K D"]) -> Float[np.ndarray, "K 2"]:
    """Mean and standard deviation of the Euclidean distances from each anchor to all others.

    Of the classes' anchors alone, without that of "others", and not normalised: the axis of Fig. 5b, 5.8 to 6.8, is
    out of reach of unit vectors.
    """
    distances = spatial.distance.cdist(anchors, anchors)
    others = distances[~np.eye(len(anchors), dtype=bool)].reshape(len(anchors), -1)
    return np.stack([others.mean(axis=1), others.std(axis=1)], axis=1)


def correlate(x: Float[np.ndarray, "N"], y: Float[np.ndarray, "N"]) -> Correlation | None:
    """Pearson's r and p; None of fewer than three points, or where one side is constant."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return None
    found: Any = stats.pearsonr(x, y)
    return Correlation(len(x), float(found.statistic), float(found.pvalue))
