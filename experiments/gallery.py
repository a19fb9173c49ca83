"""The best, the median and the worst test episodes of a run as one HTML page that needs no other file.

python -m experiments gallery --workdir W --out DIR [--rows N] [--config.eval.KEY=VALUE ...]

Every test pair of the run's fold is scored and ranked by its IoU under the rule that the run predicts with. Writes
DIR/index.html (pictures inside) and DIR/episodes.csv, every episode's IoU under every rule.
"""

import base64
import html
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from configs import overrides
from experiments.chosen import best_median_worst
from experiments.csv_text import csv_text
from experiments.runs import Picture, Run, episode_iou, open_run, rule_title
from sazs_jax.atomic import check_folder, write_atomically
from sazs_jax.errors import UserError
from sazs_jax.evaluation.evaluator import Episode
from sazs_jax.visualization import overlay

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, as given to train.py", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
_ROWS = flags.DEFINE_integer("rows", 6, "Episodes of each kind: best, median and worst", lower_bound=1)
overrides.define(("eval", "spectral"))

_QUALITY = 85  # of the JPEG pictures in the page
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 84rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.5rem; } h2 { margin: 2rem 0 .5rem; font-size: 1.2rem; border-bottom: 1px solid #ccc; }
.episode { margin: 1rem 0; } .episode h3 { margin: 0 0 .3rem; font-size: 1rem; }
.episode h3 small { color: #666; font-weight: normal; }
.pictures { display: grid; grid-template-columns: repeat(var(--columns), minmax(0, 1fr)); gap: .6rem; }
figure { margin: 0; } img { width: 100%; display: block; } figcaption { font-size: .85rem; color: #444; }
"""


def main(arguments: Sequence[str]) -> None:
    """Score, rank, draw, write."""
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}; write --flag=value")
    check_folder(_OUT.value)
    run = open_run(_WORKDIR.value)
    rule = run.rule or "none"
    scores: dict[tuple[str, int], dict[str, float | None]] = {}

    def record(episode: Episode) -> None:
        scores.setdefault((episode.image_id, episode.category), {})[episode.rule] = episode_iou(episode)

    result = run.score(run.test_images(), run.dataset.unseen(run.config.data.fold), record=record)
    ious = {pair: iou for pair, of_pair in scores.items() if (iou := of_pair[rule]) is not None}
    ranked = sorted(ious, key=lambda pair: -ious[pair])
    if not ranked:
        raise UserError(f"no episode of {run.name} has a pixel to score; give other data")

    names = run.dataset.class_names
    rows = [
        {"image": image_id, "class": names[category], **scores[image_id, category]} for image_id, category in ranked
    ]
    write_atomically(Path(_OUT.value) / "episodes.csv", csv_text(rows))
    number = {image_id: i for i, image_id in enumerate(run.dataset.val.image_ids)}
    parts = {
        title: run.pictures(run.dataset.val, [(number[image_id], category) for image_id, category in chosen])
        for title, chosen in best_median_worst(ranked, _ROWS.value).items()
    }
    text = page(run, result["fusion"], parts, len(ranked))
    write_atomically(Path(_OUT.value) / "index.html", text)
    print(Path(_OUT.value) / "index.html")


def page(run: Run, scores: dict, parts: dict[str, list[Picture]], episodes: int) -> str:
    """The HTML page; pictures are data URIs."""
    config, names = run.config, run.dataset.class_names
    rules = ["none", *([run.rule] if run.rule else [])]
    size = f"squashed to {config.eval.resize}x{config.eval.resize}" if config.eval.resize else "at their own size"
    means = ", ".join(f"{rule_title(rule)} {_percent(scores[rule]['miou'])}" for rule in scores)
    unseen = ", ".join(f"{name} ({n})" for name, n in scores["none"]["pairs"].items())
    lines = [
        "<!doctype html>",
        f'<html lang="en"><head><meta charset="utf-8"><title>{html.escape(run.name)}: episodes</title>',
        '<meta name="viewport" content="width=device-width">',
        f"<style>{_STYLE}:root {{ --columns: {2 + len(rules)}; }}</style></head><body>",
        f"<h1>{html.escape(run.name)}: best, median and worst test episodes</h1>",
        f"<p>{html.escape(config.model.encoder)}, {'with' if run.has_shape else 'without'} shape constraint, fold "
        f"{config.data.fold}. Each episode is one image and one class known to be there, unseen in training (*): "
        f"{html.escape(unseen)}. {episodes} episodes, images {size}, ranked by IoU under the rule {rules[-1]}.</p>",
        f"<p>mIoU of all of these classes: {html.escape(means)}.</p>",
        "<p>Red: the class asked for. Beige: void, not scored.</p>",
    ]
    for title, pictures in parts.items():
        lines.append(f"<h2>{title}</h2>")
        for picture in pictures:
            name = html.escape(names[picture.category])
            lines.append(f'<section class="episode"><h3>{name}* <small>{html.escape(picture.image_id)}</small></h3>')
            lines.append('<div class="pictures">')
            lines.append(_figure(picture.image, "image"))
            for rule in rules:
                caption = f"{'network alone' if rule == 'none' else rule}: IoU {_percent(picture.iou[rule])}"
                lines.append(_figure(overlay(picture.image, picture.masks[rule].astype(np.uint8)), caption))
            lines.append(_figure(overlay(picture.image, picture.truth), "ground truth"))
            lines.append("</div></section>")
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _figure(picture: np.ndarray, caption: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="JPEG", quality=_QUALITY)
    source = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
    height, width = picture.shape[:2]
    caption = html.escape(caption)
    return (
        f'<figure><img src="{source}" width="{width}" height="{height}" style="height: auto" alt="{caption}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
