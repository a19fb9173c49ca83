"""What every data set's TFDS builder has in common, and where prepared data lives."""

import abc
import contextlib
import hashlib
import io
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Integer, UInt8

from data.codecs import encode_png
from sazs_jax.errors import UserError

EXAMPLES_PER_SHARD = 1000  # TFDS holds one shard's examples in memory
_ABANDONED = 24 * 3600  # seconds without a change after which a work folder is nobody's


@dataclass(frozen=True)
class Example:
    """One image as it goes into a prepared data set."""

    image_id: str
    image: bytes  # JPEG or PNG
    label: UInt8[np.ndarray, "height width"]  # 0 others, c + 1 class c, 255 void


class SegmentationBuilder(tfds.core.ShardBasedBuilder, skip_registration=True):
    """One split of a segmentation data set as array_record, written and read without TensorFlow.

    A subclass gives the examples and the fold lists. Record i is image i, encoded; ids, pairs and the
    classes present are the metadata of its `DatasetInfo`. Shard by shard, since TFDS's other builder sorts what it
    is given: above 1 GB with TensorFlow, and with all of it in memory.
    """

    class_names: tuple[str, ...]
    description: str

    def __init__(self, *, split: str, data_dir: str | Path):
        self.split = split
        super().__init__(data_dir=data_dir)

    @property
    @abc.abstractmethod
    def most_examples(self) -> int:
        """How many images `examples` yields at most."""

    @abc.abstractmethod
    def examples(self) -> Iterator[Example]:
        """Yield the images of the split, in their order."""

    @abc.abstractmethod
    def fold_lists(
        self, image_ids: list[str], counts: Integer[np.ndarray, "images classes"]
    ) -> dict[int, list[tuple[int, int]]]:
        """Fold -> ordered (image index, 0-based class); `counts` are the pixels of each class in each image."""

    def _info(self) -> tfds.core.DatasetInfo:
        # Written here in full: TFDS's way of finding a description beside the module is one more thing to break.
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.description,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(),
                    "label": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                    "image_id": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
            metadata=tfds.core.MetadataDict(),
        )

    def _shard_iterators_per_split(self, dl_manager):
        records = self._records()
        # One more than may be needed: it finds `records` at its end, which is when the metadata are complete.
        num_shards = self.most_examples // EXAMPLES_PER_SHARD + 1
        return {self.split: [lambda: itertools.islice(records, EXAMPLES_PER_SHARD)] * num_shards}

    def _records(self):
        image_ids, counts = [], []
        for i, example in enumerate(self.examples()):
            image_ids.append(example.image_id)
            pixels = np.bincount(example.label.ravel(), minlength=256)
            counts.append(pixels[1 : len(self.class_names) + 1].astype(np.int32))
            # A BytesIO goes in as it is; an array would be encoded by TensorFlow.
            yield (
                i,
                {
                    "image": io.BytesIO(example.image),
                    "label": io.BytesIO(encode_png(example.label)),
                    "image_id": example.image_id,
                },
            )
        lists = self.fold_lists(image_ids, np.array(counts))
        assert self.info.metadata is not None
        self.info.metadata.update(
            image_ids=image_ids,
            present=[np.flatnonzero(c).tolist() for c in counts],
            pair_list={str(fold): pairs for fold, pairs in lists.items()},
        )


def files_digest(root: Path, folders: Sequence[Path]) -> str:
    """Hash of the names, sizes and times of all files in some folders under `root`.

    Raises:
        UserError: a file cannot be looked at.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for parent, subfolders, files in os.walk(folder):
            subfolders.sort()
            for name in sorted(files):
                file = Path(parent, name)
                try:
                    stat = file.stat()
                except OSError as error:
                    raise UserError(f"{file} cannot be read ({error.strerror}); replace or remove it") from error
                # The change time too: a file replaced by one of the same size and restored time counts.
                digest.update(f"{file.relative_to(root)}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
                digest.update(f"{stat.st_ctime_ns}\n".encode())
    return digest.hexdigest()[:16]


def prepare(make_builder: Callable[[Path], SegmentationBuilder], destination: Path) -> None:
    """Write a builder's records to `destination`, unless they are there.

    The work is done in a folder of its own beside `destination` and moved there when complete, so that an
    error, a kill or a second process at the same work never leaves half a data set to be taken for a whole one.
    """
    if destination.is_dir():
        return
    with work_folder(destination) as work:
        builder = make_builder(work)
        tfds.disable_progress_bar()  # ours knows the number of images
        with contextlib.redirect_stdout(io.StringIO()):  # "Downloading and preparing dataset Unknown size"
            builder.download_and_prepare(file_format="array_record")
        move_complete(Path(builder.data_dir), destination)


@contextlib.contextmanager
def work_folder(destination: Path) -> Iterator[Path]:
    """Temporary folder on the same disk as `destination`, removed with what is left in it.

    Those that killed processes left there a day ago or longer are removed too.

    Raises:
        UserError: it cannot be made there.
    """
    for left in destination.parent.glob(f".{destination.name}-*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _ABANDONED:
                shutil.rmtree(left, ignore_errors=True)
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
        folder = tempfile.mkdtemp(prefix=f".{destination.name}-", dir=destination.parent)
    except OSError as error:
        raise UserError(
            f"prepared data cannot be written to {destination.parent} ({error.strerror}); give another folder as "
            "data.cache or $SAZS_CACHE"
        ) from error
    try:
        yield Path(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def move_complete(source: Path, destination: Path) -> None:
    """Rename the folder `source` to `destination`; where another process was first, its result stands."""
    try:
        os.rename(source, destination)
    except OSError:
        if not destination.is_dir():
            raise
