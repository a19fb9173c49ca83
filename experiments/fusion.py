"""Every fusion rule against the network alone, pair by pair: means and 95% bootstrap intervals over images.

python -m experiments fusion --workdir W1 [--workdir W2 ...] --out DIR [--config.spectral.KEY=VALUE ...]
python -m experiments fusion --workdir W1 ... --excluded [--target_fold F] --out DIR

By default the test pairs of each run's fold are scored. --excluded scores the classes of `data.exclude` (those outside
the target fold, whose labels are not looked at) on the *selection* images instead: settings are chosen there, on words
that the network was not shown. Writes DIR/fusion.md, DIR/fusion.json and DIR/WORKDIR.png: image, prediction, fused
masks, oracle and ground truth of pairs at even steps.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from jaxtyping import Float

from configs import overrides
from data.loading import labelled_images
from experiments.chosen import spread
from experiments.runs import open_run, rule_title
from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import count_pairs
from sazs_jax.evaluation.evaluator import Episode
from sazs_jax.evaluation.metrics import boundary_f
from sazs_jax.visualization import overlay, png, sheet

_WORKDIRS = flags.DEFINE_multi_string("workdir", None, "A run, as given to train.py; may be repeated", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
_EXCLUDED = flags.DEFINE_bool("excluded", False, "Score the excluded classes on the selection images")
_TARGET_FOLD = flags.DEFINE_integer("target_fold", None, "With --excluded: the fold that settings are chosen for")
overrides.define(("eval", "spectral"))

MEASURES = ("miou_min_pairs", "fbiou", "boundary_f")
_RESAMPLES = 2000
_PICTURES = 8  # rows of the figure


def main(arguments: Sequence[str]) -> None:
    """Score each run, then write the table and the figures."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    runs, settings = {}, {}
    for workdir in _WORKDIRS.value:
        episodes, settings[workdir] = score(workdir, Path(_OUT.value) / f"{Path(workdir).name}.png")
        runs[workdir] = differences(episodes, settings[workdir]["eval"]["min_pairs"])
    rules = [rule for rule in next(iter(runs.values())) if rule != "none"]
    lines, results = [], {"settings": settings, "runs": {}}
    for workdir, found in (*runs.items(), ("mean", mean_over_runs(list(runs.values())))):
        results["runs"][workdir] = {
            rule: dict(zip(MEASURES, map(_summary, found[rule].T), strict=True)) for rule in found
        }
        lines += [
            f"\n### {Path(workdir).name}\n",
            f"| rule | {' | '.join(MEASURES)} |",
            "|---|" + "---|" * len(MEASURES),
        ]
        none = " | ".join(f"{100 * value:.1f}" for value in found["none"][0])
        lines.append(f"| none | {none} |")
        lines += [f"| {rule_title(rule)} | {' | '.join(_cell(column) for column in found[rule].T)} |" for rule in rules]
    text = "\n".join(lines).strip() + "\n"
    write_atomically(Path(_OUT.value) / "fusion.md", text)
    write_atomically(Path(_OUT.value) / "fusion.json", json.dumps(results, indent=2) + "\n")
    print(text)


def score(workdir: str, figure: Path) -> tuple[list[Episode], dict[str, Any]]:
    """Every episode of a run under every rule, without its mask, and the settings; writes the figure."""
    run = open_run(workdir, splits=("train",) if _EXCLUDED.value else ("val",))
    config, dataset = run.config, run.dataset
    if not config.spectral.features:
        raise UserError(
            f"{workdir} has no features for eigensegments; give --config.spectral.features=lite or the like"
        )
    if _EXCLUDED.value:
        if not config.data.exclude:
            raise UserError(
                f"{workdir} excludes no class; train one with --config.data.exclude=\"('dog',)\" or the like"
            )
        target = config.data.fold if _TARGET_FOLD.value is None else _TARGET_FOLD.value
        classes = [c for c in run.withheld if c not in dataset.unseen(target)]
        split, pairs = dataset.train, dataset.selection_pairs(target, classes)
    else:
        split, classes, pairs = dataset.val, dataset.unseen(config.data.fold), dataset.test_pairs(config.data.fold)
    counts = count_pairs(pairs, config.eval.protocol, draw=dataset.hsnet_draws)
    episodes: list[Episode] = []

    def record(episode: Episode) -> None:
        episodes.append(episode._replace(mask=np.zeros((0, 0), bool)))

    run.score(labelled_images(split, sorted(counts), counts), classes, boundary=True, record=record)
    rows = []
    for shown in run.pictures(split, spread(pairs, _PICTURES)):
        masks = [(rule_title(rule), overlay(shown.image, mask.astype(np.uint8))) for rule, mask in shown.masks.items()]
        truth = overlay(shown.image, shown.truth)
        rows.append([(dataset.class_names[shown.category], shown.image), *masks, ("ground truth", truth)])
    write_atomically(figure, png(sheet(rows)))
    return episodes, {group: config[group].to_dict() for group in ("eval", "spectral")}


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
        # A sample without a class leaves it out.
        miou = np.nanmean(ious, axis=0) if ious else np.full(len(weights), np.nan)
        return np.stack([miou, fbiou, np.nanmean(boundaries, axis=0)], axis=1)


def mean_over_runs(runs: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The mean over runs, each resampled by itself."""
    return {rule: np.mean([run[rule] for run in runs], axis=0) for rule in runs[0]}


def _summary(column: np.ndarray) -> dict[str, float]:
    low, high = np.nanpercentile(column[1:], [2.5, 97.5])
    return {"value": float(column[0]), "low": float(low), "high": float(high)}


def _cell(column: np.ndarray) -> str:
    found = _summary(column)
    return f"{100 * found['value']:+.1f} ({100 * found['low']:+.1f} to {100 * found['high']:+.1f})"
