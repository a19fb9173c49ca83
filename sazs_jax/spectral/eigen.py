"""Eigenvectors of the Laplacian of an affinity matrix (paper 3.4), batched under jit: a dense and a partial solver.

The problem is (D - Z) x = l D x, D the diagonal of the degrees (Shi and Malik, 2000; Melas-Kyriazi et al., 2022). With
y = D^1/2 x it is that of S = D^-1/2 Z D^-1/2, whose largest eigenvalues are 1 - l. The trivial solution, x constant
and l = 0, is known and taken out of S beforehand, so what either solver returns begins with the first other one.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SOLVERS = ("eigh", "subspace")
GUARD = 11  # vectors that the partial solver carries beyond those asked for; they set its speed of convergence
ROUNDS = 8  # of the partial solver
DEGREE = 2  # of its filter; even


class Eigenvectors(NamedTuple):
    """The first non-trivial solutions, ascending by eigenvalue."""

    values: Float[Array, "B K"]  # l, in [0, 2]
    vectors: Float[Array, "B N K"]  # x, with x^T D x = 1
    degrees: Float[Array, "B N"]  # the diagonal of D


@partial(jax.jit, static_argnames=("count", "solver"))
def laplacian_eigenvectors(z: Float[Array, "B N N"], *, count: int, solver: str) -> Eigenvectors:
    """The `count` eigenvectors of smallest eigenvalue beyond the trivial one.

    A vector's sign is such that at most half of it is positive (of two equal halves, the first node's is negative).
    Where eigenvalues are equal, or nearer than float32 tells, only the space of their vectors is defined: any basis of
    it may be returned, the same one each time.

    Args:
      z: affinities, symmetric, not negative, every row's sum above 0.
      count: at most N - 1.
      solver: `eigh`, dense: LAPACK's on a CPU, cuSOLVER's on a GPU. `subspace`, partial: block subspace iteration with
        a Chebyshev filter (Zhou et al., 2006), ROUNDS * DEGREE products with S, all in float32.

    Raises:
      ValueError: an unknown solver, or a count that the graph does not have.
    """
    nodes = z.shape[1]
    if solver not in SOLVERS or not 0 < count < nodes:
        raise ValueError(f"solver={solver!r} and count={count}: expected one of {SOLVERS} and 1 to {nodes - 1}")
    with jax.default_matmul_precision("highest"):
        degrees = z.sum(axis=-1)
        root = jnp.sqrt(degrees)
        trivial = root / jnp.linalg.norm(root, axis=-1, keepdims=True)
        s = z / (root[:, :, None] * root[:, None]) - trivial[:, :, None] * trivial[:, None]
        if solver == "eigh":
            # Below every other eigenvalue, so that in a graph of several pieces it does not mix with those of 1.
            values, vectors = jnp.linalg.eigh(s - trivial[:, :, None] * trivial[:, None])
        else:
            values, vectors = _subspace_iteration(s, trivial, min(count + GUARD, nodes - 1))
    values, vectors = values[:, : -count - 1 : -1], vectors[..., : -count - 1 : -1]
    return Eigenvectors(1 - values, _fix_sign(vectors / root[..., None]), degrees)


def _subspace_iteration(
    s: Float[Array, "B N N"], trivial: Float[Array, "B N"], block: int
) -> tuple[Float[Array, "B block"], Float[Array, "B N block"]]:
    """Ritz values, ascending, and vectors of `s`, orthogonal to `trivial`; the largest have converged."""
    batch, nodes, _ = s.shape

    def filtered(x, _):
        product = s @ x
        # What is below the block's smallest value is damped: T_m is at most 1 there and grows fast beyond.
        lengths = jnp.linalg.norm(product, axis=1)
        # Not far below the largest, or the columns would become parallel to float32.
        bound = jnp.maximum(lengths.min(axis=-1), 0.03 * lengths.max(axis=-1) + 1e-6)[:, None, None]
        before, now = x, product / bound
        for _ in range(DEGREE - 1):
            before, now = now, 2 * (s @ now) / bound - before
        now = now / jnp.maximum(jnp.linalg.norm(now, axis=1, keepdims=True), 1e-30)
        return _orthonormal(now, trivial), None

    start = jax.random.normal(jax.random.key(0), (nodes, block))
    x = _orthonormal(jnp.broadcast_to(start, (batch, nodes, block)), trivial)
    x, _ = jax.lax.scan(filtered, x, None, length=ROUNDS)
    small = jnp.einsum("bnk,bnl->bkl", x, s @ x)
    values, rotation = jnp.linalg.eigh((small + small.swapaxes(1, 2)) / 2)
    return values, x @ rotation


def _orthonormal(x: Float[Array, "B N K"], trivial: Float[Array, "B N"]) -> Float[Array, "B N K"]:
    """An orthonormal basis of the columns' space less its part along `trivial`.

    By Cholesky factors of Gram matrices, so that nearly all of the work is products. The shift keeps the factors real
    where columns are nearly parallel (shifted CholeskyQR3, Fukaya et al., 2020).
    """
    x = x - trivial[..., None] * jnp.einsum("bn,bnk->bk", trivial, x)[:, None]
    identity = jnp.eye(x.shape[-1])
    for shift in (1e-6, 1e-7, 1e-7):
        gram = jnp.einsum("bnk,bnl->bkl", x, x)
        trace = jnp.trace(gram, axis1=1, axis2=2)[:, None, None]
        factor = jnp.linalg.cholesky(gram + shift * trace * identity)
        x = jax.lax.linalg.triangular_solve(factor, x, transpose_a=True, lower=True)
    return x


def _fix_sign(vectors: Float[Array, "B N K"]) -> Float[Array, "B N K"]:
    excess = 2 * jnp.sum(vectors > 0, axis=1, keepdims=True) - vectors.shape[1]
    flip = (excess > 0) | ((excess == 0) & (vectors[:, :1] > 0))
    return jnp.where(flip, -vectors, vectors)
