"""COCO-20i: COCO's 80 classes in four folds of twenty, from its images and `annotations/instances_*.json`.

A folder holds `train2014/` and `val2014/`, or `train2017/` and `val2017/` (or all of them), and in `annotations/` the
files `instances_{folder}.json`. The official lists `splits/{trn,val}_fold{0..3}.npz` (HSNet's) are used where they
are: `image_id` and 0-based `class_id` of the pairs of the fold's own classes (val), or of all other classes (trn). They
are of 2014; 2017 divides the same images otherwise, so an image is looked up by its id in every folder, under the
names of either year.

Without `splits/` the lists are made by the rule that reproduces them closely (docs/protocol.md): a class is listed
when it covers at least 2048 pixels of the class map. The images are then those of `instances_val*.json` and, for
training, `instances_train*.json` of one year: 2014 where its val annotations are there, else 2017.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Integer
from tqdm import tqdm

from data.builder import Example, SegmentationBuilder, files_digest, prepare
from data.coco_annotations import AnnotatedImage, read_annotations
from data.coco_archives import download_coco
from data.coco_categories import CATEGORIES
from data.codecs import decode_image
from data.folds import interleaved_folds, pairs_by_pixels
from data.parallel import ordered_map
from sazs_jax.errors import UserError

CLASS_NAMES = tuple(CATEGORIES.values())
FOLDS = interleaved_folds(len(CLASS_NAMES))
HSNET_DRAWS = True  # HSNet's 1000 episodes are drawn: a class, then an image
LISTS = "splits/{trn,val}_fold{0..3}.npz, or annotations/instances_{train,val}{2014,2017}.json"
MIN_PIXELS = 2048  # of a class in a class map, for a made list
YEARS = ("2014", "2017")
LIST_PREFIXES = {"train": "trn", "val": "val"}

Pairs = list[tuple[int, int]]  # (COCO's image id, 0-based class)


def prepare_splits(root: str, cache: Path, splits: Sequence[str]) -> dict[str, Path]:
    """Prepare splits of the folder `root`, or of the official archives of 2014 when it is empty.

    Returns:
        split -> folder of its records, for the splits that there are lists or annotations for. A folder may lack those
        of training: it can be scored all the same.

    Raises:
        UserError: anything wrong with the folder, a file of it, or the download.
    """
    folder = CocoFolder.open(Path(root).expanduser() if root else download_coco(cache))
    digest = folder.digest()
    prepared = {}
    for split in splits:
        if folder.has_lists(split):
            prepared[split] = cache / "coco_20i" / digest / split
            prepare(lambda work, split=split: Coco20i(folder, digest, split=split, data_dir=work), prepared[split])
        elif split == "val":
            raise UserError(
                f"no test images in {folder.root}: expected splits/val_fold0.npz to val_fold3.npz, or without splits/ "
                "annotations/instances_val2014.json or instances_val2017.json; add them"
            )
    return prepared


@dataclass(frozen=True)
class CocoFolder:
    """A folder of COCO: where its files are and how they are read. Each annotation file is read once."""

    root: Path
    _read: dict[str, dict[int, AnnotatedImage]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def open(cls, root: Path) -> "CocoFolder":
        """Check that this is COCO's layout. Raises UserError when there is no such folder or it is another."""
        if not root.is_dir():
            raise UserError(f"data.root: no folder {root}; give COCO's (one that holds annotations/ and val2014/)")
        folder = cls(root)
        if not folder._parts("val"):
            raise UserError(
                f"data.root: {root} is not a COCO folder: no instances_*.json in its annotations/; expected "
                "annotations/instances_val2014.json or the like beside val2014/"
            )
        return folder

    def digest(self) -> str:
        """`files_digest` of all files that a prepared set is made from."""
        parts = [f"{split}{year}" for split in ("train", "val") for year in YEARS]
        return files_digest(self.root, [self.root / name for name in ("annotations", "splits", *parts)])

    def has_lists(self, split: str) -> bool:
        """Whether the fold lists of a split are there or can be made."""
        if (self.root / "splits").is_dir():
            return any(self._fold_file(split, fold).is_file() for fold in range(len(FOLDS)))
        return self._own_part(split) is not None

    def read_fold_lists(self, split: str) -> dict[int, Pairs] | None:
        """Fold -> (image id, 0-based class) of the fold's own classes in the order of the file; None without any.

        `trn_fold{f}.npz` holds the pairs of the other folds, so any two such files hold all.

        Raises:
            UserError: a file that is no such list, holds a class of a wrong fold, or tells otherwise than another.
        """
        if not (self.root / "splits").is_dir():
            return None
        lists: dict[int, Pairs] = {}
        source: dict[int, Path] = {}
        for target in range(len(FOLDS)):
            file = self._fold_file(split, target)
            if not file.is_file():
                continue
            image_ids, classes = _read_list(file)
            expected = [f for f in range(len(FOLDS)) if (f == target) == (split == "val")]
            if wrong := sorted({*classes.tolist()} - {c for fold in expected for c in FOLDS[fold]}):
                raise UserError(
                    f"{file} lists class {wrong[0]}; expected 0-based classes of fold "
                    f"{' and '.join(map(str, expected))}, as in HSNet's lists; replace it"
                )
            for fold in expected:
                own = np.isin(classes, FOLDS[fold])
                pairs = list(zip(image_ids[own].tolist(), classes[own].tolist(), strict=True))
                if lists.setdefault(fold, pairs) != pairs:
                    raise UserError(f"{file} and {source[fold]} list different pairs of fold {fold}; replace one")
                source.setdefault(fold, file)
        return lists

    def candidates(self, split: str) -> list[int]:
        """Ids of the images that the 2048-pixel rule looks at, ascending."""
        part = self._own_part(split)
        return sorted(self._annotations(part)) if part else []

    def annotated(self, split: str, image_ids: Sequence[int]) -> dict[int, AnnotatedImage]:
        """What is known of some images, by id, from as few annotation files as hold them all.

        Raises:
            UserError: no file tells of one of them.
        """
        found: dict[int, AnnotatedImage] = {}
        missing = image_ids
        for part in self._parts(split):
            if missing:
                known = self._annotations(part)
                found.update((i, known[i]) for i in missing if i in known)
                missing = [i for i in missing if i not in found]
        if missing:
            raise UserError(
                f"{len(missing)} listed images, {missing[0]} among them, are in none of "
                f"{', '.join(f'instances_{part}.json' for part in self._parts(split))} of {self.root / 'annotations'}; "
                "add the file that has them, or remove splits/ for lists made of what is there"
            )
        return found

    def read_example(self, image_id: int, annotated: AnnotatedImage) -> Example:
        """One image, decoded in full and checked, and its class map.

        Raises:
            UserError: the image is missing, broken or of another size than its annotations, or these are broken.
        """
        file = self._image_file(image_id)
        encoded = file.read_bytes()
        try:
            height, width = decode_image(encoded).shape[:2]
        except (OSError, SyntaxError, ValueError) as error:
            raise UserError(f"{file} is not a whole JPEG image ({error}); replace it") from error
        if (height, width) != annotated.size:
            raise UserError(
                f"{file} is {width}x{height}, but {annotated.file.name} says {annotated.size[1]}x{annotated.size[0]}; "
                "expected the official image; replace it"
            )
        return Example(f"{image_id:012d}", encoded, annotated.class_map())

    def _image_file(self, image_id: int) -> Path:
        for part in [f"{split}{year}" for year in YEARS for split in ("val", "train")]:
            for name in (f"COCO_{part}_{image_id:012d}.jpg", f"{image_id:012d}.jpg"):
                if (file := self.root / part / name).is_file():
                    return file
        raise UserError(
            f"image {image_id} is not there: expected {self.root}/val2014/COCO_val2014_{image_id:012d}.jpg, or so in "
            f"train2014/, or {image_id:012d}.jpg in train2017/ or val2017/; add it"
        )

    def _parts(self, split: str) -> list[str]:
        """The folders that there are annotations of, those of the split first."""
        other = {"train": "val", "val": "train"}[split]
        parts = [f"{name}{year}" for name in (split, other) for year in YEARS]
        return [part for part in parts if self._annotation_file(part).is_file()]

    def _own_part(self, split: str) -> str | None:
        """The folder whose images make up a split without lists; both splits of one year, for 2014 overlaps 2017."""
        years = [year for year in YEARS if self._annotation_file(f"val{year}").is_file()]
        year = years[0] if years else YEARS[-1]
        return f"{split}{year}" if self._annotation_file(f"{split}{year}").is_file() else None

    def _annotations(self, part: str) -> dict[int, AnnotatedImage]:
        if part not in self._read:
            self._read[part] = read_annotations(self._annotation_file(part))
        return self._read[part]

    def _annotation_file(self, part: str) -> Path:
        return self.root / "annotations" / f"instances_{part}.json"

    def _fold_file(self, split: str, fold: int) -> Path:
        return self.root / "splits" / f"{LIST_PREFIXES[split]}_fold{fold}.npz"


