"""The way from pixels to label maps that evaluation and prediction take, as one function to time."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt8

from sazs_jax.inference import Network, upsampled_argmax
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.fusion import FusionSettings, fuse


def prediction(
    network: Network,
    pixels: UInt8[np.ndarray, "B S S 3"],
    anchors: Float[np.ndarray, "K D"],
    *,
    rule: str = "none",
    settings: FusionSettings | None = None,
    segmenter: Eigensegmenter | None = None,
) -> Callable[[], Any]:
    """A function that gives the label maps of `pixels`, at their own size.

    Args:
      network: of random or trained weights.
      pixels: on the host, as they come from files.
      anchors: of the labels.
      rule: of fusion.
      settings: of the rule; needed unless it is `none`.
      segmenter: computes the eigenvectors within the function; needed by the rules that look at them.
    """
    batch, side = pixels.shape[:2]
    sizes = jnp.full((batch, 2), side, jnp.int32)
    grid = segmenter.grid if segmenter and segmenter.takes_embeddings else 0

    @jax.jit
    def label_maps(logits, eigen, images):
        fused = logits if settings is None else fuse(rule, logits, eigen, images, settings)
        return upsampled_argmax(fused, sizes, (side, side))[0]

    def predict():
        logits, coarse = network.cosine_on_grid(pixels, anchors, grid)
        images = network.put(pixels)
        return label_maps(logits, segmenter(images, coarse) if segmenter else None, images)

    return predict
