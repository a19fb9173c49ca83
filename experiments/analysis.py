"""Shape compactness and language embedding locality of unseen classes against their IoU (Fig. 5 and 6).

python -m experiments analysis --workdir W1 [--workdir W2 ...] --out DIR [--config.eval.KEY=VALUE ...]

Runs that differ in nothing but their fold are one setting, as in the paper; its points are the classes of all folds.
Every setting is scored under every fusion rule. Writes to DIR: analysis.md; classes.csv, a row a class, setting and
rule; masks.csv, the compactness of every true mask; correlations.csv; compactness.png (Fig. 5a) and locality.png
(Fig. 5b) with all settings in one, and by_setting.png (Fig. 6) with a panel for each.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from absl import flags

from configs import overrides
from experiments.class_measures import FEWEST_CLASSES, Correlation, compactness, correlate, locality
from experiments.csv_text import csv_text
from experiments.runs import Run, open_run, rule_title
from experiments.scatter import Series, all_in_one, by_setting
from experiments.settings import differing_keys, group
from sazs_jax.atomic import check_folder, write_atomically
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import LabelledImage
from sazs_jax.evaluation.masks import ORACLE
from sazs_jax.evaluation.metrics import close_void

_WORKDIRS = flags.DEFINE_multi_string("workdir", None, "A run, as given to train.py; may be repeated", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
overrides.define(("eval", "spectral"))

MEASURES = {  # of a class: the field of Point, and its name on an axis
    "compactness_variance": "variance of shape compactness",
    "locality_mean": "language embedding locality, mean",
    "locality_std": "language embedding locality, standard deviation",
}
Masks = dict[tuple[int, str, str], float]  # (fold, image, class): compactness
Correlations = dict[tuple[str, str, str], Correlation | None]  # by (setting, rule, measure)


@dataclass(frozen=True)
class Point:
    """One class in one setting under one rule. IoU and variance are None where too few pairs decide them."""

    setting: str
    rule: str
    fold: int
    name: str
    pairs: int
    counted: bool  # whether it has eval.min_pairs
    iou: float | None
    compactness_mean: float | None
    compactness_variance: float | None  # of the true masks of the test pairs, unbiased
    locality_mean: float
    locality_std: float


def main(arguments: Sequence[str]) -> None:
    """Score the runs, correlate, write tables and figures."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    check_folder(_OUT.value)
    runs = [open_run(workdir) for workdir in _WORKDIRS.value]
    settings = group(runs)
    masks: Masks = {}
    points = [point for title, members in settings.items() for run in members for point in score(title, run, masks)]
    found = correlations(points)
    rules = {"none", ORACLE, *(run.rule for run in runs)}  # those that the figures show
    panels = {title: series(points, found, measure, rules) for measure, title in MEASURES.items()}
    compact, *local = panels

    out = Path(_OUT.value)
    text = summary(settings, points, found)
    contents = {
        "classes.csv": csv_text(asdict(point) for point in points),
        "masks.csv": csv_text(
            {"fold": fold, "image": image, "class": name, "compactness": value}
            for (fold, image, name), value in masks.items()
        ),
        "correlations.csv": csv_text(
            {"setting": setting, "rule": rule, "measure": measure,
             **(value._asdict() if value else {"classes": None, "r": None, "p": None}),
             "means_something": bool(value and value.means_something)}
            for (setting, rule, measure), value in found.items()
        ),
        "compactness.png": all_in_one({compact: panels[compact]}),
        "locality.png": all_in_one({title: panels[title] for title in local}),
        "by_setting.png": by_setting(panels),
        "analysis.md": text,
    }  # fmt: skip
    for name, content in contents.items():
        write_atomically(out / name, content)
    print(text)


def score(setting: str, run: Run, masks: Masks) -> Iterator[Point]:
    """The unseen classes of a run under every rule; the compactness of each true mask is added to `masks`."""
    fold, names = run.config.data.fold, run.dataset.class_names
    of_class: dict[str, list[float]] = {}

    def measured(images: Iterable[LabelledImage]) -> Iterator[LabelledImage]:
        for item in images:
            label = close_void(item.label)  # so that VOC's ribbon takes nothing off a mask
            for c in item.episodes:
                if (value := compactness(label == c + 1)) is not None:
                    masks[fold, item.image_id, names[c]] = value
                    of_class.setdefault(names[c], []).append(value)
            yield item

    classes = run.dataset.unseen(fold)
    scores = run.score(measured(run.test_images()), classes)["fusion"]
    local = dict(zip(run.anchors.names[1:], locality(run.anchors.embeddings[1:]).tolist(), strict=True))
    for rule, of_rule in scores.items():
        for name, iou in of_rule["per_class"].items():
            values, pairs = of_class.get(name, []), of_rule["pairs"][name]
            yield Point(
                setting,
                rule,
                fold,
                name,
                pairs,
                pairs >= run.config.eval.min_pairs,
                iou,
                float(np.mean(values)) if values else None,
                float(np.var(values, ddof=1)) if len(values) > 1 else None,
                *local[name],
            )


