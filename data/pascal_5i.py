"""PASCAL-5i: the VOC 2012 classes in four folds of five, from a VOC devkit folder and SBD's annotations.

A folder holds `JPEGImages/`, masks (see `Devkit.read_mask`) and the lists `splits/{trn,val}/fold{0..3}.txt`,
one `<image id>__<1-based VOC class>` a line. Without `splits/` the lists are made by the rule that reproduces
about 97% of the published ones: a class is listed when it covers at least 2048 pixels of the mask. The images
are then those of `ImageSets/Segmentation/val.txt`, and for training `train.txt` with all others that have a
mask here (SBD annotates 9k more), less the val images.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from scipy.io import loadmat
from tqdm import tqdm

from data.builder import Example, SegmentationBuilder, files_digest, prepare
from data.codecs import decode_image, decode_label
from data.folds import NUM_FOLDS, VOC_CLASSES, VOID, contiguous_folds, pairs_by_pixels
from data.parallel import ordered_map
from data.voc_archives import download_devkit
from sazs_jax.errors import UserError

CLASS_NAMES = VOC_CLASSES
FOLDS = contiguous_folds(len(CLASS_NAMES))
HSNET_DRAWS = False  # HSNet's 1000 episodes walk the list round
LISTS = "splits/{trn,val}/fold{0..3}.txt"
MIN_PIXELS = 2048  # of a class in a mask, for a made list
SBD_FOLDERS = ("benchmark_RELEASE/dataset/cls", "SBD/cls", "dataset/cls")
LIST_FOLDERS = {"train": "trn", "val": "val"}
# What Pillow and SciPy raise on a file that is broken, cut short or of another kind (NotImplementedError: MATLAB 7.3).
UNREADABLE = (OSError, SyntaxError, ValueError, TypeError, KeyError, EOFError, NotImplementedError)


def prepare_splits(root: str, cache: Path, splits: Sequence[str]) -> dict[str, Path]:
    """Prepare splits of the devkit folder `root`, or of the official archives when it is empty.

    Returns:
        split -> folder of its records, for the splits that the devkit has lists for. A devkit may lack the
        training lists: it can be scored all the same.

    Raises:
        UserError: anything wrong with the folder, a file of it, or the download.
    """
    devkit = Devkit.open(Path(root).expanduser() if root else download_devkit(cache))
    digest = devkit.digest()
    folders = {}
    for split in splits:
        if devkit.has_lists(split):
            folders[split] = cache / "pascal_5i" / digest / split
            prepare(lambda work, split=split: Pascal5i(devkit, digest, split=split, data_dir=work), folders[split])
        elif split == "val":
            raise UserError(
                f"no test lists in {devkit.root}: expected splits/val/fold0.txt to fold3.txt, or without splits/ "
                "ImageSets/Segmentation/val.txt; add them"
            )
    return folders


@dataclass(frozen=True)
class Devkit:
    """A VOC devkit folder: where its files are and how they are read."""

    root: Path
    masks: Path  # SegmentationClassAug, complete, or VOC's own SegmentationClass
    sbd: Path | None  # SBD's .mat files, for images without a VOC mask; None beside SegmentationClassAug

    @classmethod
    def open(cls, root: Path) -> "Devkit":
        """Find the parts of a devkit. Raises UserError when there is no such folder or it is no devkit."""
        if not root.is_dir():
            raise UserError(f"data.root: no folder {root}; give a VOC devkit folder (one that holds JPEGImages)")
        if not (root / "JPEGImages").is_dir():
            raise UserError(
                f"data.root: {root} is not a VOC devkit folder: no JPEGImages in it; give the folder that holds "
                "JPEGImages, such as VOCdevkit/VOC2012"
            )
        if (root / "SegmentationClassAug").is_dir():
            return cls(root, root / "SegmentationClassAug", None)
        sbd = next((root / folder for folder in SBD_FOLDERS if (root / folder).is_dir()), None)
        if not (root / "SegmentationClass").is_dir() and sbd is None:
            raise UserError(
                f"data.root: {root} holds no masks: expected SegmentationClassAug, or SegmentationClass and SBD's "
                f"{SBD_FOLDERS[0]}; add them"
            )
        return cls(root, root / "SegmentationClass", sbd)

    def digest(self) -> str:
        """`files_digest` of all files that a prepared set is made from."""
        folders = [self.root / "JPEGImages", self.masks, self.root / "ImageSets/Segmentation", self.root / "splits"]
        return files_digest(self.root, [*folders, *([self.sbd] if self.sbd else [])])

    def has_lists(self, split: str) -> bool:
        """Whether the fold lists of a split are there or can be made."""
        if (self.root / "splits").is_dir():
            return any(self._fold_file(split, fold).is_file() for fold in range(NUM_FOLDS))
        return bool(self.candidates(split))

    def read_fold_lists(self, split: str) -> dict[int, list[tuple[str, int]]] | None:
        """Fold -> (image id, 0-based class) in the order of the file, for files that are there; None without any.

        Raises:
            UserError: a line that is no `<image id>__<class>`, or holds a class of another fold.
        """
        if not (self.root / "splits").is_dir():
            return None
        lists = {}
        for fold in range(NUM_FOLDS):
            file = self._fold_file(split, fold)
            if not file.is_file():
                continue
            own = FOLDS[fold]
            lists[fold] = []
            for number, line in read_lines(file):
                match = re.fullmatch(r"(\S+)__(\d{1,2})", line)
                if match is None or int(match[2]) - 1 not in own:
                    raise UserError(
                        f"{file}, line {number} is {line!r}; expected <image id>__<class> with a class from "
                        f"{own[0] + 1} to {own[-1] + 1}, such as 2007_000063__{own[0] + 1:02d}"
                    )
                lists[fold].append((match[1], int(match[2]) - 1))
        return lists

    def candidates(self, split: str) -> list[str]:
        """Ids of the images that the 2048-pixel rule looks at, in order."""
        val = self._image_set("val")
        if split == "val":
            return val
        with_image = {file.stem for file in (self.root / "JPEGImages").glob("*.jpg")}
        # SegmentationClass is complete by train.txt and val.txt; the other two hold what SBD adds.
        extra = self.masks.glob("*.png") if self.masks.name == "SegmentationClassAug" else []
        extra = [*extra, *(self.sbd.glob("*.mat") if self.sbd else [])]
        return sorted({*self._image_set("train"), *(with_image & {file.stem for file in extra})} - set(val))

    def read_example(self, image_id: str) -> Example:
        """One image and its mask, both decoded in full and checked.

        Raises:
            UserError: a file is missing or broken, sizes differ, or the mask holds a value that is no class.
        """
        file = self.root / "JPEGImages" / f"{image_id}.jpg"
        if not file.is_file():
            raise UserError(f"{image_id} is listed, but {file} is not there; add the image or remove it from the lists")
        encoded = file.read_bytes()
        try:
            image = decode_image(encoded)
        except UNREADABLE as error:
            raise UserError(f"{file} is not a whole JPEG image ({error}); replace it") from error
        mask_file, mask = self.read_mask(image_id)
        if mask.shape != image.shape[:2]:
            (height, width), (image_height, image_width) = mask.shape, image.shape[:2]
            raise UserError(
                f"{mask_file} is {width}x{height} but its image is {image_width}x{image_height}; "
                "expected a mask of the image's size; replace it"
            )
        wrong = np.setdiff1d(mask, [*range(len(CLASS_NAMES) + 1), VOID])
        if wrong.size:
            raise UserError(
                f"{mask_file} holds the value {wrong[0]}; expected 0 (others), 1..{len(CLASS_NAMES)} (classes) or "
                "255 (void); replace it"
            )
        return Example(image_id, encoded, mask)

    def read_mask(self, image_id: str) -> tuple[Path, np.ndarray]:
        """The file and the values (H, W) of a mask: SegmentationClassAug where it is, else VOC's, else SBD's."""
        file = self.masks / f"{image_id}.png"
        mat = self.sbd / f"{image_id}.mat" if self.sbd else None
        try:
            if file.is_file():
                return file, decode_label(file.read_bytes())
            if mat is not None and mat.is_file():
                file = mat
                segmentation = loadmat(file, simplify_cells=True)["GTcls"]["Segmentation"]
                return file, np.asarray(segmentation, np.uint8)
        except UNREADABLE as error:
            raise UserError(f"{file} is not a mask of class values ({error}); replace it") from error
        also = f" or {mat}" if mat else ""
        raise UserError(f"image {image_id} has no mask: expected {file}{also}; add it or remove it from the lists")

    def _fold_file(self, split: str, fold: int) -> Path:
        return self.root / "splits" / LIST_FOLDERS[split] / f"fold{fold}.txt"

    def _image_set(self, name: str) -> list[str]:
        file = self.root / "ImageSets/Segmentation" / f"{name}.txt"
        if not file.is_file():
            return []
        lines = list(read_lines(file))
        for number, line in lines:
            if len(line.split()) != 1:
                raise UserError(f"{file}, line {number} is {line!r}; expected one image id a line")
        return list(dict.fromkeys(line for _, line in lines))


def read_lines(file: Path) -> Iterator[tuple[int, str]]:
    """Non-empty lines with their numbers from 1. Raises UserError when the file is not text."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file} is not a readable text file ({error}); replace it") from error
    return ((n, line.strip()) for n, line in enumerate(text.splitlines(), start=1) if line.strip())


