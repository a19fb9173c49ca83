"""What each fusion rule predicts, at the images' own size: masks of episodes, label maps, and the oracle's choice."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, UInt8

from sazs_jax.evaluation.metrics import overlap_counts
from sazs_jax.inference import upsample
from sazs_jax.spectral.eigen import Eigenvectors
from sazs_jax.spectral.fusion import FusionSettings, fuse
from sazs_jax.spectral.segments import soft_segments

ORACLE = "oracle"  # the rule that takes the ground truth: an upper bound


def episode_masks(
    rule: str,
    logits: Float[Array, "B h w K"],
    eigen: Eigenvectors | None,
    images: UInt8[Array, "B _H _W 3"],
    settings: FusionSettings | None,
    classes: Int[Array, "B E"],
    sizes: Int[Array, "B 2"],
    canvas: tuple[int, int],
) -> Bool[Array, "B H W E"]:
    """Two-way prediction {others, class} of every episode, True where the class wins.

    Args:
      rule: of `fusion.RULES`, applied to each episode's two labels.
      logits: of "others" and every class, at decoder resolution.
      eigen: not looked at by the rule `none`; likewise `settings`.
      images: as the network saw them.
      settings: of the rules.
      classes: 0-based classes of each image's episodes.
      sizes: own height and width of every image.
      canvas: (H, W), which holds them all.
    """
    wanted = jnp.take_along_axis(logits, classes[:, None, None, :] + 1, axis=-1)  # (B, h, w, E)
    others = jnp.broadcast_to(logits[..., :1], wanted.shape)
    if rule != "none":
        assert eigen is not None
        assert settings is not None
        pairs = jnp.stack([others, wanted])  # (2, B, h, w, E)
        fused = jax.vmap(lambda pair: fuse(rule, jnp.moveaxis(pair, 0, -1), eigen, images, settings), in_axes=-1)(pairs)
        others, wanted = jnp.moveaxis(fused, (0, -1), (-1, 0))  # each (B, h, w, E)
    return upsample(wanted - others, sizes, canvas) > 0


def oracle_masks(
    masks: Bool[Array, "B H W E"],
    eigen: Eigenvectors,
    count: int,
    labels: UInt8[Array, "B H W"],
    classes: Int[Array, "B E"],
    sizes: Int[Array, "B 2"],
) -> Bool[Array, "B H W E"]:
    """Of the network's mask and the first `count` eigensegments, whichever has the largest IoU with the ground truth.

    The published fusion. It looks at what is to be predicted: an upper bound, for evaluation alone.
    """
    side = round(eigen.degrees.shape[1] ** 0.5)
    canvas = (labels.shape[1], labels.shape[2])
    segments = upsample(soft_segments(eigen, (side, side), count), sizes, canvas) > 0  # (B, H, W, S)

    def of_episode(mask, category):  # (B, H, W), (B,)
        candidates = jnp.concatenate([mask[..., None], segments], axis=-1)
        counts = overlap_counts(candidates, labels, jnp.broadcast_to(category[:, None], (len(labels), count + 1)))
        best = jnp.argmax(counts[..., 0] / jnp.maximum(counts[..., 1], 1), axis=-1)  # (B,)
        return jnp.take_along_axis(candidates, best[:, None, None, None], axis=-1)[..., 0]

    return jax.vmap(of_episode, in_axes=(-1, -1), out_axes=-1)(masks, classes)
