"""Rules that combine the network's logits with the image's eigensegments (paper 3.5), none of which sees the truth.

Every rule maps logits (B, h, w, K) to logits of the same shape, whose argmax is the fused prediction: for the two
labels of an episode or for any number at once.

    none        the logits as they are
    iou         Eq. 7 without the ground truth: a label's mask becomes the eigensegment, or its complement, of largest
                IoU with it, if that passes a threshold
    agreement   Eq. 7 softly: a label's logits rise within the segment of largest IoU with its mask and fall outside,
                the more the better the two agree, the less the nearer a pixel is to the segment's outline
    projection  logits mixed with their projection on the first eigenvectors
    diffusion   logits spread among neighbours of like colour

Rules joined by + work one after the other, as in "agreement+diffusion".

`oracle`, the rule of the published scripts, takes the ground truth and is in `evaluation`.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, UInt8
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.spectral.eigen import Eigenvectors
from sazs_jax.spectral.features import to_grid
from sazs_jax.spectral.segments import soft_segments

RULES = ("none", "iou", "agreement", "projection", "diffusion", "agreement+diffusion")
WITHOUT_EIGENVECTORS = ("none", "diffusion")

_DISTANCES = (1, 2, 4)  # of the neighbours that diffusion looks at, in cells
_STRENGTH = 100.0  # added to a cosine, it decides the argmax
_OUTLINE = 0.1  # of an eigenvector's mean absolute value: nearer to 0 the decision is left to the sign alone


class FusionSettings(NamedTuple):
    """Settings of all rules, hashable."""

    num_segments: int  # K of Eq. 7
    iou_threshold: float
    agreement_threshold: float
    agreement_weight: float
    projection_vectors: int
    projection_weight: float
    diffusion_steps: int
    diffusion_tolerance: float

    @classmethod
    def of_config(cls, config: ConfigDict) -> "FusionSettings":
        """Those of the `spectral` group.

        Raises:
          UserError: a setting that cannot work.
        """
        settings = cls(**{name: config[name] for name in cls._fields})
        shares = (settings.iou_threshold, settings.agreement_threshold, settings.projection_weight)
        if min(settings.num_segments, settings.projection_vectors, settings.diffusion_steps) < 1 or not (
            all(0 <= share <= 1 for share in shares)
            and 0 <= settings.agreement_weight < math.inf
            and 0 < settings.diffusion_tolerance < math.inf
        ):
            raise UserError(
                "spectral: expected counts of at least 1, thresholds and the share of the projection from 0 to 1, "
                f"a finite weight of at least 0 and a finite tolerance above 0; got {settings}"
            )
        return settings

    @property
    def num_vectors(self) -> int:
        """Eigenvectors that the rules need, the trivial one not counted."""
        return max(self.num_segments, self.projection_vectors)


def fuse(
    rule: str,
    logits: Float[Array, "B h w K"],
    eigen: Eigenvectors | None,
    images: UInt8[Array, "B H W 3"],
    settings: FusionSettings,
    *,
    background: bool = True,
) -> Float[Array, "B h w K"]:
    """Logits whose argmax is the fused prediction.

    Args:
      rule: one of RULES.
      logits: cosines in [-1, 1], at decoder resolution.
      eigen: of the same images; the rules WITHOUT_EIGENVECTORS do not look at it.
      images: of any size.
      settings: of every rule.
      background: the first label is none of the words asked for, and has no segment of its own.

    Raises:
      ValueError: an unknown rule.
    """
    steps: dict[str, Callable[[jax.Array], jax.Array]] = {
        "none": lambda x: x,
        "iou": lambda x: _iou(x, eigen, settings, background),
        "agreement": lambda x: _agreement(x, eigen, settings, background),
        "projection": lambda x: _projection(x, eigen, settings),
        "diffusion": lambda x: diffuse(
            x, images, steps=settings.diffusion_steps, tolerance=settings.diffusion_tolerance
        ),
    }
    if rule not in RULES:
        raise ValueError(f"unknown rule {rule!r}; expected one of {', '.join(RULES)}")
    for name in rule.split("+"):
        logits = steps[name](logits)
    return logits


def _best_segments(
    logits: Float[Array, "B h w K"], eigen: Eigenvectors, count: int, background: bool
) -> tuple[Float[Array, "B 1 1 K"], Float[Array, "B h w K"]]:
    """Of each label the segment, or complement of one, of largest IoU with its mask: that IoU, and the soft segment."""
    soft = soft_segments(eigen, (logits.shape[1], logits.shape[2]), count)
    soft = jnp.concatenate([soft, -soft], axis=-1)  # (B, h, w, S)
    segments = (soft > 0).astype(jnp.float32)
    masks = jax.nn.one_hot(jnp.argmax(logits, axis=-1), logits.shape[-1])  # (B, h, w, K)
    both = jnp.einsum("bhws,bhwk->bks", segments, masks)
    areas = segments.sum(axis=(1, 2))[:, None] + masks.sum(axis=(1, 2))[..., None]  # (B, K, S)
    iou = both / jnp.maximum(areas - both, 1.0)
    if background:
        iou = iou.at[:, 0].set(0.0)
    best = jnp.argmax(iou, axis=-1)[:, None, None]  # (B, 1, 1, K)
    return iou.max(axis=-1)[:, None, None], jnp.take_along_axis(soft, best, axis=-1)


def _iou(logits, eigen, settings, background) -> Float[Array, "B h w K"]:
    iou, soft = _best_segments(logits, eigen, settings.num_segments, background)
    # Signed and steep at the outline: where two labels claim a pixel, the one that fits its segment better has it.
    return jnp.where(iou > settings.iou_threshold, logits + _STRENGTH * iou * jnp.clip(soft / _OUTLINE, -1, 1), logits)


def _agreement(logits, eigen, settings, background) -> Float[Array, "B h w K"]:
    iou, soft = _best_segments(logits, eigen, settings.num_segments, background)
    change = settings.agreement_weight * iou * jnp.clip(soft, -1, 1)
    return jnp.where(iou > settings.agreement_threshold, logits + change, logits)


def _projection(logits, eigen, settings) -> Float[Array, "B h w K"]:
    batch, labels = logits.shape[0], logits.shape[-1]
    side = round(eigen.degrees.shape[1] ** 0.5)
    grid = to_grid(logits, side).reshape(batch, side * side, labels)
    weighted = eigen.degrees[..., None] * grid
    vectors = eigen.vectors[..., : settings.projection_vectors]
    mean = weighted.sum(axis=1, keepdims=True) / eigen.degrees.sum(axis=1)[:, None, None]  # on the trivial vector
    found = mean + vectors @ jnp.einsum("bnv,bnk->bvk", vectors, weighted)
    # What is finer than the grid stays as the network says.
    change = jax.image.resize((found - grid).reshape(batch, side, side, labels), logits.shape, "linear")
    return logits + settings.projection_weight * change


def diffuse(
    logits: Float[Array, "B h w K"], images: UInt8[Array, "B H W 3"], *, steps: int, tolerance: float
) -> Float[Array, "B h w K"]:
    """Logits spread among neighbours of like colour, in the manner of pixel-adaptive refinement.

    A step takes a weighted mean over the eight neighbours of a cell at 1, 2 and 4 cells. A neighbour's weight falls
    exponentially with the difference of colour, measured in the spread of colours around the cell: edges stay, within
    even regions logits level out. (Araslanov and Roth, 2020.)

    Args:
      logits: what is spread.
      images: the colours, resized to the logits.
      steps: how often.
      tolerance: the difference of colour at which a weight falls to 1 / e, in standard deviations of the neighbours'.
    """
    batch, height, width, _ = logits.shape
    reach = max(_DISTANCES)
    colours = jax.image.resize(images.astype(jnp.float32) / 255, (batch, height, width, 3), "linear")

    def neighbours(x):  # (24, B, h, w, C); the frame repeats outwards
        padded = jnp.pad(x, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="edge")
        steps = [(dy * d, dx * d) for d in _DISTANCES for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
        return [padded[:, reach + y : reach + y + height, reach + x : reach + x + width] for y, x in steps]

    around = jnp.stack(neighbours(colours))
    spread = jnp.std(jnp.concatenate([around, colours[None]]), axis=0) + 1e-3
    difference = jnp.mean(jnp.abs(around - colours) / spread, axis=-1)
    weights = jax.nn.softmax(-difference / tolerance, axis=0)[..., None]  # (24, B, h, w, 1)

    def step(x, _):
        return sum((w * y for w, y in zip(weights, neighbours(x), strict=True)), jnp.zeros_like(x)), None

    return jax.lax.scan(step, logits, None, length=steps)[0]
