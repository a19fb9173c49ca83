"""COCO's `instances_*.json`: read once, kept small, and drawn as class maps."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, UInt8
from pycocotools import mask as coco_mask

from data.coco_categories import CATEGORIES
from data.folds import OTHERS
from sazs_jax.errors import UserError
from sazs_jax.label_map import VOID

_CLASS_OF_CATEGORY = {category: c for c, category in enumerate(CATEGORIES)}
_FARTHEST = 10  # sides of the image that a polygon may reach beyond it: COCO's reach a pixel or so


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, or a crowd of them."""

    annotation_id: int
    category: int  # 0-based class
    is_crowd: bool
    segmentation: Any  # polygons, arrays of x0 y0 x1 y1 ...; or a run-length code {"size", "counts"}


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """What an annotation file tells of an image. `instances` in ascending order of their ids."""

    file: Path  # of the annotations
    size: tuple[int, int]  # height, width
    instances: list[Instance]

    def class_map(self) -> UInt8[np.ndarray, "height width"]:
        """0 others, c + 1 class c, 255 crowds.

        Of overlapping instances the one of the higher annotation id wins, and any of them over a crowd.

        Raises:
            UserError: a segmentation that is none.
        """
        label = np.full(self.size, OTHERS, np.uint8)
        for instance in sorted(self.instances, key=lambda instance: not instance.is_crowd):  # stable: ids stay in order
            label[self._mask(instance)] = VOID if instance.is_crowd else instance.category + 1
        return label

    def _mask(self, instance: Instance) -> Bool[np.ndarray, "height width"]:
        try:
            return decode_segmentation(instance.segmentation, self.size)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise UserError(
                f"{self.file}, annotation {instance.annotation_id}: its segmentation is none ({error}); expected "
                "polygons or a run-length code of the image's size; replace the file"
            ) from error


def read_annotations(file: Path) -> dict[int, AnnotatedImage]:
    """Image id -> what the file tells of it.

    Raises:
        UserError: the file is not there, broken, or of another kind; a category that COCO does not have; an annotation
            of an image that the file does not list.
    """
    try:
        with file.open(encoding="utf-8") as text:
            content = json.load(text, object_hook=_compact)
    except FileNotFoundError as error:
        raise UserError(f"{file} is not there; add it (COCO's annotations_trainval archive holds it)") from error
    except (OSError, ValueError, RecursionError) as error:  # of JSON and of UTF-8 are ValueErrors
        raise UserError(f"{file} is not a whole JSON file ({error}); replace it") from error
    try:
        for category in content["categories"]:
            if CATEGORIES.get(category["id"]) != category["name"]:
                raise UserError(
                    f"{file} has the category {category['id']} {category['name']!r}, which is none of COCO's 80; "
                    "expected an official instances_*.json"
                )
        images = {
            int(image["id"]): AnnotatedImage(file, (int(image["height"]), int(image["width"])), [])
            for image in content["images"]
        }
        for annotation in content["annotations"]:
            _add(annotation, images, file)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise UserError(f"{file} is not of the form of COCO's instances_*.json (lacks {error}); replace it") from error
    for image in images.values():
        image.instances.sort(key=lambda instance: instance.annotation_id)
    return images


def decode_segmentation(segmentation: Any, size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    """Mask of `size` (height, width) of polygons, or of a run-length code, compressed or not.

    Raises:
        ValueError: it is neither, or a code of another size.
        TypeError, KeyError, AttributeError: it is something else altogether.
    """
    if isinstance(segmentation, dict):
        return _decode_runs(segmentation["counts"], tuple(segmentation["size"]), size)
    polygons = [np.asarray(polygon, np.float64) for polygon in segmentation]
    for polygon in polygons:
        if polygon.ndim != 1 or len(polygon) % 2 or not (np.abs(polygon) <= _FARTHEST * max(size)).all():
            raise ValueError("a polygon that is no list x0, y0, x1, y1, ... of points near the image")
    outlines = [polygon for polygon in polygons if len(polygon) >= 6]  # fewer than three points have no area
    if not outlines:
        return np.zeros(size, bool)
    codes: Any = coco_mask.frPyObjects(outlines, *size)  # pyright: ignore[reportCallIssue, reportArgumentType]
    return coco_mask.decode(coco_mask.merge(codes)).astype(bool)


def _decode_runs(counts: Any, own_size: tuple[int, ...], size: tuple[int, int]) -> Bool[np.ndarray, "height width"]:
    if own_size != size:
        raise ValueError(f"a run-length code of size {list(own_size)} for an image of {list(size)}")
    if isinstance(counts, str):
        # What pycocotools takes on trust: six bits a character, the last one of a number without the bit that
        # announces another.
        bits = [ord(character) - 48 for character in counts]
        if not bits or min(bits) < 0 or max(bits) > 63 or bits[-1] & 32:
            raise ValueError("a compressed run-length code cut short")
        return coco_mask.decode({"size": list(size), "counts": counts}).astype(bool)  # pyright: ignore
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in "iu" or (runs < 0).any() or runs.sum() != size[0] * size[1]:
        raise ValueError(f"a run-length code whose counts do not add up to {size[0] * size[1]}")
    flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return flat.reshape(size, order="F")  # COCO counts down the columns


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Drop what is not used of an annotation and turn its polygons into arrays while the file is being read.

    As Python's lists of floats the polygons of COCO's training set would take gigabytes.
    """
    if "segmentation" not in entry:
        return entry
    segmentation = entry["segmentation"]
    if isinstance(segmentation, list):
        with contextlib.suppress(ValueError, TypeError):  # told when it is drawn
            segmentation = [np.asarray(polygon, np.float64) for polygon in segmentation]
    kept = {key: entry[key] for key in ("id", "image_id", "category_id", "iscrowd") if key in entry}
    return {**kept, "segmentation": segmentation}


def _add(annotation: dict[str, Any], images: dict[int, AnnotatedImage], file: Path) -> None:
    category, image_id, own_id = annotation["category_id"], annotation["image_id"], int(annotation["id"])
    if category not in _CLASS_OF_CATEGORY:
        raise UserError(
            f"{file}, annotation {own_id} is of category {category}, which is none of COCO's 80; expected an official "
            "instances_*.json"
        )
    if image_id not in images:
        raise UserError(
            f"{file}, annotation {own_id} is of image {image_id}, which the file does not list; replace the file"
        )
    crowd = bool(annotation["iscrowd"])
    instance = Instance(own_id, _CLASS_OF_CATEGORY[category], crowd, annotation["segmentation"])
    images[image_id].instances.append(instance)
