"""Which episodes and images are shown: by rule, not by eye."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")


def spread(pairs: Sequence[tuple[int, int]], count: int) -> list[tuple[int, int]]:
    """`count` of the (image, class) pairs, as many of each class as can be, at even steps over the class's own."""
    of_class: dict[int, list[tuple[int, int]]] = {}
    for pair in dict.fromkeys(pairs):
        of_class.setdefault(pair[1], []).append(pair)
    shares = dict.fromkeys(sorted(of_class), 0)
    for _ in range(min(count, sum(map(len, of_class.values())))):
        room = [c for c in shares if shares[c] < len(of_class[c])]
        shares[min(room, key=lambda c: shares[c])] += 1
    chosen = []
    for c, share in shares.items():
        found = of_class[c]
        chosen += [found[int((i + 0.5) * len(found) / share)] for i in range(share)]
    return chosen


def crowded(present: Sequence[Sequence[int]], withheld: Sequence[int], count: int) -> list[int]:
    """At most `count` images with more than one class: with seen and unseen ones first, then those of most classes.

    Args:
      present: 0-based classes of every image.
      withheld: the unseen ones.
      count: how many.
    """

    def both(i: int) -> bool:
        unseen = set(present[i]).intersection(withheld)
        return 0 < len(unseen) < len(present[i])

    many = [i for i in range(len(present)) if len(present[i]) > 1]
    return sorted(many, key=lambda i: (not both(i), -len(present[i]), i))[:count]


def best_median_worst(ranked: Sequence[Item], count: int) -> dict[str, Sequence[Item]]:
    """The first, the middle and the last `count` of a ranking from good to bad; fewer where they would meet."""
    count = min(count, max(1, len(ranked) // 3))
    middle = max(0, (len(ranked) - count) // 2)
    return {
        "Best": ranked[:count],
        "Median": ranked[middle : middle + count],
        "Worst": ranked[max(0, len(ranked) - count) :],
    }
