import itertools

import numpy as np
import pytest

from sazs_jax.errors import UserError
from sazs_jax.pretrained.random_clip_text import write_random_tower
from sazs_jax.text import TextTower

COLOURS = ("red", "green", "blue", "yellow", "white")
# "ring" ends "string" and shares pairs of letters with "triangle": merges must not get in each other's way.
SHAPES = ("circle", "square", "triangle", "ring", "string")
PAIRS = list(itertools.product(COLOURS, SHAPES))


@pytest.fixture(scope="module")
def tower(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tower")
    write_random_tower(directory, [*COLOURS, *SHAPES, "others"])
    return TextTower.load(str(directory), ("{}",))


@pytest.fixture(scope="module")
def pair_cosines(tower):
    units = tower.embed([f"{colour} {shape}" for colour, shape in PAIRS])
    return units @ units.T


def test_every_word_is_one_token(tower):
    for word in (*COLOURS, *SHAPES, "others"):
        assert len(tower._tokenizer(word)["input_ids"]) == 3  # start, word, end


def test_pairs_are_as_near_as_the_words_that_they_share(pair_cosines):
    for (i, a), (j, b) in itertools.combinations(enumerate(PAIRS), 2):
        shared = len(set(a) & set(b))
        assert abs(pair_cosines[i, j] - 0.5 * shared) < 0.05


def test_a_pair_is_the_sum_of_its_words(tower):
    pairs = tower.embed([f"{colour} {shape}" for colour, shape in PAIRS])
    sums = np.stack([tower.embed(pair).sum(axis=0) for pair in PAIRS])
    sums /= np.linalg.norm(sums, axis=1, keepdims=True)
    assert ((pairs * sums).sum(axis=1) > 0.99).all()


def test_others_is_far_from_every_pair(tower):
    pairs = tower.embed([" ".join(pair) for pair in PAIRS])
    assert np.abs(pairs @ tower.embed(["others"])[0]).max() < 0.1


def test_unknown_words_are_spelt_and_have_embeddings_of_their_own(tower):
    a, b, red = tower.embed(["zebra", "7 Ünïted", "red"])
    assert max(a @ b, a @ red, b @ red) < 0.9


def test_the_same_seed_writes_the_same_files(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_tower(tmp_path / name, ["red", "circle"], dim=32, seed=seed)
    contents = {
        name: [
            (tmp_path / name / file).read_bytes()
            for file in ("config.json", "model.safetensors", "vocab.json", "merges.txt")
        ]
        for name in "abc"
    }
    assert contents["a"] == contents["b"]
    assert contents["a"][1] != contents["c"][1]


def test_words_that_cannot_be_are_told(tmp_path):
    with pytest.raises(UserError, match="'stop sign' is not a word"):
        write_random_tower(tmp_path, ["stop sign"])
    with pytest.raises(UserError, match="40 words need a tower of at least 42 channels"):
        write_random_tower(tmp_path, [f"{a}{b}" for a in "abcde" for b in "stuvwxyz"], dim=32)
