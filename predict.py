"""Masks for any words.

python predict.py --workdir runs/fold1 --labels "cat,sofa" --out masks IMAGE...

For each image: NAME.mask.png (indexed: 0 background, then the labels), NAME.overlay.png and NAME.json (areas, scores).
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from PIL import Image

from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError, run_command
from sazs_jax.segmenter import Segmenter, read_image
from sazs_jax.visualization import indexed_png, overlay_with_legend, png

_WORKDIR = flags.DEFINE_string("workdir", None, "The run, as given to train.py", required=True)
_LABELS = flags.DEFINE_list("labels", None, "Words to look for, separated by commas", required=True)
_OUT = flags.DEFINE_string("out", None, "Folder to write to", required=True)
_TEXT = flags.DEFINE_string("text", None, "Anchor table (.npz) or CLIP text tower, for words not trained with")
_BACKGROUND = flags.DEFINE_string("background", "others", "others, none, or a threshold on the cosine")

_KINDS = (".mask.png", ".json", ".overlay.png")


def main(arguments: Sequence[str]) -> None:
    """Write three files an image; a broken image is reported at the end and costs no other its files."""
    images, labels, background = [Path(name) for name in arguments], _LABELS.value, _background(_BACKGROUND.value)
    if not images:
        raise UserError("no images; name at least one after the flags")
    if len(labels) > 255:
        raise UserError(f"{len(labels)} labels; an indexed PNG holds 255: ask in several runs")
    outputs = [[Path(_OUT.value, name + kind) for kind in _KINDS] for name in _output_names(images)]
    if overwritten := {path.resolve() for paths in outputs for path in paths} & {image.resolve() for image in images}:
        raise UserError(f"{min(overwritten)} is an input and would be overwritten; choose another --out")
    segmenter = Segmenter.from_workdir(_WORKDIR.value, text=_TEXT.value)
    problems = []
    for image, paths in zip(images, outputs, strict=True):
        try:
            pixels = read_image(image)
        except UserError as error:
            problems.append(str(error))
            continue
        result = segmenter.segment(pixels, labels, background)
        contents = (
            indexed_png(result.label_map),
            json.dumps({"image": str(image), **result.summary()}, indent=2) + "\n",
            png(Image.fromarray(overlay_with_legend(pixels, result.label_map, labels))),
        )
        for path, content in zip(paths, contents, strict=True):
            write_atomically(path, content)
        print(paths[-1])
    if problems:
        raise UserError("; ".join(problems))


def _background(text: str) -> str | float | None:
    try:
        return {"others": "others", "none": None}[text] if text in ("others", "none") else float(text)
    except ValueError:
        raise UserError(f"--background is {text!r}; expected others, none or a number between -1 and 1") from None


def _output_names(images: Sequence[Path]) -> list[str]:
    """The images' stems, numbered where two would fall together (on a disk that ignores case too)."""
    names: dict[str, str] = {}
    for stem in (image.stem for image in images):
        numbered = itertools.chain([stem], (f"{stem}_{n}" for n in itertools.count(2)))
        name = next(name for name in numbered if name.lower() not in names)
        names[name.lower()] = name
    return list(names.values())


if __name__ == "__main__":
    run_command(main)
