"""Parts of a benchmark in processes of their own, where what one side does must not touch the other."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from absl import flags

from sazs_jax.errors import UserError

CHILD = flags.DEFINE_string("child", None, "Used by the benchmark itself: the part that this process does")
_MARK = "measured: "


def run_child(benchmark: str, part: str, environment: Mapping[str, str]) -> tuple[float, Any]:
    """Run this command again for one part of it.

    Args:
      benchmark: its name.
      part: what the child finds in CHILD.
      environment: added to this process's own.

    Returns:
      Seconds from its start to its `tell`, and what it told.

    Raises:
      UserError: it failed.
      SystemExit: it told its user what to mend.
    """
    command = [sys.executable, "-m", "benchmarks", benchmark, *sys.argv[1:], f"--child={part}"]
    start = time.perf_counter()
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(_MARK):
                return time.perf_counter() - start, json.loads(line.removeprefix(_MARK))
    if process.returncode == 2:
        sys.exit(2)  # it has told why in its one line
    raise UserError(f"the part {part!r} ended with status {process.returncode}; what it printed is above")


def tell(value: Any) -> None:
    """Tell the parent, in the child."""
    print(_MARK + json.dumps(value), flush=True)
