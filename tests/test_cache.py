"""Compiled programs on disk, between commands run as a person does."""

import json
from pathlib import Path

import pytest

from tests.tiny_run import command, make_run

# evaluate.py, and then JAX's own count
_COUNTED = """
import atexit, collections, json, runpy
import jax
counts = collections.Counter(cache_hits=0)
jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.split("/")[-1]]))
atexit.register(lambda: print(json.dumps(counts)))
runpy.run_path("evaluate.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> Path:
    return make_run(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True)
def _cache_of_its_own(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    monkeypatch.setenv("SAZS_CACHE", str(tmp_path / "cache"))


def evaluate(workdir: Path) -> tuple[dict[str, int], str]:
    """How many programs evaluate.py asked JAX for and how many it found; and what it told on standard error."""
    result = command("-c", _COUNTED, "--workdir", workdir, "--config.spectral.features=")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1]), result.stderr


def test_the_second_evaluation_compiles_nothing(workdir, tmp_path):
    first, _ = evaluate(workdir)
    assert first["compile_requests_use_cache"] > 0 == first["cache_hits"]
    assert any((tmp_path / "cache" / "programs").glob("jit__cosine-*"))
    second, _ = evaluate(workdir)
    assert second["cache_hits"] == second["compile_requests_use_cache"] == first["compile_requests_use_cache"]


def test_a_folder_given_to_jax_stays(workdir, monkeypatch, tmp_path):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "own"))
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    evaluate(workdir)
    assert any((tmp_path / "own").glob("jit__cosine-*"))
    assert not (tmp_path / "cache").exists()


def test_a_folder_that_cannot_be_written_costs_one_warning(workdir, tmp_path):
    (tmp_path / "cache").write_text("")
    _, told = evaluate(workdir)
    (line,) = [line for line in told.splitlines() if "warning" in line.lower()]
    assert line.startswith(f"warning: no program can be kept in {tmp_path / 'cache' / 'programs'}; $SAZS_CACHE")