class Pascal5i(SegmentationBuilder):
    """One split of a devkit. Holds the images that some fold list names."""

    VERSION = tfds.core.Version("1.0.0")
    class_names = CLASS_NAMES
    description = "PASCAL VOC 2012 photographs with SBD's masks and the fold lists of PASCAL-5i."

    def __init__(self, devkit: Devkit, digest: str, *, split: str, data_dir: str | Path):
        self._devkit = devkit
        self._digest = digest
        self._lists = devkit.read_fold_lists(split)
        if self._lists is None:
            self._image_ids = devkit.candidates(split)
        else:
            self._image_ids = list(dict.fromkeys(image_id for pairs in self._lists.values() for image_id, _ in pairs))
        super().__init__(split=split, data_dir=data_dir)

    @property
    def most_examples(self) -> int:
        """The images that are looked at."""
        return len(self._image_ids)

    def examples(self) -> Iterator[Example]:
        """Images in the order in which the lists first name them.

        Raises:
            UserError: a file is wrong, no image is left, or the folder changed while it was read.
        """
        num_examples = 0
        with tqdm(
            self._image_ids, desc=f"preparing {self._devkit.root.name}, {self.split}", unit=" images"
        ) as progress:
            for example in ordered_map(self._devkit.read_example, progress):
                largest = np.bincount(example.label.ravel(), minlength=256)[1:VOID].max()
                if self._lists is None and largest < MIN_PIXELS:
                    continue
                num_examples += 1
                yield example
        if num_examples == 0:
            raise UserError(f"the {self.split} lists of {self._devkit.root} name no image; add lines to them")
        if self._devkit.digest() != self._digest:
            raise UserError(f"{self._devkit.root} changed while it was read; run again when it is still")

    def fold_lists(self, image_ids: list[str], counts: np.ndarray) -> dict[int, list[tuple[int, int]]]:
        """The lists of `splits/`, or those of the 2048-pixel rule."""
        if self._lists is None:
            return pairs_by_pixels(counts, MIN_PIXELS, FOLDS)
        index = {image_id: i for i, image_id in enumerate(image_ids)}
        return {fold: [(index[image_id], c) for image_id, c in pairs] for fold, pairs in self._lists.items()}
