"""The results file `eval/metrics.json` and the same figures as a table."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sazs_jax.atomic import write_atomically
from sazs_jax.evaluation.evaluator import Episode
from sazs_jax.evaluation.masks import ORACLE
from sazs_jax.visualization import png

_MEASURES = ("miou", "miou_min_pairs", "fbiou", "boundary_f")


def write_metrics(path: str | os.PathLike, metrics: Mapping[str, Any]) -> None:
    """Write the results as JSON: fractions, null for what no pair or pixel decides. A reader never sees half a file."""
    write_atomically(path, json.dumps(metrics, indent=2, allow_nan=False) + "\n")


def mask_writer(folder: str | os.PathLike, class_names: Sequence[str]) -> Callable[[Episode], None]:
    """A function that writes an episode's mask to FOLDER/RULE/IMAGE.CLASS.png, 0 and 255; the oracle's are left out."""

    def write(episode: Episode) -> None:
        if episode.rule != ORACLE:
            name = f"{episode.image_id}.{class_names[episode.category].replace(' ', '_')}.png"
            content = png(episode.mask.astype(np.uint8) * 255)
            write_atomically(Path(folder, episode.rule, name), content)

    return write


def table(metrics: Mapping[str, Any]) -> str:
    """The results in words and percent.

    Args:
      metrics: what `Evaluator.run` returns with "step", "protocol", "resize", "min_pixels" and "fold" added; of another
        data set, with "trained_on", "dataset", "tested" and "skipped_as_seen" instead of "fold".
    """
    squash = metrics["resize"]
    seen_at = f"squashed to {squash}x{squash}" if squash else "at their own size"
    where = (
        f"fold {metrics['fold']}" if "fold" in metrics else f"{len(metrics['tested'])} classes of {metrics['dataset']}"
    )
    lines = [
        f"step {metrics['step']}, {where}, {metrics['episodes']} episodes ({metrics['protocol']}), "
        f"images {seen_at}, masks compared at the image's own size; percent",
        *(_across(metrics) if "trained_on" in metrics else []),
        "",
    ]
    rules = metrics["fusion"]
    measures = [name for name in _MEASURES if any(name in scores for scores in rules.values())]
    lines += _rows("fusion", measures, {_title(r): [s.get(m) for m in measures] for r, s in rules.items()})

    pairs = next(iter(rules.values()))["pairs"]
    per_class = {f"{name} ({n})": [scores["per_class"][name] for scores in rules.values()] for name, n in pairs.items()}
    lines += ["", *_rows("IoU by class (pairs)", [_title(rule) for rule in rules], per_class)]

    if "generalized" in metrics:
        columns = ("seen", "unseen", "harmonic")
        found = metrics["generalized"]
        lines += ["", *_rows("all classes at once", columns, {n: [s[c] for c in columns] for n, s in found.items()})]
        frequent = {name: [scores["min_pixels"][c] for c in columns] for name, scores in found.items()}
        if any(value is not None for values in frequent.values() for value in values):
            lines += ["", *_rows(f"those of {metrics['min_pixels']} pixels or more", columns, frequent)]
    seconds = ", ".join(f"{name} {1000 * value:.1f}" for name, value in metrics["seconds_per_image"].items())
    return "\n".join([*lines, "", f"milliseconds an image: {seconds}"])


def _across(metrics: Mapping[str, Any]) -> list[str]:
    """What was trained on, and that no tested class was among it."""
    trained, skipped = metrics["trained_on"], metrics["skipped_as_seen"]
    without = [f"fold {trained['fold']}"] if trained["fold"] >= 0 else []
    without += trained["exclude"]
    return [
        f"trained on {trained['dataset']}" + (f" without {', '.join(without)}" if without else ""),
        f"no tested class was seen in training; left out as seen: {', '.join(skipped) or 'none'}",
    ]


def _title(rule: str) -> str:
    return f"{ORACLE} (upper bound)" if rule == ORACLE else rule


def _rows(title: str, columns: Sequence[str], rows: Mapping[str, list[float | None]]) -> list[str]:
    first = max(len(title), *(len(name) for name in rows))
    widths = [max(len(column), 5) for column in columns]
    lines = [title.ljust(first) + "".join("  " + c.rjust(w) for c, w in zip(columns, widths, strict=True))]
    for name, values in rows.items():
        cells = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        lines.append(name.ljust(first) + "".join("  " + c.rjust(w) for c, w in zip(cells, widths, strict=True)))
    return lines
