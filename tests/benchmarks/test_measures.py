"""The parts that benchmarks share, against values by hand and NumPy."""

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.eigsh import largest, shift_invert
from benchmarks.small import make_small
from benchmarks.table import table
from benchmarks.timing import LargeProduct, interleaved, ratio
from configs import variants


def test_runs_are_timed_in_turns_after_one_call_of_each():
    calls = []
    times = interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3)
    assert calls == ["a", "b"] * 4
    interleaved({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 1, settle=lambda: calls.append("-"))
    assert calls[8:] == ["a", "b", "-", "a", "-", "b"]
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_the_median_over_rounds():
    times = {"ours": [1.0, 2.0, 10.0], "theirs": [2.0, 6.0, 15.0]}  # 2, 3 and 1.5 times
    assert ratio(times, "theirs", "ours") == 2.0


def test_the_share_of_the_peak_compares_each_round_with_its_own():
    product = LargeProduct("float32")
    assert product.flops == 2 * 1536**3
    times = {"product": [1.0, 2.0, 4.0], "step": [4.0, 8.0, 16.0]}
    assert product.share(times, "step", 2 * product.flops) == pytest.approx(0.5)
    assert product.teraflops(times) == pytest.approx(1536**3 / 1e12)


@pytest.mark.parametrize("solve", [largest, shift_invert])
def test_eigsh_solves_the_problem_of_the_paper(solve):
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 4))
    z = np.maximum(features @ features.T, 0) + 1e-3
    degrees = z.sum(axis=1)
    random_walk = np.eye(30) - z / degrees[:, None]  # D^-1 (D - Z): the same l
    expected = np.sort(np.linalg.eigvals(random_walk).real)[1:6]
    np.testing.assert_allclose(solve(z, 5), expected, atol=1e-9)


def test_a_table_has_every_column_and_leaves_out_what_a_row_lacks():
    assert table([{"batch": 6, "ratio": 1.2345}, {"batch": 16, "peer": "none"}]).splitlines() == [
        "| batch | ratio | peer |",
        "| ----- | ----- | ---- |",
        "| 6     | 1.23  |      |",
        "| 16    |       | none |",
    ]


@pytest.mark.parametrize(
    ("variant", "encoder"), [("vit_l16", "vit_s16"), ("drn", "drn_d_22"), ("lite", "efficientnet_lite0")]
)
def test_small_keeps_the_kind_of_network(variant, encoder):
    config = variants.get_config(variant)
    make_small(config)
    assert (config.model.encoder, config.model.dtype, config.data.crop) == (encoder, "float32", 160)


def test_without_torch_the_peer_says_what_to_install(monkeypatch):
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    assert peers.missing(True) == "not measured: torch is not installed (parity extra)"
    assert peers.peers(variants.get_config("vit_l16"), training=True, wanted=True) == ({}, peers.missing(True))
    assert peers.missing_network(variants.get_config("drn"), True) == "not measured: transformers has no such network"
