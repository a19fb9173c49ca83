import pytest

from sazs_jax.errors import UserError
from sazs_jax.evaluation.episodes import count_pairs

PAIRS = [(4, 7), (0, 9), (4, 9)]


def test_every_pair_counts_once():
    assert count_pairs([*PAIRS, (0, 9)], "all_pairs") == {4: {7: 1, 9: 1}, 0: {9: 1}}


def test_hsnet1000_walks_the_list_modulo_its_length():
    assert count_pairs(PAIRS, "hsnet1000") == {4: {7: 334, 9: 333}, 0: {9: 333}}
    long_list = [(i, 0) for i in range(1200)]
    assert count_pairs(long_list, "hsnet1000") == {i: {0: 1} for i in range(1000)}


def test_hsnet1000_draws_a_class_and_then_an_image_where_its_data_set_does():
    """A class of one pair comes as often as one of many."""
    pairs = [(i, 3) for i in range(500)] + [(500, 1)]
    counts = count_pairs(pairs, "hsnet1000", draw=True)
    assert 450 < counts[500][1] < 550
    assert sum(classes.get(3, 0) for classes in counts.values()) == 1000 - counts[500][1]
    assert count_pairs(pairs, "all_pairs", draw=True) == count_pairs(pairs, "all_pairs")


def test_unknown_protocol_and_empty_list_are_said():
    with pytest.raises(UserError, match="all_pairs"):
        count_pairs(PAIRS, "thousand")
    with pytest.raises(UserError, match="empty"):
        count_pairs([], "all_pairs")
