"""What is kept on disk from one run to the next because it can be made again: its folder, and compiled programs."""

import contextlib
import os
import sys
from pathlib import Path
from typing import Any

import jax


def cache_folder(given: str = "") -> Path:
    """The folder that a setting such as `data.cache` gives, else $SAZS_CACHE, else ~/.cache/sazs_jax."""
    return Path(given or os.environ.get("SAZS_CACHE") or "~/.cache/sazs_jax").expanduser().absolute()


def keep_programs() -> None:
    """Let JAX keep what it compiles in the folder `programs` of the cache, and take it from there.

    A command calls this before it computes anything. Where the user gave JAX a folder (JAX_COMPILATION_CACHE_DIR), or
    an empty one for none, nothing is changed. Where nothing can be written, that is told in one line and nothing kept.
    """
    settings: Any = jax.config  # whose attributes type checkers do not see
    if settings.jax_compilation_cache_dir is not None or not settings.jax_enable_compilation_cache:
        return
    folder = cache_folder() / "programs"
    with contextlib.suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
    if not os.access(folder, os.W_OK):  # JAX would warn of each program
        print(f"warning: no program can be kept in {folder}; $SAZS_CACHE names another cache", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # many sizes make many small programs
