"""Eigensegments: where an eigenvector of the image's Laplacian is positive (paper 3.4)."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sazs_jax.spectral.eigen import Eigenvectors


def soft_segments(eigen: Eigenvectors, size: tuple[int, int], count: int) -> Float[Array, "B H W K"]:
    """The first `count` eigenvectors as maps of `size` = (H, W), bilinear, each divided by its mean absolute value.

    Positive inside the eigensegment, negative outside, 0 on its outline.
    """
    batch, nodes, _ = eigen.vectors.shape
    side = round(nodes**0.5)
    maps = eigen.vectors[..., :count].reshape(batch, side, side, count)
    maps = maps / jnp.maximum(jnp.abs(maps).mean(axis=(1, 2), keepdims=True), 1e-12)
    return jax.image.resize(maps, (batch, *size, count), "bilinear", antialias=False)


def eigensegments(eigen: Eigenvectors, size: tuple[int, int], count: int) -> Bool[Array, "B H W K"]:
    """Masks at `size`: eigenvectors brought to it first, then thresholded, so that outlines are smooth."""
    return soft_segments(eigen, size, count) > 0
