"""A prepared data set, the same whatever builder made it: images, fold lists, and the three sets."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from ml_collections import ConfigDict

from data import coco_20i, pascal_5i, shapes
from data.folds import NO_FOLD, Folds, is_selection, seen_classes, training_lookup, unseen_classes
from sazs_jax.cache import cache_folder
from sazs_jax.errors import UserError


@dataclass(frozen=True)
class Records:
    """Random access to a prepared split: `records[i]` is {"image": bytes, "label": bytes, "image_id": str}.

    Pickles as its path alone, so that worker processes open the files themselves.
    """

    folder: Path
    split: str

    @functools.cached_property
    def _source(self) -> Any:
        # Decoding is ours (data.codecs): TFDS would take OpenCV as soon as it is installed.
        skip = {"image": tfds.decode.SkipDecoding(), "label": tfds.decode.SkipDecoding()}
        builder: Any = tfds.builder_from_directory(self.folder)
        return builder.as_data_source(self.split, decoders=skip)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)  # ends a loop over the records
        record = self._source[index]
        return {**record, "image_id": record["image_id"].decode()}

    def __reduce__(self):
        return Records, (self.folder, self.split)


@dataclass(frozen=True)
class Split:
    """Images of one list file set, with what is known of each.

    `source[i]` is {"image": encoded bytes, "label": PNG bytes, "image_id": str}; label maps hold 0 others,
    c + 1 for class c, 255 void.
    """

    source: Sequence[dict[str, Any]] | Records
    image_ids: tuple[str, ...]
    present: tuple[tuple[int, ...], ...]  # 0-based classes with at least one pixel in its mask
    pair_list: dict[int, list[tuple[int, int]]]  # fold -> (image index, 0-based class) in the order of its list


_MODULES = {"pascal_5i": pascal_5i, "coco_20i": coco_20i, "shapes": shapes}
EMPTY_SPLIT = Split((), (), (), {})


@dataclass(frozen=True)
class SegmentationData:
    """A data set with its fold lists. *train* and *selection* come of `train`, *test* of `val`."""

    class_names: tuple[str, ...]
    folds: Folds
    train: Split
    val: Split
    lists: str  # where its list files are, for messages
    hsnet_draws: bool  # see `episodes.count_pairs`

    def unseen(self, fold: int) -> tuple[int, ...]:
        """0-based classes that fold `fold` tests, none for `NO_FOLD`. Raises UserError when it is out of range."""
        return unseen_classes(self.folds, fold)

    def withheld(self, fold: int, exclude: Sequence[str] = ()) -> tuple[int, ...]:
        """0-based classes that training is shown nothing of: those of the fold, and those that `exclude` names.

        Raises:
            UserError: the fold is out of range, or the data set has no such class.
        """
        if unknown := [name for name in exclude if name not in self.class_names]:
            raise UserError(
                f"data.exclude names {', '.join(unknown)}; expected classes of {', '.join(self.class_names)}"
            )
        return tuple(sorted({*self.unseen(fold), *(self.class_names.index(name) for name in exclude)}))

    def seen(self, fold: int, exclude: Sequence[str] = ()) -> tuple[int, ...]:
        """0-based classes that training learns: all but the withheld ones, ascending."""
        return seen_classes(len(self.class_names), self.withheld(fold, exclude))

    def training_lookup(self, fold: int, unseen_pixels: str, exclude: Sequence[str] = ()) -> UInt8[np.ndarray, "256"]:
        """See `folds.training_lookup`; its unseen classes are the withheld ones."""
        return training_lookup(len(self.class_names), self.withheld(fold, exclude), unseen_pixels)

    def train_indices(self, fold: int, unseen_pixels: str, exclude: Sequence[str] = ()) -> list[int]:
        """Unique images of `train` listed with a class that is seen, less the selection tenth.

        'drop' also leaves out images that hold a pixel of a withheld class.

        Raises:
            UserError: a training list is missing, or no image is left.
        """
        listed = sorted({i for i, _ in self._pairs(fold, self.seen(fold, exclude))})
        indices = [i for i in listed if not is_selection(self.train.image_ids[i])]
        if unseen_pixels == "drop":
            withheld = set(self.withheld(fold, exclude))
            indices = [i for i in indices if withheld.isdisjoint(self.train.present[i])]
        if not indices:
            raise UserError(f"no image to train on for fold {fold}: its training lists name none; give fuller lists")
        return indices

    def selection_pairs(self, fold: int, classes: Sequence[int]) -> list[tuple[int, int]]:
        """(Image index in `train`, 0-based class) of the selection images and some classes outside the fold.

        Those of the seen classes choose checkpoints; those of excluded ones choose settings for unseen words.
        """
        return [(i, c) for i, c in self._pairs(fold, classes) if is_selection(self.train.image_ids[i])]

    def test_pairs(self, fold: int) -> list[tuple[int, int]]:
        """(Image index in `val`, 0-based class) of the fold's own list, in its order.

        Raises:
            UserError: the fold is out of range, or its list is missing or empty, or no fold is unseen.
        """
        self.unseen(fold)
        if fold == NO_FOLD:
            raise UserError(
                "no fold is unseen (data.fold is -1), so there is nothing to score; score another data set by --dataset"
            )
        if not self.val.pair_list.get(fold):
            raise UserError(f"nothing to score for fold {fold}: its list is missing or empty; fill {self.lists}")
        return list(self.val.pair_list[fold])

    def _pairs(self, fold: int, classes: Sequence[int]) -> list[tuple[int, int]]:
        """The training lists' pairs of some classes, all outside the fold."""
        wanted = set(classes) - set(self.unseen(fold))
        missing = [f for f in range(len(self.folds)) if f != fold and f not in self.train.pair_list]
        if missing:
            raise UserError(
                f"training with fold {fold} unseen needs the training lists of the other folds; those of folds "
                f"{', '.join(map(str, missing))} are missing: add {self.lists}"
            )
        return [(i, c) for pairs in self.train.pair_list.values() for i, c in pairs if c in wanted]


def load(config: ConfigDict, splits: Sequence[str] = ("train", "val")) -> SegmentationData:
    """Prepare, where that has not been done, and open the data set that `config.data` names.

    Args:
        config: `config.data`; reads `dataset`, `root` and `cache`.
        splits: those to prepare and check; the others are empty. Scoring needs ("val",) alone; for the classes and
            their folds no source folder is looked at with ().

    Raises:
        UserError: an unknown data set, or anything wrong with the source folder, named in the message.
    """
    if config.dataset not in _MODULES:
        raise UserError(f"data.dataset is {config.dataset!r}; expected one of {', '.join(_MODULES)}")
    module = _MODULES[config.dataset]
    folders = module.prepare_splits(config.root, cache_folder(config.cache), splits) if splits else {}
    opened = {split: open_split(folder, split) for split, folder in folders.items()}
    return SegmentationData(
        module.CLASS_NAMES,
        module.FOLDS,
        opened.get("train", EMPTY_SPLIT),
        opened.get("val", EMPTY_SPLIT),
        module.LISTS,
        module.HSNET_DRAWS,
    )


def open_split(folder: Path, split: str) -> Split:
    """Open records that `builder.prepare` wrote to `folder`."""
    metadata = tfds.builder_from_directory(folder).info.metadata or {}
    return Split(
        source=Records(folder, split),
        image_ids=tuple(metadata["image_ids"]),
        present=tuple(tuple(classes) for classes in metadata["present"]),
        pair_list={int(fold): [(i, c) for i, c in pairs] for fold, pairs in metadata["pair_list"].items()},
    )
