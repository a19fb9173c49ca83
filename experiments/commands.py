"""The project's own commands, run by an experiment as a person would run them."""

import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sazs_jax.errors import UserError

_REPOSITORY = Path(__file__).parents[1]


def train(config: str, workdir: Path, settings: Mapping[str, Any]) -> None:
    """Train a run to its end, or go on with it; one that is finished is left as it is.

    Args:
      config: as `--config` takes it.
      workdir: of the run.
      settings: by key, such as {"data.fold": 1}.

    Raises:
      UserError: train.py failed; it has told why.
    """
    _run("train.py", f"--config={config}", f"--workdir={workdir}", *_overrides(settings))


def evaluate(workdir: Path, settings: Mapping[str, Any]) -> None:
    """Score a run; writes its eval/metrics.json.

    Raises:
      UserError: evaluate.py failed; it has told why.
    """
    _run("evaluate.py", f"--workdir={workdir}", *_overrides(settings))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


def _run(script: str, *arguments: str) -> None:
    command = [sys.executable, str(_REPOSITORY / script), *arguments]
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise UserError(f"{script} failed, for the reason above; it was run as: {shlex.join(command)}")
