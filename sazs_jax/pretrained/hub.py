"""Files by local directory or hub id."""

import os
from collections.abc import Sequence
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import logging as hub_logging

from sazs_jax.errors import UserError


def local_directory(source: str, files: Sequence[Sequence[str]], *, extra: Sequence[str] = ()) -> Path:
    """A directory that holds `files`: `source` itself, or the hub's, downloaded unless it is here already.

    Args:
      source: a local directory or a hub id such as "openai/clip-vit-base-patch32".
      files: what is needed, each a tuple of names of which one will do; the first that is there is taken.
      extra: names that are taken too where they are there.

    Raises:
      UserError: a file is lacking, or there is neither such a directory nor a hub in reach.
    """
    needed = ", ".join(" or ".join(names) for names in files)
    directory = Path(os.path.expanduser(source))
    if os.path.isdir(directory):  # unlike Path's, it takes a name of any length
        lacking = [" or ".join(names) for names in files if not any((directory / name).is_file() for name in names)]
        if lacking:
            raise UserError(f"{source}: this directory lacks {', '.join(lacking)}")
        return directory

    verbosity = hub_logging.get_verbosity()
    hub_logging.set_verbosity_error()  # it would tell of every retry
    try:
        paths = [_download(source, names) for names in files]
        for name in extra:
            _download(source, (name,))
    except (OSError, ValueError) as error:  # no network, no such id, no access, a malformed id
        reason = {LocalEntryNotFoundError: "cannot be reached", RepositoryNotFoundError: "has no such model"}
        raise UserError(
            f"{source}: no such directory, and the hub {reason.get(type(error), 'does not give it')}; "
            f"place {needed} in a directory and name that instead"
        ) from error
    finally:
        hub_logging.set_verbosity(verbosity)
    found = [path for path in paths if path is not None]
    if len(found) < len(paths):
        raise UserError(f"{source}: the hub's copy lacks one of {needed}")
    return found[0].parent


def _download(source: str, names: Sequence[str]) -> Path | None:
    """The first of `names` that is in the cache or else on the hub; None: the hub has none of them."""
    for name in names:
        cached = huggingface_hub.try_to_load_from_cache(source, name)
        if isinstance(cached, str):
            return Path(cached)
    for name in names:
        try:
            return Path(huggingface_hub.hf_hub_download(source, name))
        except LocalEntryNotFoundError:  # the hub is out of reach
            raise
        except EntryNotFoundError:
            continue
    return None
