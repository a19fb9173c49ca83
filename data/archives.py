"""Official archives: fetched once, checked against their published digest, unpacked without TensorFlow."""

import hashlib
import tarfile
import urllib.request
import zipfile
from pathlib import Path

import tensorflow_datasets as tfds

from sazs_jax.errors import UserError


def fetch(url: str, cache: Path, *, md5: str, by_hand: str) -> Path:
    """Path of a downloaded archive.

    Args:
        url: where it is.
        cache: it is kept in `downloads` there.
        md5: of the published archive.
        by_hand: what the user can do otherwise.

    Raises:
        UserError: it cannot be had whole.
    """
    manager = tfds.download.DownloadManager(download_dir=cache / "downloads")
    try:
        # TFDS tries for minutes when there is no network; this fails at once.
        urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=30).close()
        archive = Path(manager.download(url))
    except (OSError, tfds.download.DownloadError) as error:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"data.root is empty and {url} could not be downloaded ({reason}); {by_hand}") from error
    with archive.open("rb") as file:
        if hashlib.file_digest(file, "md5").hexdigest() != md5:
            raise UserError(f"{archive} is not the published {url}; delete it and run again, or {by_hand}")
    return archive


def unpack_tar(archive: Path, destination: Path, prefixes: tuple[str, ...]) -> None:
    """Unpack the members of a tar file whose names begin with one of `prefixes`, refusing unsafe ones."""
    with tarfile.open(archive) as tar:
        members = (member for member in tar if member.name.removeprefix("./").startswith(prefixes))
        tar.extractall(destination, members=members, filter="data")


def unpack_zip(archive: Path, destination: Path, prefixes: tuple[str, ...]) -> None:
    """Unpack the members of a zip file whose names begin with one of `prefixes`; none lands outside `destination`."""
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(destination, members=[name for name in zipped.namelist() if name.startswith(prefixes)])
