"""The project's own commands, run by an experiment as a person would run them."""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sazs_jax.errors import UserError

_REPOSITORY = Path(__file__).parents[1]
_TAIL = 1 << 14  # bytes of what a command prints that are kept, to tell why it failed
_ERROR = b"error: "


class CommandError(UserError):
    """A command failed. `reason` is what it told, without the command line."""

    def __init__(self, script: str, command: list[str], reason: str):
        super().__init__(f"{script} failed: {reason}; it was run as: {shlex.join(command)}")
        self.reason = reason


def train(config: str, workdir: Path, settings: Mapping[str, Any]) -> None:
    """Train a run to its end, or go on with it; one that is finished is left as it is.

    Args:
      config: as `--config` takes it.
      workdir: of the run.
      settings: by key, such as {"data.fold": 1}.

    Raises:
      CommandError: train.py failed.
    """
    _run("train.py", f"--config={config}", f"--workdir={workdir}", *_overrides(settings))


def evaluate(
    workdir: Path, settings: Mapping[str, Any], *, dataset: str | None = None, data_root: Path | None = None
) -> dict[str, Any]:
    """Score a run; what it writes to its eval/metrics.json, or for another data set to eval/DATASET.json.

    Args:
      workdir: of the run.
      settings: by key, of the groups `eval` and `spectral`.
      dataset: scored by class names instead of the run's own fold.
      data_root: its folder.

    Raises:
      CommandError: evaluate.py failed.
    """
    other = [] if dataset is None else [f"--dataset={dataset}", f"--data_root={data_root}"]
    _run("evaluate.py", f"--workdir={workdir}", *other, *_overrides(settings))
    return json.loads((workdir / "eval" / f"{dataset or 'metrics'}.json").read_text())


def experiment(name: str, *arguments: str, settings: Mapping[str, Any]) -> None:
    """Python -m experiments NAME in a process of its own.

    Raises:
      CommandError: it failed.
    """
    _run("-m", "experiments", name, *arguments, *_overrides(settings))


def _overrides(settings: Mapping[str, Any]) -> list[str]:
    return [f"--config.{key}={value}" for key, value in settings.items()]


def _run(*words: str) -> None:
    """Run Python on a script or module; what it prints is passed on to standard error, but for its `error: ` line.

    That one is for whoever called to tell. The process ends with this one, unless this one is killed outright.
    """
    script = " ".join(words[:3]) if words[0] == "-m" else words[0]
    command = [sys.executable, *(words if words[0] == "-m" else (str(_REPOSITORY / words[0]), *words[1:]))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_REPOSITORY), os.environ.get("PYTHONPATH", "")])}
    tail, line, held = b"", b"", b""  # held: of a line that is the error's or may become it
    with (
        _sigterm_as_exit(),
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
    ):
        assert process.stdout is not None
        try:
            while chunk := process.stdout.read1(1 << 16):  # type: ignore[attr-defined]
                tail = (tail + chunk)[-_TAIL:]
                for part in chunk.splitlines(keepends=True):  # a progress bar's lines end with \r, or not yet
                    line, held = line + part, held + part
                    if not line.startswith(_ERROR) and not _ERROR.startswith(line):
                        sys.stderr.buffer.write(held)
                        held = b""
                    if part.endswith((b"\n", b"\r")):
                        line, held = b"", b""
                sys.stderr.buffer.flush()
        except BaseException:
            process.terminate()
            raise
    if process.returncode:
        raise CommandError(script, command, _reason(tail.decode(errors="replace"), process.returncode))


@contextlib.contextmanager
def _sigterm_as_exit() -> Iterator[None]:
    """SIGTERM raises SystemExit, with the status that a shell gives it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reason(output: str, status: int) -> str:
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    told = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if told:
        return told[-1]
    ended = f"it was killed by signal {-status}" if status < 0 else f"it ended with status {status}"
    return f"{ended}: {lines[-1]}" if lines else ended
