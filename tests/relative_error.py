"""The measure of every comparison with PyTorch."""

import numpy as np


def relative_error(value, expected) -> float:
    """Norm of the difference over the norm of what is expected."""
    expected = np.asarray(expected, np.float64)
    value = np.asarray(value, np.float64)
    assert value.shape == expected.shape
    return float(np.linalg.norm(value - expected) / np.linalg.norm(expected))
