"""Eigenvectors on disk: found by what they are made from, shared, mended."""

import threading

import jax.numpy as jnp
import numpy as np
import pytest

from configs import defaults
from sazs_jax.errors import UserError
from sazs_jax.spectral.cache import EigenvectorCache
from sazs_jax.spectral.eigen import Eigenvectors
from sazs_jax.spectral.eigensegmenter import Eigensegmenter


def settings(**changes):
    config = defaults.get_config().spectral
    config.update({"features": "embeddings", "grid": 6, "solver": "subspace", **changes})
    return config


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 24, 24, 3), dtype=np.uint8)
    return images, jnp.asarray(rng.normal(size=(3, 6, 6, 8)), jnp.float32)


def count_computations(monkeypatch, segmenter) -> list:
    calls, compute = [], segmenter._decompose
    monkeypatch.setattr(segmenter, "_decompose", lambda *arguments: calls.append(1) or compute(*arguments))
    return calls


def same(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def test_each_image_is_decomposed_once(inputs, tmp_path, monkeypatch):
    images, embeddings = inputs
    plain = Eigensegmenter(settings())(images, embeddings)
    cached = Eigensegmenter(settings(cache=str(tmp_path)))
    calls = count_computations(monkeypatch, cached)
    assert same(cached(images, embeddings), plain)
    assert len(list(tmp_path.rglob("*.eigen"))) == 3
    again = Eigensegmenter(settings(cache=str(tmp_path)))
    more = count_computations(monkeypatch, again)
    order = np.array([2, 0, 1])  # whatever batch an image comes in
    assert same(again(images[order], embeddings[order]), [x[order] for x in plain])
    assert (len(calls), len(more)) == (1, 0)


def test_other_images_embeddings_and_settings_are_others(inputs, tmp_path, monkeypatch):
    images, embeddings = inputs
    Eigensegmenter(settings(cache=str(tmp_path)))(images, embeddings)
    for changes, new_images, new_embeddings in (
        ({"color_weight": 0.5}, images, embeddings),
        ({"solver": "eigh"}, images, embeddings),
        ({"projection_vectors": 9}, images, embeddings),
        ({"dtype": "bfloat16"}, images, embeddings),
        ({}, images ^ 1, embeddings),
        ({}, images, embeddings + jnp.eye(6)[..., None]),
    ):
        segmenter = Eigensegmenter(settings(cache=str(tmp_path), **changes))
        calls = count_computations(monkeypatch, segmenter)
        segmenter(new_images, new_embeddings)
        assert calls == [1]


@pytest.mark.parametrize("damage", [b"", b"not an archive"])
def test_a_damaged_entry_is_made_anew(inputs, tmp_path, damage):
    images, embeddings = inputs
    segmenter = Eigensegmenter(settings(cache=str(tmp_path)))
    whole = segmenter(images, embeddings)
    path = sorted(tmp_path.rglob("*.eigen"))[1]
    content = path.read_bytes()
    path.write_bytes(damage)
    assert same(segmenter(images, embeddings), whole)
    assert path.read_bytes() == content


def random_eigenvectors() -> Eigenvectors:
    rng = np.random.default_rng(0)
    return Eigenvectors(*(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((1, 3), (1, 9, 3), (1, 9))))


def test_no_damaged_byte_and_no_lost_end_goes_unseen(tmp_path):
    whole, images, calls = random_eigenvectors(), np.zeros((1, 4, 4, 3), np.uint8), []
    cache = EigenvectorCache(tmp_path, "settings")
    cache.look_up([images], lambda: whole)
    (path,) = tmp_path.rglob("*.eigen")
    content = path.read_bytes()
    damaged = [content[:i] + bytes([content[i] ^ bits]) + content[i + 1 :]
               for i in range(0, len(content), 3) for bits in (0x01, 0x20, 0xFF)]  # fmt: skip
    damaged += [content[:i] for i in range(0, len(content), 7)]
    for other in damaged:
        path.write_bytes(other)
        assert same(cache.look_up([images], lambda: calls.append(1) or whole), whole)
        assert path.read_bytes() == content
    assert len(calls) == len(damaged)


def test_settings_do_not_run_together(tmp_path):
    images = np.zeros((1, 4, 4, 3), np.uint8)

    def stored_by(*settings) -> bool:
        calls = []
        EigenvectorCache(tmp_path, *settings).look_up([images], lambda: calls.append(1) or random_eigenvectors())
        return not calls

    kinds = [
        ("lite", 30, {"count": 8, "neighbours": 21}),
        ("lite", 30, {"count": 82, "neighbours": 1}),
        ("lite", 30, {"neighbours": 8, "number": 21}),
        ("lite3", 0, {"count": 8, "neighbours": 21}),
        ("lite", 30, {"count": 8, "neighbours": 21}, np.zeros(4, np.float32)),
        ("lite", 30, {"count": 8, "neighbours": 21}, np.zeros((2, 2), np.float32)),
        ("lite", 30, {"count": 8, "neighbours": 21}, np.zeros(2, np.float32), np.zeros(2, np.float32)),
    ]
    assert not any(stored_by(*kind) for kind in kinds)
    assert all(stored_by(*kind) for kind in kinds)


def test_a_folder_that_cannot_be_written_costs_the_cache_alone(inputs, tmp_path, capsys):
    images, embeddings = inputs
    (tmp_path / "file").write_text("in the way")
    segmenter = Eigensegmenter(settings(cache=str(tmp_path / "file" / "cache")))
    whole = Eigensegmenter(settings())(images, embeddings)
    for _ in range(2):
        assert same(segmenter(images, embeddings), whole)
    (line,) = capsys.readouterr().err.splitlines()  # told once
    assert line.startswith(f"warning: spectral.cache: cannot write {tmp_path / 'file' / 'cache'}")


def test_two_writers_at_once(inputs, tmp_path):
    images, embeddings = inputs
    whole = Eigensegmenter(settings())(images, embeddings)
    found = []

    def work():
        cache = EigenvectorCache(tmp_path, "the same")
        found.extend(cache.look_up([images], lambda: whole) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 40
    assert all(same(one, whole) for one in found)
    assert not list(tmp_path.rglob(".*.eigen.*"))


def test_settings_that_cannot_work():
    for changes, message in (
        ({"dtype": "float8"}, "spectral.dtype='float8' is unknown; choose one of float32, bfloat16, float16"),
        ({"solver": "lanczos"}, "spectral.solver='lanczos' is unknown"),
        ({"grid": 2}, "spectral.grid=2"),
        ({"color_weight": -1.0}, "spectral.color_weight=-1.0"),
        ({"color_weight": float("nan")}, "spectral.color_weight=nan"),
        ({"color_weight": float("inf")}, "spectral.color_weight=inf"),
    ):
        with pytest.raises(UserError, match=message):
            Eigensegmenter(settings(**changes))
