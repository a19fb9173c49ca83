"""What a benchmark prints and writes: a table, and JSON that says on what it was measured."""

import datetime
import importlib.metadata
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.options import OUT
from benchmarks.table import table
from data.parallel import num_cpus
from sazs_jax.atomic import write_atomically

_PACKAGES = ("jax", "jaxlib", "flax", "numpy", "scipy", "torch", "transformers")


def publish(name: str, rows: Sequence[Mapping[str, Any]], **settings: Any) -> None:
    """Print `rows` as a table, and write them to --out with the hardware, the versions and the settings.

    Raises:
      UserError: the file cannot be written.
    """
    found = {
        "benchmark": name,
        "command": shlex.join(["python", "-m", "benchmarks", name, *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "hardware": hardware(),
        "versions": versions(),
        "settings": settings,
        "rows": list(rows),
    }
    if OUT.value:
        write_atomically(Path(OUT.value), json.dumps(found, indent=2) + "\n")
    print(f"{found['command']}\n{found['hardware']['devices']}, {num_cpus()} CPU cores")
    print(", ".join(f"{key} {value}" for key, value in settings.items()) + "\n")
    print(table(rows))


def hardware() -> dict[str, Any]:
    """Devices and processors of this machine."""
    return {
        "devices": f"{jax.local_device_count()} x {jax.local_devices()[0].device_kind}",
        "cpu_cores": num_cpus(),
        "processor": platform.processor() or platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
    }


def versions() -> dict[str, str | None]:
    """Of Python and of the packages that speed depends on; None where one is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found
