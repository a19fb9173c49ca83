"""Values of a remapped label map, all that training sees: 0 `others`, 1..S the seen classes, and two kinds of void."""

from jaxtyping import Array, Bool, UInt8

VOID = 255  # not annotated; under a thin band of it runs an outline
IGNORED = 254  # unseen classes' pixels, and padding: under it nothing is asked for, however thin it is


def is_void(labels: UInt8[Array, "*S"]) -> Bool[Array, "*S"]:
    """Pixels of either void, which no loss looks at."""
    return labels >= IGNORED
