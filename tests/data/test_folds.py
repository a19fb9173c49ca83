import numpy as np
import pytest

from data.folds import (
    NO_FOLD,
    VOC_CLASSES,
    contiguous_folds,
    interleaved_folds,
    is_selection,
    pairs_by_pixels,
    training_lookup,
    unseen_classes,
)
from sazs_jax.errors import UserError

PASCAL = contiguous_folds(20)


def test_pascal_folds_are_contiguous():
    assert [VOC_CLASSES[c] for c in unseen_classes(PASCAL, 1)] == ["bus", "car", "cat", "chair", "cow"]
    assert sum((unseen_classes(PASCAL, fold) for fold in range(4)), ()) == tuple(range(20))


def test_cocos_folds_are_interleaved():
    folds = interleaved_folds(80)
    assert unseen_classes(folds, 0) == tuple(range(0, 77, 4))
    assert unseen_classes(folds, 3) == tuple(range(3, 80, 4))
    assert sorted(sum(folds, ())) == list(range(80))


def test_no_fold_leaves_nothing_unseen():
    assert unseen_classes(PASCAL, NO_FOLD) == ()


@pytest.mark.parametrize("fold", [7, 4, -2])
def test_fold_out_of_range(fold):
    with pytest.raises(UserError, match=rf"data\.fold is {fold}; expected one of 0\.\.3"):
        unseen_classes(PASCAL, fold)


@pytest.mark.parametrize(("unseen_pixels", "unseen_becomes"), [("ignore", 254), ("drop", 254), ("others", 0)])
def test_lookup(unseen_pixels, unseen_becomes):
    lookup = training_lookup(8, (2, 3), unseen_pixels)  # seen 0 1 4 5 6 7
    on_disk = np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 255])
    assert lookup[on_disk].tolist() == [0, 1, 2, unseen_becomes, unseen_becomes, 3, 4, 5, 6, 255]
    assert (lookup[9:] == 255).all()


@pytest.mark.parametrize("unseen_pixels", ["ignore", "drop", "others"])
def test_lookup_hides_which_unseen_class_a_pixel_holds(unseen_pixels):
    unseen = unseen_classes(PASCAL, 1)
    label = np.random.default_rng(0).integers(0, 21, (30, 30))
    permuted = label.copy()
    for before, after in zip(unseen, np.roll(unseen, 2), strict=True):
        permuted[label == before + 1] = after + 1
    lookup = training_lookup(20, unseen, unseen_pixels)
    assert (permuted != label).any()
    np.testing.assert_array_equal(lookup[permuted], lookup[label])


def test_unknown_treatment_of_unseen_pixels():
    with pytest.raises(UserError, match=r"loss\.unseen_pixels is 'keep'; expected one of ignore, others, drop"):
        training_lookup(20, (0,), "keep")


def test_selection_is_a_fixed_tenth():
    ids = [f"2008_{i:06d}" for i in range(5000)]
    assert 0.09 < np.mean([is_selection(i) for i in ids]) < 0.11
    # Pinned: another hash would let a restarted run train on its selection images.
    assert [i[-2:] for i in ids if is_selection(i)][:4] == ["02", "07", "09", "12"]  # as sha256sum gives


def test_pairs_by_pixels():
    counts = np.zeros((3, 20), int)
    counts[2, 0], counts[0, 0], counts[1, 7], counts[0, 8] = 2048, 4000, 2047, 2048
    assert pairs_by_pixels(counts, 2048, PASCAL) == {0: [(0, 0), (2, 0)], 1: [(0, 8)], 2: [], 3: []}
