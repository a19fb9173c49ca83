"""Which episodes and images the figures show."""

from experiments.chosen import best_median_worst, crowded, spread


def test_pairs_are_spread_over_classes_and_lists():
    pairs = [(i, 3) for i in range(100)] + [(i, 7) for i in range(10)] + [(0, 8)]
    assert spread(pairs, 5) == [(25, 3), (75, 3), (2, 7), (7, 7), (0, 8)]
    assert spread(pairs[-3:] * 2, 9) == [*pairs[-3:-1], (0, 8)]  # no pair twice
    assert spread([], 4) == []


def test_crowded_images_hold_seen_and_unseen_classes_first():
    present = [(1,), (1, 2), (1, 2, 3, 4), (1, 9), (1, 3, 9), (8, 9)]
    assert crowded(present, (8, 9), 4) == [4, 3, 2, 1]
    assert crowded(present, (8, 9), 9) == [4, 3, 2, 1, 5]


def test_best_median_and_worst_do_not_meet():
    ranked = list(range(20))
    assert best_median_worst(ranked, 3) == {"Best": [0, 1, 2], "Median": [8, 9, 10], "Worst": [17, 18, 19]}
    parts = best_median_worst(ranked[:7], 6)
    assert sorted(i for part in parts.values() for i in part) == [0, 1, 2, 3, 5, 6]
    assert best_median_worst([5], 3) == {"Best": [5], "Median": [5], "Worst": [5]}
