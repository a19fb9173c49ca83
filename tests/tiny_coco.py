"""A small COCO folder to build, and to spoil."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data.coco_categories import CATEGORIES

SIZE = (64, 48)  # width, height: 3072 pixels


def box(x0: float, y0: float, x1: float, y1: float) -> list[list[float]]:
    """A segmentation of one polygon."""
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


class Coco:
    """A folder of one year's layout under construction: `add` images, `write` their annotations."""

    def __init__(self, root: Path, year: str = "2014"):
        self.root = root
        self.year = year
        self.files: dict[str, dict[str, Any]] = {}

    def jpeg(self, split: str, image_id: int) -> Path:
        part = f"{split}{self.year}"
        prefix = f"COCO_{part}_" if self.year == "2014" else ""
        return self.root / part / f"{prefix}{image_id:012d}.jpg"

    def json(self, split: str) -> Path:
        return self.root / "annotations" / f"instances_{split}{self.year}.json"

    def add(self, split: str, image_id: int, *instances: tuple[int, Any], size: tuple[int, int] = SIZE) -> None:
        """An image with (category id, segmentation) objects; a run-length code is a crowd."""
        file = self.jpeg(split, image_id)
        file.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(image_id).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(file, quality=80)
        content = self.files.setdefault(split, empty_annotations())
        content["images"].append({"id": image_id, "width": size[0], "height": size[1], "file_name": file.name})
        for category, segmentation in instances:
            content["annotations"].append(
                {
                    "id": 1000 * image_id + len(content["annotations"]),
                    "image_id": image_id,
                    "category_id": category,
                    "iscrowd": int(isinstance(segmentation, dict)),
                    "segmentation": segmentation,
                    "area": 1.0,
                    "bbox": [0, 0, 1, 1],
                }
            )

    def write(self) -> "Coco":
        for split, content in self.files.items():
            self.json(split).parent.mkdir(parents=True, exist_ok=True)
            self.json(split).write_text(json.dumps(content))
        return self

    def write_list(self, name: str, *pairs: tuple[int, int]) -> None:
        """An official list, `splits/{name}.npz`, of (image id, 0-based class)."""
        file = self.root / "splits" / f"{name}.npz"
        file.parent.mkdir(parents=True, exist_ok=True)
        ids, classes = np.array(pairs or np.zeros((0, 2)), np.int64).T
        np.savez(file, image_id=ids.astype(np.int32), class_id=classes.astype(np.uint8), from_train2014=ids > 0)


def empty_annotations() -> dict[str, Any]:
    categories = [{"id": number, "name": name, "supercategory": "x"} for number, name in CATEGORIES.items()]
    return {"info": {}, "licenses": [], "images": [], "annotations": [], "categories": categories}
