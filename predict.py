"""Masks for any words.

python predict.py --workdir runs/fold1 --labels "cat,sofa" --out masks IMAGE...

For each image: NAME.mask.png (indexed: 0 background, then the labels), NAME.overlay.png and NAME.json (areas, scores);
with --eigensegments also NAME.eigensegments.png.
"""

import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sazs_jax.atomic import write_atomically
from sazs_jax.cache import keep_programs
from sazs_jax.errors import UserError, run_command
from sazs_jax.images import distinct_names, read_image
from sazs_jax.segmenter import Segmenter
from sazs_jax.spectral.fusion import RULES
from sazs_jax.visualization import eigensegment_sheet, indexed_png, overlay_with_legend, png

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, as given to train.py", required=True)
_LABELS = flags.DEFINE_list("labels", None, "Words to look for, separated by commas", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
_TEXT = flags.DEFINE_string("text", None, "Anchor table (.npz) or CLIP text tower, for words not trained with")
_BACKGROUND = flags.DEFINE_string("background", "others", "others, none, or a threshold on the cosine")
_FUSION = flags.DEFINE_enum("fusion", None, RULES, "How prediction and eigensegments combine; by default the run's own")
_FEATURES = flags.DEFINE_string("features", None, "What eigensegments are made of; by default the run's own")
_CALIBRATED = flags.DEFINE_bool("calibrated", True, "Help words not trained with by the run's constant, if any")
_EIGENSEGMENTS = flags.DEFINE_bool("eigensegments", False, "Show the image's eigensegments too")

_KINDS = (".mask.png", ".json", ".overlay.png")


def main(arguments: Sequence[str]) -> None:
    """Write three files an image; a broken image is reported at the end and costs no other its files."""
    images, labels, background = [Path(name) for name in arguments], _LABELS.value, _background(_BACKGROUND.value)
    if not images:
        raise UserError("no images; name at least one after the flags")
    if len(labels) > 255:
        raise UserError(f"{len(labels)} labels; an indexed PNG holds 255: ask in several runs")
    kinds = (*_KINDS, ".eigensegments.png") if _EIGENSEGMENTS.value else _KINDS
    outputs = [[Path(_OUT.value, name + kind) for kind in kinds] for name in distinct_names(images)]
    if overwritten := {path.resolve() for paths in outputs for path in paths} & {image.resolve() for image in images}:
        raise UserError(f"{min(overwritten)} is an input and would be overwritten; choose another --out")
    keep_programs()
    settings = {"fusion": _FUSION.value, "features": _FEATURES.value, "calibrated": _CALIBRATED.value}
    segmenter = Segmenter.from_workdir(_WORKDIR.value, text=_TEXT.value, **settings)
    problems = []
    for image, paths in zip(images, outputs, strict=True):
        try:
            pixels = read_image(image)
        except UserError as error:
            problems.append(str(error))
            continue
        (embedding,) = segmenter.embed([pixels])
        result = segmenter.segment(embedding, labels, background)
        contents = [
            indexed_png(result.label_map),
            json.dumps({"image": str(image), **result.summary()}, indent=2) + "\n",
            png(overlay_with_legend(pixels, result.label_map, labels)),
            *([png(eigensegment_sheet(pixels, segmenter.eigensegments(embedding)))] if _EIGENSEGMENTS.value else []),
        ]
        for path, content in zip(paths, contents, strict=True):
            write_atomically(path, content)
        print(paths[_KINDS.index(".overlay.png")])
    if problems:
        raise UserError("; ".join(problems))


def _background(text: str) -> str | float | None:
    try:
        return {"others": "others", "none": None}[text] if text in ("others", "none") else float(text)
    except ValueError:
        raise UserError(f"--background is {text!r}; expected others, none or a number between -1 and 1") from None


if __name__ == "__main__":
    run_command(main)