def _read_list(file: Path) -> tuple[Integer[np.ndarray, "pairs"], Integer[np.ndarray, "pairs"]]:
    """Image ids and 0-based classes of an official list."""
    try:
        with np.load(file, allow_pickle=False) as arrays:
            image_ids, classes = arrays["image_id"], arrays["class_id"]
    except (OSError, ValueError, KeyError, EOFError, TypeError, BadZipFile) as error:
        raise UserError(f"{file} is not a list of `image_id` and `class_id` ({error}); replace it") from error
    are_integers = all(np.issubdtype(array.dtype, np.integer) for array in (image_ids, classes))
    if image_ids.ndim != 1 or image_ids.shape != classes.shape or not are_integers:
        raise UserError(
            f"{file} holds image_id {image_ids.dtype}{list(image_ids.shape)} and class_id {classes.dtype}"
            f"{list(classes.shape)}; expected integers of one length; replace it"
        )
    return image_ids.astype(np.int64), classes.astype(np.int64)


class Coco20i(SegmentationBuilder):
    """One split of a COCO folder. Holds the images that some fold list names."""

    VERSION = tfds.core.Version("1.0.0")
    class_names = CLASS_NAMES
    description = "COCO photographs, their instances as class maps, and the fold lists of COCO-20i."

    def __init__(self, folder: CocoFolder, digest: str, *, split: str, data_dir: str | Path):
        self._folder = folder
        self._digest = digest
        self._lists = folder.read_fold_lists(split)
        if self._lists is None:
            self._ids = folder.candidates(split)
        else:
            self._ids = list(dict.fromkeys(image_id for pairs in self._lists.values() for image_id, _ in pairs))
        super().__init__(split=split, data_dir=data_dir)

    @property
    def most_examples(self) -> int:
        """The images that are looked at."""
        return len(self._ids)

    def examples(self) -> Iterator[Example]:
        """Images in the order in which the lists first name them.

        Raises:
            UserError: a file is wrong, no image is left, or the folder changed while it was read.
        """
        annotated = self._folder.annotated(self.split, self._ids)
        num_examples = 0
        with tqdm(self._ids, desc=f"preparing {self._folder.root.name}, {self.split}", unit=" images") as progress:
            for example in ordered_map(lambda i: self._folder.read_example(i, annotated[i]), progress):
                pixels = np.bincount(example.label.ravel(), minlength=256)[1 : len(CLASS_NAMES) + 1]
                if self._lists is None and pixels.max() < MIN_PIXELS:
                    continue
                num_examples += 1
                yield example
        if num_examples == 0:
            raise UserError(f"the {self.split} lists of {self._folder.root} name no image; add pairs to them")
        if self._folder.digest() != self._digest:
            raise UserError(f"{self._folder.root} changed while it was read; run again when it is still")

    def fold_lists(self, image_ids: list[str], counts: np.ndarray) -> dict[int, list[tuple[int, int]]]:
        """The lists of `splits/`, or those of the 2048-pixel rule."""
        if self._lists is None:
            return pairs_by_pixels(counts, MIN_PIXELS, FOLDS)
        index = {image_id: i for i, image_id in enumerate(self._ids)}
        return {fold: [(index[image_id], c) for image_id, c in pairs] for fold, pairs in self._lists.items()}
