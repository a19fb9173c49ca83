"""What a `Segmenter` gives for an image: embeddings, eigensegments, and the masks of words."""

from dataclasses import dataclass
from functools import cached_property, partial

import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt8

from sazs_jax.inference import CANVAS_STEP, upsample
from sazs_jax.spectral.eigen import Eigenvectors


@dataclass(frozen=True)
class ImageEmbedding:
    """What the network knows of an image: embed once, ask many times."""

    embeddings: Float[Array, "h w D"]  # at decoder resolution, on the device, not normalised
    size: tuple[int, int]  # the image's own height and width
    pixels: UInt8[np.ndarray, "H2 W2 3"]  # as the network saw it
    eigen: Eigenvectors | None = None  # a batch of one, on the device; where the fusion rule needs it


@dataclass(frozen=True)
class Eigensegments:
    """The parts that an image falls into without any words (paper 3.4), at its own size.

    Attributes:
      masks: the eigensegments, most significant first.
      soft: the eigenvectors behind them, in units of their mean absolute value; positive in the mask.
      values: their eigenvalues, ascending.
    """

    masks: Bool[np.ndarray, "H W K"]
    soft: Float[np.ndarray, "H W K"]
    values: Float[np.ndarray, "K"]


@dataclass(frozen=True)
class Segmentation:
    """Masks of one image at its own size.

    Attributes:
      label_map: 0 background (never where background=None), i + 1 for labels[i].
      labels: the words asked for.
      confidence: cosine in [-1, 1], before any fusion, of whatever won the pixel: a label, "others", or, where all
        stayed below the threshold, the best label.
      decoder_scores: cosine of each label, at decoder resolution.
    """

    label_map: Int[np.ndarray, "H W"]
    labels: tuple[str, ...]
    confidence: Float[np.ndarray, "H W"]
    decoder_scores: Float[np.ndarray, "h w K"]

    @property
    def legend(self) -> dict[int, str]:
        """Word by value of the label map, background (0) left out."""
        return dict(enumerate(self.labels, start=1))

    @cached_property
    def scores(self) -> Float[np.ndarray, "H W K"]:
        """Cosine in [-1, 1] of each label at every pixel. Made when first asked for: with many labels it is large."""
        height, width = self.label_map.shape
        sizes = np.array([[height, width]], np.int32)
        scores = np.asarray(_upsample(self.decoder_scores[None], sizes, canvas_of((height, width))))
        return scores[0, :height, :width]

    def summary(self) -> dict:
        """Size, and of each label its value, area in pixels, share of the image and mean cosine on its own pixels."""
        labels = {}
        for value, label in self.legend.items():
            mask = self.label_map == value
            labels[label] = {
                "value": value,
                "pixels": int(mask.sum()),
                "fraction": float(mask.mean()),
                "mean_score": float(self.confidence[mask].mean()) if mask.any() else None,
            }
        return {"size": list(self.label_map.shape), "labels": labels}


def canvas_of(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, multiples of CANVAS_STEP, that hold an image of `size`."""
    height, width = (-(-side // CANVAS_STEP) * CANVAS_STEP for side in size)
    return height, width


@partial(jax.jit, static_argnames="canvas")
def _upsample(scores, sizes, canvas):
    return upsample(scores, sizes, canvas)
