"""Both solvers against SciPy's shift-invert eigsh on the same matrices, hard cases included."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy.linalg import subspace_angles
from scipy.sparse.linalg import eigsh

from configs import defaults
from sazs_jax.spectral.affinity import SELF_AFFINITY, affinity, colour_positions
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


def check(z: np.ndarray, solver: str) -> None:
    """Eigenvalues to 1e-4; the space of the vectors to 0.01 rad, as far as gaps in the spectrum define it.

    Eigenvalues nearer than 1e-3 count as equal: their vectors are compared as one space, and one that the last gap
    cuts off is left out.
    """
    values, vectors = reference(z, COUNT)
    found = laplacian_eigenvectors(jnp.asarray(z, jnp.float32)[None], count=COUNT, solver=solver)
    assert np.isfinite(found.vectors).all()
    np.testing.assert_allclose(found.values[0], values[1 : COUNT + 1], atol=1e-4)
    gaps = np.flatnonzero(np.diff(values[: COUNT + 2]) > 1e-3)  # a gap after value i
    first, last = (gaps[0], gaps[-1]) if len(gaps) else (COUNT, COUNT)
    root = np.sqrt(z.sum(axis=1))[:, None]
    if last > first:  # with an eigenvalue 0 of several pieces, the trivial vector lies in the space of all of them
        ours = np.concatenate([np.ones((len(z), 1)), found.vectors[0, :, :last]], axis=1)
        angle = subspace_angles(root * ours, root * vectors[:, : last + 1]).max()
        assert angle < 0.01
    gram = np.asarray(found.vectors[0]).T @ (z.sum(axis=1)[:, None] * np.asarray(found.vectors[0]))
    np.testing.assert_allclose(gram, np.eye(COUNT), atol=1e-4)  # x^T D x = 1
    positive = (np.asarray(found.vectors[0]) > 0).mean(axis=0)
    assert (positive <= 0.5).all()


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


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("kind", ["clusters", "one colour", "several pieces", "repeated", "nothing"])
def test_equals_shift_invert_eigsh(kind, solver):
    unit = features_of(kind)
    unit = unit / np.maximum(np.linalg.norm(unit, axis=1, keepdims=True), 1e-9)
    check(np.maximum(unit @ unit.T, 0) + SELF_AFFINITY * np.eye(len(unit)), solver)


@pytest.mark.parametrize("solver", SOLVERS)
def test_an_image_of_one_colour(solver):
    images = np.full((1, 24, 24, 3), 90, np.uint8)
    z = affinity(jnp.ones((1, 144, 4)), colour_positions(jnp.asarray(images), 12), color_weight=1.0, neighbours=8)
    check(np.asarray(z[0]), solver)


def test_the_same_vectors_and_signs_each_time_and_in_any_batch():
    unit = features_of("clusters")
    unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
    z = jnp.asarray(np.maximum(unit @ unit.T, 0), jnp.float32)
    for solver in SOLVERS:
        alone = laplacian_eigenvectors(z[None], count=COUNT, solver=solver).vectors[0]
        again = laplacian_eigenvectors(z[None], count=COUNT, solver=solver).vectors[0]
        np.testing.assert_array_equal(alone, again)
        batch = laplacian_eigenvectors(jnp.stack([z.T + 0.1, z]), count=COUNT, solver=solver).vectors[1]
        np.testing.assert_allclose(batch, alone, atol=2e-4)


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
    features = Features(config)(images)
    for color_weight in (0.0, 1.0):
        z = affinity(features, colour_positions(images, config.grid), color_weight=color_weight, neighbours=20)
        for one in np.asarray(z):
            for solver in SOLVERS:
                check(one, solver)


@pytest.mark.slow
def test_segments_of_both_solvers_agree_on_a_hundred_photographs(sazs_data, capsys):
    config = defaults.get_config().spectral
    config.features = "lite"
    agreement = []
    images = photographs(sazs_data, 100)
    for color_weight in (0.0, 1.0):
        config.color_weight = color_weight
        found = []
        for solver in SOLVERS:
            config.solver = solver
            segmenter = Eigensegmenter(config)
            masks = [eigensegments(segmenter(images[i : i + 10], None), (240, 240), COUNT) for i in range(0, 100, 10)]
            found.append(np.concatenate(masks))
        agreement.append((found[0] == found[1]).mean())
        with capsys.disabled():
            print(f"\ncolor_weight {color_weight}: segments agree on {100 * agreement[-1]:.3f}% of the pixels")
    assert min(agreement) >= 0.99
