import dataclasses
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import data
from data.codecs import encode_png
from data.datasets import Split
from data.folds import training_lookup
from data.loading import labelled_images, training_batches
from data.parallel import ordered_map
from sazs_jax.errors import UserError
from sazs_jax.label_map import IGNORED

NUM_IMAGES = 10
IDENTITY = np.arange(256, dtype=np.uint8)


@pytest.fixture
def numbered() -> Split:
    """Image i is of grey 20 i and all of class i + 1, 32 pixels a side."""
    return Split(
        source=[
            {
                "image": encode_png(np.full((32, 32, 3), 20 * i, np.uint8)),
                "label": encode_png(np.full((32, 32), i + 1, np.uint8)),
                "image_id": f"image_{i}",
            }
            for i in range(NUM_IMAGES)
        ],
        image_ids=tuple(f"image_{i}" for i in range(NUM_IMAGES)),
        present=tuple((i,) for i in range(NUM_IMAGES)),
        pair_list={0: [(i, i) for i in range(NUM_IMAGES)]},
    )


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def numbers(batches):
    """Which image each example is of, by its (unmixed) label."""
    return [int(label[label < IGNORED][0]) - 1 for batch in batches for label in batch["label"]]


def assert_same(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        for key in ("image", "label"):
            np.testing.assert_array_equal(batch[key], other[key])


def test_batches(numbered, data_config):
    batches = training_batches(numbered, range(NUM_IMAGES), IDENTITY, data_config(""), seed=0)
    for batch in take(batches, 3):
        assert batch["image"].shape == (4, 32, 32, 3)
        assert batch["label"].shape == (4, 32, 32)
        assert batch["image"].dtype == batch["label"].dtype == np.uint8


def test_an_epoch_walks_each_image_once_in_a_new_order(numbered, data_config):
    config = data_config("", batch_size=5)
    indices = [1, 2, 3, 5, 8, 9]
    seen = numbers(take(training_batches(numbered, indices, IDENTITY, config, seed=0), 12))
    epochs = [seen[i : i + 6] for i in range(0, 60, 6)]
    assert all(sorted(epoch) == indices for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 5


def test_views_differ_from_epoch_to_epoch_and_seeds_differ(numbered, data_config):
    config = data_config("", batch_size=1)
    views = take(training_batches(numbered, [3], IDENTITY, config, seed=0), 8)
    assert len({view["image"].tobytes() for view in views}) > 5
    other = next(training_batches(numbered, [3], IDENTITY, config, seed=1))
    assert (other["image"] != views[0]["image"]).any()


def test_label_maps_alone_are_those_that_come_with_images(numbered, data_config):
    whole, alone = (
        training_batches(numbered, range(NUM_IMAGES), IDENTITY, data_config(""), seed=0, labels_only=labels_only)
        for labels_only in (False, True)
    )
    for batch, labels in zip(take(whole, 3), take(alone, 3), strict=True):
        assert set(labels) == {"label"}
        np.testing.assert_array_equal(labels["label"], batch["label"])


def test_the_label_is_remapped_before_anything_else(numbered, data_config):
    """Unseen classes never leave the loader, and which one a pixel held cannot be told."""
    lookup = training_lookup(10, (2, 3, 4), "ignore")
    batches = training_batches(numbered, range(NUM_IMAGES), lookup, data_config("", batch_size=10), seed=0)
    for batch in take(batches, 4):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            assert set(np.unique(label)) <= {1, 2, 3, 4, 5, 6, 7, IGNORED}
            assert len(set(np.unique(label)) - {IGNORED}) <= 1
            assert image.shape == (32, 32, 3)
    permuted = dataclasses.replace(numbered, source=list(numbered.source))
    for i, j in ((2, 3), (3, 4), (4, 2)):
        permuted.source[i] = {**numbered.source[i], "label": numbered.source[j]["label"]}  # pyright: ignore
    config = data_config("", batch_size=10)
    one, other = (take(training_batches(s, range(10), lookup, config, seed=0), 3) for s in (numbered, permuted))
    assert_same(one, other)


@pytest.mark.parametrize("process_count", [2, 4])
def test_processes_share_the_same_batches(numbered, data_config, process_count):
    config = data_config("", batch_size=8)
    whole = take(training_batches(numbered, range(NUM_IMAGES), IDENTITY, config, seed=5), 4)
    shares = [
        take(
            training_batches(
                numbered,
                range(NUM_IMAGES),
                IDENTITY,
                config,
                seed=5,
                process_index=process,
                process_count=process_count,
            ),
            4,
        )
        for process in range(process_count)
    ]
    for step, batch in enumerate(whole):
        for key in ("image", "label"):
            assert all(share[step][key].shape[0] == 8 // process_count for share in shares)
            joined = np.concatenate([share[step][key] for share in shares])
            assert Counter(x.tobytes() for x in joined) == Counter(x.tobytes() for x in batch[key])


def test_state_restores_the_place_exactly(numbered, data_config):
    def fresh():
        return training_batches(numbered, range(NUM_IMAGES), IDENTITY, data_config(""), seed=3)

    iterator = fresh()
    take(iterator, 7)  # in the middle of an epoch
    state = json.loads(json.dumps(iterator.get_state()))
    rest = take(iterator, 6)
    restored = fresh()
    restored.set_state(state)
    assert_same(take(restored, 6), rest)
    assert_same(take(fresh(), 13)[7:], rest)


@pytest.mark.parametrize("restore", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_worker_processes_give_the_same_batches_from_a_plain_script(make_devkit, data_config, tmp_path, restore):
    """Run as a user's script is: flags not parsed, workers spawned anew."""
    config = data_config(make_devkit().root)
    script = tmp_path / "script.py"
    script.write_text(
        "import sys, hashlib, json\n"
        "import numpy as np\n"
        "from ml_collections import ConfigDict\n"
        "import data\n"
        "from data.folds import training_lookup\n"
        "from data.loading import training_batches\n"
        "def batches(workers):\n"
        f"    config = ConfigDict({config.to_dict()!r})\n"
        "    config.num_workers = workers\n"
        "    d = data.load(config)\n"
        "    lookup = training_lookup(20, d.unseen(1), 'ignore')\n"
        "    return training_batches(d.train, d.train_indices(1, 'ignore'), lookup, config, seed=0)\n"
        "def digest(iterator, n):\n"
        "    return [hashlib.sha256(b['image'].tobytes() + b['label'].tobytes()).hexdigest()\n"
        "            for b in (next(iterator) for _ in range(n))]\n"
        "if __name__ == '__main__':\n"
        "    expected = digest(batches(0), 6)\n"
        "    iterator = batches(2)\n"
        "    assert digest(iterator, 3) == expected[:3]\n"
        f"    if {restore}:\n"
        "        state = iterator.get_state()\n"
        "        iterator.close()\n"
        "        iterator = batches(2)\n"
        "        iterator.set_state(state)\n"
        "    assert digest(iterator, 3) == expected[3:]\n"
        "    iterator.close()\n"
        "    print('same')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(data.__file__).parents[1])}
    result = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert result.stdout == "same\n", result.stderr


def test_errors(numbered, data_config):
    with pytest.raises(UserError, match="no image to train on"):
        training_batches(numbered, [], IDENTITY, data_config(""), seed=0)
    with pytest.raises(UserError, match=r"data\.batch_size is 4; expected a multiple of the 3 processes"):
        training_batches(numbered, [0], IDENTITY, data_config(""), seed=0, process_count=3)


def test_labelled_images_keep_their_order(numbered):
    episodes = {7: {2: 1, 5: 3}, 1: {0: 1}}
    images = list(labelled_images(numbered, [7, 1, 4], episodes, num_threads=3))
    assert [image.image_id for image in images] == ["image_7", "image_1", "image_4"]
    assert [image.episodes for image in images] == [{2: 1, 5: 3}, {0: 1}, {}]
    assert (images[0].image == 140).all()
    assert (images[0].label == 8).all()


def test_ordered_map_works_ahead_by_a_bounded_distance():
    started = []

    def slow_first(i):
        started.append(i)
        time.sleep(0.02 if i == 0 else 0)
        return i

    results = ordered_map(slow_first, range(1000), num_threads=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    assert len(started) < 20
    results.close()  # pyright: ignore[reportAttributeAccessIssue]


def test_ordered_map_raises_where_the_result_would_have_come():
    results = ordered_map(lambda i: 1 // (i - 2), range(5), num_threads=2)
    assert [next(results), next(results)] == [-1, -1]
    with pytest.raises(ZeroDivisionError):
        next(results)
