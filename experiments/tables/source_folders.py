"""Which of the folders on the command line holds which data set."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from experiments.tables.parts import Data
from sazs_jax.errors import UserError

_MARKS = {"pascal_5i": "JPEGImages", "coco_20i": "annotations"}  # a folder that only this data set's folder has
DATA_SETS: Mapping[Data, tuple[str, ...]] = {  # trained on, and for another data set scored on
    "pascal_5i": ("pascal_5i",),
    "coco_20i": ("coco_20i",),
    "coco_to_pascal": ("coco_20i", "pascal_5i"),
}
KINDS = {"pascal_5i": "VOC devkit (a folder with JPEGImages)", "coco_20i": "COCO (a folder with annotations)"}


def find_folders(roots: Sequence[str]) -> dict[str, Path]:
    """Folder by data set: each root itself, or what lies in it or in its VOCdevkit.

    Raises:
      UserError: a root is no folder or holds no data set, or a data set is there twice.
    """
    found: dict[str, Path] = {}
    for root in map(Path, roots):
        if not root.is_dir():
            raise UserError(f"--root: no folder {root}; give a {' or '.join(KINDS.values())}, or what holds them")
        here = dict(_data_sets(root))
        if not here:
            raise UserError(f"--root: {root} holds no {' and no '.join(KINDS.values())}; give a folder that does")
        for name, folder in here.items():
            if name in found:
                raise UserError(f"--root: {found[name]} and {folder} are both {name}; give one of them")
            found[name] = folder.absolute()
    return found


def _data_sets(root: Path) -> Iterable[tuple[str, Path]]:
    for name, mark in _MARKS.items():
        nearest: list[Path] = []
        for pattern in (mark, f"*/{mark}", f"VOCdevkit/*/{mark}"):
            nearest = nearest or sorted(path.parent for path in root.glob(pattern) if path.is_dir())
        if len(nearest) > 1:
            listed = ", ".join(map(str, nearest))
            raise UserError(f"--root: {root} holds more than one {name}: {listed}; give the one that is meant")
        if nearest:
            yield name, nearest[0]
