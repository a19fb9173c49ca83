"""The official archives of PASCAL VOC 2012 and SBD, downloaded and joined into one devkit folder."""

import hashlib
import tarfile
import urllib.request
from pathlib import Path

import tensorflow_datasets as tfds

from data.builder import move_complete, work_folder
from sazs_jax.errors import UserError

# 2.0 GB and 1.4 GB.
VOC_URL = "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
SBD_URL = "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz"
MD5 = {VOC_URL: "6cd6e144f989b92b3379bac3b3de84fd", SBD_URL: "82b4d87ceb2ed10f6038a1cba92111cb"}
BY_HAND = (
    f"download {VOC_URL} and {SBD_URL} by other means, unpack both, move benchmark_RELEASE into VOCdevkit/VOC2012 "
    "and give that folder as data.root"
)


def download_devkit(cache: Path) -> Path:
    """Folder `cache`/VOC2012 with VOC's files and, in `benchmark_RELEASE/`, SBD's; downloaded when not there.

    Raises:
        UserError: an archive cannot be fetched or is not the published one.
    """
    devkit = cache / "VOC2012"
    if not devkit.is_dir():
        voc, sbd = fetch(VOC_URL, cache), fetch(SBD_URL, cache)
        with work_folder(devkit) as work:
            unpack(voc, work, ("VOCdevkit/VOC2012/",))
            unpack(sbd, work / "VOCdevkit/VOC2012", ("benchmark_RELEASE/dataset/cls/",))
            move_complete(work / "VOCdevkit/VOC2012", devkit)
    return devkit


def fetch(url: str, cache: Path) -> Path:
    """Path of a downloaded archive. Raises UserError when it cannot be had whole."""
    manager = tfds.download.DownloadManager(download_dir=cache / "downloads")
    try:
        # TFDS tries for minutes when there is no network; this fails at once.
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30).close()
        archive = Path(manager.download(url))
    except (OSError, tfds.download.DownloadError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"data.root is empty and {url} could not be downloaded ({reason}); {BY_HAND}") from error
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != MD5[url]:
            raise UserError(f"{archive} is not the published {url}; delete it and run again, or {BY_HAND}")
    return archive


def unpack(archive: Path, destination: Path, prefixes: tuple[str, ...]) -> None:
    """Unpack the members of a tar file whose names begin with one of `prefixes`, refusing unsafe ones."""
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.name.removeprefix("./").startswith(prefixes))
        tar.extractall(destination, members=members, filter="data")
