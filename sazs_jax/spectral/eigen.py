"""Eigenvectors of the Laplacian of an affinity matrix (paper 3.4), batched under jit: a dense and a partial solver.

The problem is (D - Z) x = l D x, D the diagonal of the degrees (Shi and Malik, 2000; Melas-Kyriazi et al., 2022). With
y = D^1/2 x it is that of S = D^-1/2 Z D^-1/2, whose largest eigenvalues are 1 - l. The trivial solution, x constant
and l = 0, is known and taken out of S beforehand, so what either solver returns begins with the first other one.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SOLVERS = ("eigh", "subspace")
GUARD = 11  # vectors that the partial solver carries beyond those asked for; they set its speed of convergence
ROUNDS = 8  # of the partial solver, with a filter of degree 2, on every graph
STEEPEST = 8  # degree of its filter in the rounds that a graph gets beyond these; even
MORE_ROUNDS = 16  # such rounds at most
RESIDUAL = 1e-5  # |S y - (1 - l) y| that needs no more of them: a gap of 1e-3 in the spectrum then leaves 0.01 rad


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
        a Chebyshev filter (Zhou et al., 2006), 2 * ROUNDS products with S, all in float32; where a residual is then
        above RESIDUAL, as where colour dominates the affinity, up to MORE_ROUNDS * STEEPEST products more.

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
            values, vectors = _subspace_iteration(s, trivial, count, min(count + GUARD, nodes - 1))
    values, vectors = values[:, : -count - 1 : -1], vectors[..., : -count - 1 : -1]
    return Eigenvectors(1 - values, _fix_sign(vectors / root[..., None]), degrees)


class _Ritz(NamedTuple):
    """What a subspace knows of the eigenpairs of S."""

    values: Float[Array, "B block"]  # ascending
    vectors: Float[Array, "B N block"]  # orthonormal
    residual: Float[Array, "B"]  # the largest of those asked for


def _subspace_iteration(
    s: Float[Array, "B N N"], trivial: Float[Array, "B N"], count: int, block: int
) -> tuple[Float[Array, "B block"], Float[Array, "B N block"]]:
    """Ritz values, ascending, and vectors of `s`, orthogonal to `trivial`; the largest `count` have converged."""
    batch, nodes, _ = s.shape

    def first_round(x, _):
        product = s @ x
        lengths = jnp.linalg.norm(product, axis=1)
        return _orthonormal(_filtered(s, x, product, _bound(lengths), jnp.full(batch, 2), 2), trivial), None

    def more_rounds(state):
        rounds, ritz = state
        sizes = jnp.abs(ritz.values)
        bound = _bound(sizes)
        # As steep as float32 can bear: beyond a ratio of 2000 the columns would become parallel.
        steepness = jnp.arccosh(2000.0) / jnp.arccosh(jnp.maximum(sizes.max(axis=-1) / bound, 1.001))
        degree = jnp.clip(2 * (steepness // 2), 2, STEEPEST).astype(int)
        x = _filtered(s, ritz.vectors, s @ ritz.vectors, bound, degree, STEEPEST)
        further = _rayleigh_ritz(s, _orthonormal(x, trivial), count)
        # A graph that is through stays as it is, so that what it gets does not depend on its batch.
        through = ritz.residual <= RESIDUAL
        return rounds + 1, jax.tree.map(
            lambda old, new: jnp.where(through.reshape(-1, *[1] * (old.ndim - 1)), old, new), ritz, further
        )

    start = jax.random.normal(jax.random.key(0), (nodes, block))
    x = _orthonormal(jnp.broadcast_to(start, (batch, nodes, block)), trivial)
    x, _ = jax.lax.scan(first_round, x, None, length=ROUNDS)
    _, ritz = jax.lax.while_loop(
        lambda state: (state[0] < MORE_ROUNDS) & jnp.any(state[1].residual > RESIDUAL),
        more_rounds,
        (0, _rayleigh_ritz(s, x, count)),
    )
    return ritz.values, ritz.vectors


def _bound(sizes: Float[Array, "B block"]) -> Float[Array, "B"]:
    """Up to which size of eigenvalue the filter damps: the block's smallest.

    Not far below its largest, or the columns would become parallel to float32.
    """
    return jnp.maximum(sizes.min(axis=-1), 0.03 * sizes.max(axis=-1) + 1e-6)


def _filtered(
    s: Float[Array, "B N N"],
    x: Float[Array, "B N K"],
    product: Float[Array, "B N K"],
    bound: Float[Array, "B"],
    degree: Int[Array, "B"],
    steepest: int,
) -> Float[Array, "B N K"]:
    """T_m(S / bound) x with columns of length 1: T_m is at most 1 below the bound and grows fast beyond.

    Args:
      s: S.
      x: what is filtered.
      product: s @ x.
      bound: of each graph.
      degree: m of each graph, 1 to `steepest`.
      steepest: the largest m; the cost is that of it.
    """
    bound, degree = bound[:, None, None], degree[:, None, None]
    before, now = x, product / bound
    for reached in range(1, steepest):
        following = 2 * (s @ now) / bound - before
        before, now = now, jnp.where(reached < degree, following, now)
    return now / jnp.maximum(jnp.linalg.norm(now, axis=1, keepdims=True), 1e-30)


def _rayleigh_ritz(s: Float[Array, "B N N"], x: Float[Array, "B N K"], count: int) -> _Ritz:
    product = s @ x
    small = jnp.einsum("bnk,bnl->bkl", x, product)
    values, rotation = jnp.linalg.eigh((small + small.swapaxes(1, 2)) / 2)
    vectors = x @ rotation
    errors = (product @ rotation - values[:, None] * vectors)[..., -count:]
    return _Ritz(values, vectors, jnp.linalg.norm(errors, axis=1).max(axis=-1))


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
