"""Files that are there whole or not at all."""

import contextlib
import os
import threading
from pathlib import Path

from sazs_jax.errors import UserError


def check_folder(path: str | os.PathLike) -> None:
    """See before a long computation that its results can go into a folder, which need not exist yet.

    Raises:
      UserError: it, or what should hold it, is a file, or nothing can be written there.
    """
    nearest = next(place for place in (Path(path).absolute(), *Path(path).absolute().parents) if place.exists())
    if not nearest.is_dir():
        raise UserError(f"{nearest} is a file; choose another folder to write to")
    if not os.access(nearest, os.W_OK):
        raise UserError(f"nothing can be written into {nearest}; choose another folder to write to")


def write_atomically(path: str | os.PathLike, content: bytes | str) -> None:
    """Write a file beside its place and move it there, making folders on the way. Text is UTF-8.

    Raises:
      UserError: it cannot be written there.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}; choose another place") from error
