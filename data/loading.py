"""Batches for training, by Grain, and whole images for evaluation."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags
from jaxtyping import UInt8
from ml_collections import ConfigDict

from data.codecs import decode_image, decode_label
from data.datasets import SegmentationData, Split
from data.parallel import num_cpus, ordered_map
from data.transforms import Augmentation
from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import LabelledImage

NUM_HELD_OUT = 8  # batches that an affine MLP is scored on


def training_batches(
    split: Split,
    indices: Sequence[int],
    lookup: UInt8[np.ndarray, "256"],
    config: ConfigDict,
    *,
    seed: int,
    labels_only: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> grain.DatasetIterator:
    """Endless augmented batches of the images `indices` of a split, shuffled anew each epoch.

    An epoch walks each image once. The order and every random draw follow from `seed` and the place of an
    example in the global order: the union over processes is the same batch whatever their number, and so are
    batches whatever `data.num_workers`.

    Args:
        split: where the images are.
        indices: unique images, of `SegmentationData.train_indices`.
        lookup: of `folds.training_lookup`. Applied first of all: nothing else sees the classes on disk.
        config: `config.data`; reads `crop`, `batch_size`, `scale`, `rotation`, `flip`, `jitter`, `num_workers`.
        seed: `config.train.seed`.
        labels_only: leave "image" out, for what learns from label maps alone.
        process_index: which of `process_count` processes this is.
        process_count: each takes an equal share of every batch.

    Returns:
        iterator of {"image": uint8 (B, S, S, 3), "label": uint8 (B, S, S)}, B = batch_size / process_count,
        S = crop. `get_state` and `set_state`, or Grain's checkpoint handlers, restore its place exactly; `close`
        it when there are worker processes.

    Raises:
        UserError: no images, or a batch that the processes cannot share equally.
    """
    if not indices:
        raise UserError("no image to train on: the list is empty; check data.root and data.fold")
    if config.batch_size < 1 or config.batch_size % process_count:
        raise UserError(f"data.batch_size is {config.batch_size}; expected a multiple of the {process_count} processes")
    low, high = config.scale
    if not 0 < low <= high or config.crop < 1 or not 0 <= config.jitter <= 1:
        raise UserError(
            f"data.scale={tuple(config.scale)}, data.crop={config.crop}, data.jitter={config.jitter}: expected a range "
            "of factors above 0, a side of at least 1 pixel, and a share from 0 to 1"
        )
    augmentation = Augmentation(
        config.crop, (float(low), float(high)), float(config.rotation), config.flip, float(config.jitter)
    )
    workers = max(config.num_workers, 0)
    threads = 1 if workers else min(num_cpus(), 16)
    batches = (
        grain.MapDataset.source(Images(split.source, tuple(indices)))
        .seed(seed)
        .shuffle()
        .repeat()
        .random_map(View(lookup, augmentation, labels_only))  # before the slice: keyed by the place in the global order
        .slice(slice(process_index, None, process_count))
        .batch(config.batch_size // process_count, drop_remainder=True)  # there is none, but batches of 1 overflow
        .to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads))
    )
    if workers:
        if not flags.FLAGS.is_parsed():  # Grain's worker processes read flags, which only absl's app parses
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
    return iter(batches)


def run_batches(
    config: ConfigDict, dataset: SegmentationData, indices: Sequence[int], **host: int
) -> grain.DatasetIterator:
    """`training_batches` of a whole config: remapped for its fold, of its seed, of label maps alone for the affine MLP.

    `host` is `process_index` and `process_count`.
    """
    return training_batches(
        dataset.train,
        indices,
        dataset.training_lookup(config.data.fold, config.loss.unseen_pixels, config.data.exclude),
        config.data,
        seed=config.train.seed,
        labels_only=config.task == "affine_mlp",
        **host,
    )


def held_out_batches(config: ConfigDict, dataset: SegmentationData) -> list[dict[str, np.ndarray]]:
    """A few batches of the selection images, cut as training would cut them; none where there is no such image."""
    seen = dataset.seen(config.data.fold, config.data.exclude)
    selection = sorted({image for image, _ in dataset.selection_pairs(config.data.fold, seen)})
    return list(itertools.islice(run_batches(config, dataset, selection), NUM_HELD_OUT)) if selection else []


@dataclass(frozen=True)
class Images:
    """The records of some images of a split, as a Grain source that pickles small."""

    source: Any
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.source[self.indices[index]]


@dataclass(frozen=True)
class View(grain.transforms.RandomMap):
    """Decode a record, remap its label, draw a view of both."""

    lookup: UInt8[np.ndarray, "256"]
    augmentation: Augmentation
    labels_only: bool = False

    def random_map(self, element: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Encoded record to {"image": uint8 (S, S, 3), "label": uint8 (S, S)}, or without the image."""
        label = self.lookup[decode_label(element["label"])]
        view = self.augmentation.draw(label.shape, rng)
        if self.labels_only:
            return {"label": view.of_label(label)}
        return {"image": view.of_image(decode_image(element["image"])), "label": view.of_label(label)}


def labelled_images(
    split: Split,
    indices: Sequence[int],
    episodes: Mapping[int, Mapping[int, int]] | None = None,
    num_threads: int | None = None,
) -> Iterator[LabelledImage]:
    """Whole images with their ground truth, in the order of `indices`, decoded ahead by threads.

    Args:
        split: where the images are.
        indices: images to give.
        episodes: image index -> {0-based class: how often the pair counts}; of `episodes.count_pairs`.
        num_threads: by default one for each processor, at most 16.
    """
    episodes = episodes or {}

    def read(index: int) -> LabelledImage:
        record = split.source[index]
        return LabelledImage(
            image_id=record["image_id"],
            image=decode_image(record["image"]),
            label=decode_label(record["label"]),
            episodes=dict(episodes.get(index, {})),
        )

    return ordered_map(read, indices, num_threads)
