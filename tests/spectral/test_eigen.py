"""Both solvers against SciPy's shift-invert eigsh on the same matrices, hard cases included."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.linalg import subspace_angles
from scipy.sparse.linalg import eigsh

from configs import defaults
from sazs_jax.spectral.affinity import SELF_AFFINITY, affinity, colour_positions, shape_affinity
from sazs_jax.spectral.eigen import laplacian_eigenvectors
from sazs_jax.spectral.eigensegmenter import Eigensegmenter
from sazs_jax.spectral.features import Features
from sazs_jax.spectral.segments import eigensegments

COUNT = 5
SOLVERS = ("eigh", "subspace")


def reference(z: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (count + 2) and vectors of (D - Z) x = l D x, ascending, the trivial one first; double precision."""
    z = z.astype(np.float64)
    degrees = z.sum(axis=1)
    values, vectors = eigsh(np.diag(degrees) - z, k=count + 2, M=np.diag(degrees), sigma=-1e-3, which="LM")
    order = np.argsort(values)
    return values[order], vectors[:, order]


def check(z: np.ndarray) -> None:
    """Of both solvers: eigenvalues to 1e-4; spaces and single vectors to 0.01 rad, where the spectrum defines them.

    A gap of 1e-3 or more between neighbouring eigenvalues defines the space of all vectors before it (the trivial one
    among them: with an eigenvalue 0 of several pieces, it lies in the space of all of these). A vector with such gaps
    on both sides is defined by itself. That the others are eigenvectors, of norm 1 and orthogonal, holds anyway.
    """
    values, vectors = reference(z, COUNT)
    degrees = z.sum(axis=1, dtype=np.float64)
    root = np.sqrt(degrees)[:, None]
    gap = np.diff(values) >= 1e-3  # after value i
    for solver in SOLVERS:
        found = laplacian_eigenvectors(jnp.asarray(z, jnp.float32)[None], count=COUNT, solver=solver)
        ours = np.concatenate([np.full((len(z), 1), degrees.sum() ** -0.5), found.vectors[0]], axis=1)
        np.testing.assert_allclose(found.values[0], values[1 : COUNT + 1], atol=1e-4)
        np.testing.assert_allclose(ours.T @ (degrees[:, None] * ours), np.eye(COUNT + 1), atol=1e-4)  # x^T D x = 1
        error = (degrees[:, None] * ours - z @ ours) / root - root * ours * [0, *found.values[0]]
        assert np.linalg.norm(error, axis=0).max() < 5e-5  # (D - Z) x = l D x
        for i in range(1, COUNT + 1):
            if gap[i]:
                assert subspace_angles(root * ours[:, : i + 1], root * vectors[:, : i + 1]).max() < 0.01
            if gap[i - 1] and gap[i]:
                assert subspace_angles(root * ours[:, i : i + 1], root * vectors[:, i : i + 1]).max() < 0.01
        assert ((ours[:, 1:] > 0).mean(axis=0) <= 0.5).all()


