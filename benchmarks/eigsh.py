"""The eigenproblem of paper 3.4 by SciPy's `eigsh` on the CPU: the peer of our solvers."""

import numpy as np
from jaxtyping import Float
from scipy.sparse.linalg import eigsh


def largest(z: Float[np.ndarray, "N N"], count: int) -> Float[np.ndarray, "count"]:
    """The `count` smallest non-trivial l of (D - Z) x = l D x, ascending.

    From the largest eigenvalues of D^-1/2 Z D^-1/2, which needs no factorisation: the faster of the two ways.
    """
    root = np.sqrt(z.sum(axis=-1))
    values, _ = eigsh(z / (root[:, None] * root), k=count + 1, which="LA", v0=root)
    return np.sort(1 - values)[1:]


def shift_invert(z: Float[np.ndarray, "N N"], count: int) -> Float[np.ndarray, "count"]:
    """The same by shift and invert about 0, as the published code of deep spectral methods does."""
    degrees = np.diag(z.sum(axis=-1))
    values, _ = eigsh(degrees - z, k=count + 1, sigma=0, which="LM", M=degrees)
    return np.sort(values)[1:]
