"""What a network gives in the generalised setting by calibration constant, and the choice that rests on it."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from data.datasets import Split
from data.loading import labelled_images
from experiments.runs import Run
from sazs_jax.evaluation.constants import confusion_by_constant
from sazs_jax.evaluation.metrics import VOID, generalized_scores

CONSTANTS = np.arange(0.0, 0.5, 0.005)
SHARES = np.arange(0.01, 1.0, 0.01)


class Curve(NamedTuple):
    """What a run gives by constant; NaN where nothing decides it."""

    seen: Float[np.ndarray, "G"]  # mIoU of trained classes
    new: Float[np.ndarray, "G"]  # and of those that count as unseen
    harmonic: Float[np.ndarray, "G"]
    share: Float[np.ndarray, "G"]  # of a trained class's pixels that some word wins, those that an untrained word wins


def best_share(curves: Sequence[Curve]) -> float:
    """That of the largest mean harmonic mean."""
    by_share = [[at(curve, constant_of(curve, share))["harmonic"] for share in SHARES] for curve in curves]
    return float(SHARES[np.mean(by_share, axis=0).argmax()])


def at(curve: Curve, constant: float) -> dict[str, float]:
    """The curve's values at a constant, by name."""
    return {name: float(np.interp(constant, CONSTANTS, values)) for name, values in curve._asdict().items()}


def constant_of(curve: Curve, share: float) -> float:
    """The constant at which a share is reached; the largest where it never is."""
    reached = curve.share >= share
    if not reached.any():
        return float(CONSTANTS[-1])
    at = int(reached.argmax())
    if at == 0 or curve.share[at] == curve.share[at - 1]:
        return float(CONSTANTS[at])
    return float(np.interp(share, curve.share[at - 1 : at + 1], CONSTANTS[at - 1 : at + 1]))


def score(
    run: Run, split: Split, images: Sequence[int], words: Sequence[int], new: Sequence[int], void: Sequence[int]
) -> Curve:
    """The generalised setting by constant.

    Args:
      run: its network is scored.
      split: where the images are.
      images: their numbers.
      words: 0-based classes that are asked for.
      new: those of them that the run was not trained on.
      void: classes whose pixels are not looked at.
    """
    settings, names = run.config.eval, [run.dataset.class_names[c] for c in words]
    new = [list(words).index(c) for c in new]
    lookup = np.full(256, VOID, np.uint8)
    lookup[[0, *(c + 1 for c in words)]] = np.arange(len(words) + 1)
    lookup[[c + 1 for c in void]] = VOID
    sums = confusion_by_constant(
        run.model,
        labelled_images(split, images),
        run.anchors.embeddings[[0, *(c + 1 for c in words)]],
        new,
        CONSTANTS,
        lookup=lookup,
        resize=settings.resize or run.config.data.crop,
        batch_size=settings.batch_size,
    )
    found = [
        generalized_scores(confusion.round().astype(np.int64), new, names, settings.min_pixels)["min_pixels"]
        for confusion in sums
    ]
    scores = (np.array([s[key] for s in found], float) for key in ("seen", "unseen", "harmonic"))
    return Curve(*scores, share=share_of_new(sums, new, settings.min_pixels))


def share_of_new(sums: Float[np.ndarray, "G K K"], new: Sequence[int], min_pixels: int) -> Float[np.ndarray, "G"]:
    """Of a trained class's pixels that some word wins, the part that new words win: the mean over frequent classes."""
    rows = [k for k in range(1, sums.shape[1]) if k - 1 not in new and sums[0, k].sum() >= min_pixels]
    won, gone = sums[:, rows, 1:].sum(axis=-1), sums[:, rows][:, :, [k + 1 for k in new]].sum(axis=-1)
    return (gone / np.maximum(won, 1)).mean(axis=1) if rows else np.full(len(sums), np.nan)
