"""Every fusion rule against the network alone, pair by pair: means and 95% bootstrap intervals over images.

python -m experiments fusion --workdir W1 [--workdir W2 ...] --out DIR [--config.spectral.KEY=VALUE ...]
python -m experiments fusion --workdir W1 ... --excluded [--target_fold F] --out DIR

By default the test pairs of each run's fold are scored. --excluded scores what the network was not shown (the classes
of `data.exclude` and of its fold) on the *selection* images instead, less the classes of the target fold (by default
the run's own), whose labels are not looked at: settings for the target fold are chosen there. Writes DIR/fusion.md,
DIR/fusion.json and DIR/WORKDIR.png: image, prediction, fused masks, oracle and ground truth of pairs at even steps.
What is not defined, as the mean over classes of `eval.min_pairs` pairs where there is none, is null (in the table -).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from configs import overrides
from data.loading import labelled_images
from experiments.bootstrap import MEASURES, differences, mean_over_runs, summary
from experiments.chosen import spread
from experiments.runs import distinct_tails, open_run, rule_title
from sazs_jax.atomic import check_folder, write_atomically
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import count_pairs
from sazs_jax.evaluation.evaluator import Episode
from sazs_jax.visualization import overlay, png, sheet

_WORKDIRS = flags.DEFINE_multi_string("workdir", None, "A run, as given to train.py; may be repeated", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
_EXCLUDED = flags.DEFINE_bool("excluded", False, "Score the excluded classes on the selection images")
_TARGET_FOLD = flags.DEFINE_integer("target_fold", None, "With --excluded: the fold that settings are chosen for")
overrides.define(("eval", "spectral"))

_PICTURES = 8  # rows of the figure


def main(arguments: Sequence[str]) -> None:
    """Score each run, then write the table and the figures."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    check_folder(_OUT.value)
    names = distinct_tails(_WORKDIRS.value)
    runs, settings = {}, {}
    for workdir, name in names.items():
        episodes, settings[workdir] = score(workdir, Path(_OUT.value) / f"{name}.png")
        runs[workdir] = differences(episodes, settings[workdir]["eval"]["min_pairs"])
    rules = [rule for rule in next(iter(runs.values())) if rule != "none"]
    lines, results = [], {"settings": settings, "runs": {}}
    for workdir, found in (*runs.items(), ("mean", mean_over_runs(list(runs.values())))):
        results["runs"][workdir] = {
            rule: dict(zip(MEASURES, map(summary, found[rule].T), strict=True)) for rule in found
        }
        lines += [
            f"\n### {names.get(workdir, workdir)}\n",
            f"| rule | {' | '.join(MEASURES)} |",
            "|---|" + "---|" * len(MEASURES),
        ]
        none = (summary(column)["value"] for column in found["none"].T)
        lines.append(f"| none | {' | '.join('-' if value is None else f'{100 * value:.1f}' for value in none)} |")
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
        if not pairs:
            raise UserError(
                f"no selection image shows a class that {workdir} was not trained on and that fold {target} does not "
                "test; choose another --target_fold, or a run with another data.exclude"
            )
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


def _cell(column: np.ndarray) -> str:
    value, low, high = summary(column).values()
    if value is None or low is None or high is None:
        return "-"
    return f"{100 * value:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
