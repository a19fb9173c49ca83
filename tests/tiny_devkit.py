"""A small VOC devkit folder to build, and to spoil."""

from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from data.folds import VOC_CLASSES, is_selection

PALETTE = np.random.default_rng(0).integers(0, 256, 768).tolist()


class Devkit:
    """A devkit folder under construction: `add` an image, `write_list` its pairs."""

    def __init__(self, root: Path):
        self.root = root
        (root / "JPEGImages").mkdir(parents=True)

    def jpeg(self, image_id: str) -> Path:
        return self.root / "JPEGImages" / f"{image_id}.jpg"

    def mask(self, image_id: str, folder: str = "SegmentationClassAug") -> Path:
        return self.root / folder / f"{image_id}.png"

    def add_jpeg(self, image_id: str, size: tuple[int, int] = (48, 40)) -> None:
        rng = np.random.default_rng(sum(map(ord, image_id)))
        pixels = rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.jpeg(image_id), quality=80)

    def add_mask(self, image_id: str, values: np.ndarray, folder: str = "SegmentationClassAug") -> None:
        """A palette PNG, as VOC's masks are."""
        self.mask(image_id, folder).parent.mkdir(exist_ok=True)
        picture = Image.fromarray(values.astype(np.uint8))
        picture.putpalette(PALETTE)
        picture.save(self.mask(image_id, folder))

    def add(self, image_id: str, *classes: int, size: tuple[int, int] = (48, 40)) -> None:
        """An image and its mask: a band of each (1-based) class, the upper left corner void."""
        self.add_jpeg(image_id, size)
        self.add_mask(image_id, bands(*classes, size=size))

    def write_list(self, split: str, fold: int, *lines: str) -> None:
        file = self.root / "splits" / split / f"fold{fold}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{line}\n" for line in lines))

    def write_image_set(self, name: str, *image_ids: str) -> None:
        file = self.root / "ImageSets/Segmentation" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(f"{image_id}\n" for image_id in image_ids))

    def add_sbd(self, image_id: str, values: np.ndarray) -> None:
        file = self.root / "benchmark_RELEASE/dataset/cls" / f"{image_id}.mat"
        file.parent.mkdir(parents=True, exist_ok=True)
        savemat(file, {"GTcls": {"Segmentation": values.astype(np.uint8), "CategoriesPresent": np.unique(values)}})


def files_in(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def bands(*classes: int, size: tuple[int, int] = (48, 40)) -> np.ndarray:
    """Label map (H, W) of `size` (W, H) with a 10-row band of each class, its first 2x2 pixels void."""
    values = np.zeros(size[::-1], np.uint8)
    for i, c in enumerate(classes):
        values[10 * i : 10 * i + 10] = c
    values[:2, :2] = 255
    return values


def disc(rng: np.random.Generator, category: int, outline: int = 0) -> np.ndarray:
    """Label map (64, 64): a disc somewhere near the middle, with `outline` pixels of void around it."""
    y, x = np.mgrid[:64, :64] - rng.uniform(24, 40, (2, 1, 1))
    radius = np.hypot(y, x) - rng.uniform(10, 20)
    return np.where(radius < 0, category, np.where(radius < outline, 255, 0))


def image_ids(in_selection: int, in_training: int) -> list[str]:
    """Names of images, first those that fall into selection."""
    names = [f"photo{i}" for i in range(60)]
    selected = [name for name in names if is_selection(name)]
    return selected[:in_selection] + [name for name in names if name not in selected][:in_training]


def write_words(file: Path) -> None:
    """A table of random text embeddings (64 entries) of "others" and VOC's classes."""
    words = ("others", *VOC_CLASSES)
    embeddings = np.random.default_rng(0).normal(size=(len(words), 64)).astype(np.float32)
    np.savez(file, names=words, embeddings=embeddings)