def correlations(points: Sequence[Point]) -> Correlations:
    """Pearson's r and p of each measure with the IoU, over the counted classes of a setting under a rule."""
    found: Correlations = {}
    for setting, rule in dict.fromkeys((point.setting, point.rule) for point in points):
        for measure in MEASURES:
            chosen = [p for p in points if (p.setting, p.rule) == (setting, rule)]
            found[setting, rule, measure] = correlate(*_axes(chosen, measure)[:2])
    return found


def series(points: Sequence[Point], found: Correlations, measure: str, rules: Iterable[str | None]) -> list[Series]:
    """What a panel shows of a measure: a series for each setting and drawn rule."""
    shown = []
    for setting, rule in dict.fromkeys((point.setting, point.rule) for point in points if point.rule in rules):
        x, y, names = _axes([p for p in points if (p.setting, p.rule) == (setting, rule)], measure)
        title = f"{setting}{'' if rule == 'none' else f', {rule_title(rule)}'}"
        shown.append(Series(title, x, 100 * y, names, found[setting, rule, measure], bound=rule == ORACLE))
    return shown


def _axes(points: Sequence[Point], measure: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The measure, the IoU and the names of the counted classes that have both."""
    chosen = [p for p in points if p.counted and p.iou is not None and getattr(p, measure) is not None]
    return np.array([getattr(p, measure) for p in chosen]), np.array([p.iou for p in chosen]), [p.name for p in chosen]


def summary(settings: Mapping[str, Sequence[Run]], points: Sequence[Point], found: Correlations) -> str:
    """The results in Markdown."""
    config = next(iter(settings.values()))[0].config.eval
    lines = ["# Shape compactness and language embedding locality against IoU", ""]
    for title, runs in settings.items():
        members = ", ".join(f"{run.name} (fold {run.config.data.fold})" for run in runs)
        lines.append(f"- {title}: {members}")
    if differing := differing_keys(settings):
        lines += ["", f"Besides encoder and shape constraint, the settings differ in {', '.join(differing)}."]
    size = f"squashed to {config.resize}x{config.resize}" if config.resize else "at their own size"
    lines += ["", f"Images {size}, {config.protocol}; classes of {config.min_pairs} pairs or more count.", ""]
    if not all(value and value.means_something for value in found.values()):
        lines += [
            f"**Fewer than {FEWEST_CLASSES} classes: r and p mean nothing there** and are in brackets. "
            "They are given so that the calculation can be checked.",
            "",
        ]
    if len({tuple(sorted(run.config.data.fold for run in runs)) for runs in settings.values()}) > 1:
        lines += ["The settings are of different folds, hence of different classes: do not compare their r.", ""]
    lines += ["| setting | rule | measure | classes | r | p |", "|---|---|---|---|---|---|"]
    for (setting, rule, measure), value in found.items():
        cells = ("-", "-", "-")
        if value:
            r, p = f"{value.r:+.2f}", f"{value.p:.3f}"
            cells = (str(value.classes), r, p) if value.means_something else (str(value.classes), f"({r})", f"({p})")
        lines.append(f"| {setting} | {rule_title(rule)} | {MEASURES[measure]} | {' | '.join(cells)} |")
    lines += [
        "",
        "Published, 20 classes: with the variance |r| > .7, p <= .001, falling (Fig. 5a); with the mean locality "
        "|r| > .5, p < .05, falling (Fig. 5b). Its fused settings choose masks by the ground truth, as oracle does.",
        "",
        "| setting | class | pairs | IoU, none | compactness, mean | variance | locality, mean | standard deviation |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for p in points:
        if p.rule == "none":
            name = p.name if p.counted else f"{p.name} (not counted)"
            cells = (f"{p.pairs}", _cell(p.iou, 3), _cell(p.compactness_mean, 3), _cell(p.compactness_variance, 4),
                     _cell(p.locality_mean, 3), _cell(p.locality_std, 3))  # fmt: skip
            lines.append(f"| {p.setting} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
