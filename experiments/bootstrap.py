"""Paired differences between fusion rules, with a bootstrap over images."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from sazs_jax.evaluation.evaluator import Episode
from sazs_jax.evaluation.metrics import boundary_f

MEASURES = ("miou_min_pairs", "fbiou", "boundary_f")
_RESAMPLES = 2000


def differences(episodes: Sequence[Episode], min_pairs: int) -> dict[str, Float[np.ndarray, "1+S M"]]:
    """By rule the MEASURES: of all images first, then of each bootstrap sample; of other rules less those of none."""
    images = sorted({episode.image_id for episode in episodes})
    weights = np.random.default_rng(0).multinomial(len(images), np.full(len(images), 1 / len(images)), _RESAMPLES)
    weights = np.concatenate([np.ones((1, len(images))), weights])  # (1 + S, images)
    scores = {}
    for rule in dict.fromkeys(episode.rule for episode in episodes):
        chosen = [episode for episode in episodes if episode.rule == rule]
        scores[rule] = _measures(chosen, weights, {name: i for i, name in enumerate(images)}, min_pairs)
    return {rule: values if rule == "none" else values - scores["none"] for rule, values in scores.items()}


def _measures(episodes, weights, number, min_pairs) -> Float[np.ndarray, "1+S M"]:
    place = np.array([number[episode.image_id] for episode in episodes])
    category = np.array([episode.category for episode in episodes])
    overlap = np.array([episode.weight * episode.overlap for episode in episodes], float)
    found = [boundary_f(episode.outline) if episode.outline is not None else None for episode in episodes]
    f = np.array([[episode.weight * (value or 0.0), episode.weight * (value is not None)]
                  for episode, value in zip(episodes, found, strict=True)])  # fmt: skip
    ious, boundaries = [], []
    with np.errstate(invalid="ignore"):
        for c in np.unique(category):
            of_class = category == c
            sums = weights[:, place[of_class]] @ overlap[of_class]  # (1 + S, 4)
            if of_class.sum() >= min_pairs:
                ious.append(sums[:, 0] / sums[:, 1])
            sums = weights[:, place[of_class]] @ f[of_class]
            boundaries.append(sums[:, 0] / sums[:, 1])
        total = weights[:, place] @ overlap
        fbiou = (total[:, 0] / total[:, 1] + total[:, 2] / total[:, 3]) / 2
        miou, boundary = (_mean_over_classes(values, len(weights)) for values in (ious, boundaries))
    return np.stack([miou, fbiou, boundary], axis=1)


def _mean_over_classes(values: list[Float[np.ndarray, "S"]], samples: int) -> Float[np.ndarray, "S"]:
    """A sample that lacks a class leaves it out; nan where there is none."""
    stacked = np.array(values).reshape(-1, samples)
    there = ~np.isnan(stacked)
    return np.where(there, stacked, 0).sum(axis=0) / there.sum(axis=0)


def mean_over_runs(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean over runs, each resampled by itself (runs on the same images alike)."""
    return {rule: np.mean([run[rule] for run in runs], axis=0) for rule in runs[0]}


def summary(column: Float[np.ndarray, "1+S"]) -> dict[str, float | None]:
    """A measure of all images and the 95% interval of its bootstrap samples; None where it is not defined."""
    if np.isnan(column[0]) or np.isnan(column[1:]).all():
        return {"value": None, "low": None, "high": None}
    low, high = np.nanpercentile(column[1:], [2.5, 97.5])
    return {"value": float(column[0]), "low": float(low), "high": float(high)}