def features_of(kind: str, nodes: int = 144) -> np.ndarray:
    rng = np.random.default_rng(0)
    if kind == "clusters":
        return rng.normal(size=(6, 32))[rng.integers(6, size=nodes)] + 0.6 * rng.normal(size=(nodes, 32))
    if kind == "one colour":
        return np.ones((nodes, 8))
    if kind == "several pieces":  # orthogonal groups: the eigenvalue 0 four times, each piece's own equal ones after
        return np.eye(4)[np.arange(nodes) % 4]
    if kind == "repeated":  # the same cluster structure twice, apart
        half = np.abs(rng.normal(size=(nodes // 2, 16)))
        return np.block([[half, 0 * half], [0 * half, half]])
    if kind == "nothing":
        return np.zeros((nodes, 4))
    raise ValueError(kind)


@pytest.mark.parametrize("kind", ["clusters", "one colour", "several pieces", "repeated", "nothing"])
def test_equals_shift_invert_eigsh(kind):
    unit = features_of(kind)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    check(np.maximum(unit @ unit.T, 0) + SELF_AFFINITY * np.eye(len(unit)))


def test_an_image_of_one_colour():
    images = np.full((1, 24, 24, 3), 90, np.uint8)
    z = affinity(jnp.ones((1, 144, 4)), colour_positions(jnp.asarray(images), 12), color_weight=1.0, neighbours=8)
    check(np.asarray(z[0]))


def test_the_same_vectors_and_signs_each_time_and_in_any_batch():
    unit = features_of("clusters")
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    z = jnp.asarray(np.maximum(unit @ unit.T, 0), jnp.float32)
    near = np.abs(np.subtract.outer(np.arange(len(z)), np.arange(len(z)))) <= 9
    chain = jnp.asarray(near, jnp.float32)  # on which the partial solver needs more rounds
    for solver in SOLVERS:
        alone = laplacian_eigenvectors(z[None], count=COUNT, solver=solver).vectors[0]
        again = laplacian_eigenvectors(z[None], count=COUNT, solver=solver).vectors[0]
        np.testing.assert_array_equal(alone, again)
        batch = laplacian_eigenvectors(jnp.stack([chain, z]), count=COUNT, solver=solver).vectors[1]
        np.testing.assert_allclose(batch, alone, atol=1e-3 * np.abs(alone).max())


def test_bad_arguments():
    z = jnp.ones((1, 4, 4))
    with pytest.raises(ValueError, match="solver='lanczos'"):
        laplacian_eigenvectors(z, count=2, solver="lanczos")
    with pytest.raises(ValueError, match="count=4"):
        laplacian_eigenvectors(z, count=4, solver="eigh")


def photographs(sazs_data, number: int, side: int = 240) -> np.ndarray:
    root = sazs_data / "voc_animals"
    names = (root / "ImageSets/Segmentation/val.txt").read_text().split()[:number]
    return np.stack(
        [np.array(Image.open(root / f"JPEGImages/{n}.jpg").convert("RGB").resize((side, side))) for n in names]
    )


def test_photographs_against_eigsh(sazs_data):
    images = jnp.asarray(photographs(sazs_data, 2))
    config = defaults.get_config().spectral
    config.features = "lite"
    features, x = Features(config)(images), colour_positions(images, config.grid)
    for color_weight in (0.0, 1.0):
        for z in np.asarray(affinity(features, x, color_weight=color_weight, neighbours=20)):
            check(z)
    check(np.asarray(affinity(features[:1], x[:1], color_weight=100.0, neighbours=20)[0]))
    shape_alone = np.asarray(shape_affinity(x[:1], 20)[0])  # a row of the paper's Table 6
    check(shape_alone + SELF_AFFINITY * np.eye(len(shape_alone)))


@pytest.mark.slow
def test_both_solvers_agree_on_a_hundred_photographs(sazs_data, capsys):
    config = defaults.get_config().spectral
    config.features = "lite"
    images = photographs(sazs_data, 100)
    for color_weight in (0.0, 1.0):
        config.color_weight = color_weight
        vectors, masks = [], []
        for solver in SOLVERS:
            config.solver = solver
            segmenter = Eigensegmenter(config)
            found = [segmenter(images[i : i + 10], None) for i in range(0, 100, 10)]
            masks.append(np.concatenate([eigensegments(eigen, (240, 240), COUNT) for eigen in found]))
            vectors += [np.concatenate([np.sqrt(e.degrees)[..., None] * e.vectors[..., :COUNT] for e in found])]
        agreement = (masks[0] == masks[1]).mean()
        angles = [subspace_angles(*pair).max() for pair in zip(*np.asarray(vectors, np.float64), strict=True)]
        with capsys.disabled():
            print(
                f"\ncolor_weight {color_weight}: segments agree on {100 * agreement:.3f}% of the pixels; the spaces of "
                f"{COUNT} vectors are within {np.max(angles):.1e} rad of each other (median {np.median(angles):.1e})"
            )
        assert agreement >= 0.99
