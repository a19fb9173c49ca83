import json
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from sazs_jax.errors import UserError
from sazs_jax.pretrained.random_clip_text import write_random_tower
from sazs_jax.text import AnchorTable, TextTower, check_compatible, open_text, text_source

NAMES = ["others", "airplane", "tvmonitor", "cat"]
ROWS = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


def save(path: Path, names=NAMES, embeddings: np.ndarray = ROWS, **more) -> Path:
    np.savez(path, names=np.asarray(names), embeddings=embeddings, **more)
    return path


@pytest.fixture
def path(tmp_path):
    return save(tmp_path / "anchors.npz")


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tower")
    write_random_tower(directory, ["red", "circle", "photo", "of"], dim=32)
    return str(directory)


# --- Tables ---


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_come_by_name_as_stored(tmp_path, dtype):
    table = AnchorTable.load(save(tmp_path / "a.npz", embeddings=ROWS.astype(dtype)))
    rows = table.embed(["cat", "others", "cat"])
    assert rows.dtype == np.float32
    np.testing.assert_array_equal(rows, ROWS[[3, 0, 3]])


def test_vocs_odd_names_find_everyday_ones_and_the_reverse(tmp_path):
    pairs = [
        ("aeroplane", "airplane"),
        ("diningtable", "dining table"),
        ("motorbike", "motorcycle"),
        ("pottedplant", "potted plant"),
        ("tvmonitor", "tv"),
    ]
    rows = np.eye(5, dtype=np.float32)
    for stored, asked in (zip(*pairs, strict=True), reversed(list(zip(*pairs, strict=True)))):
        table = AnchorTable.load(save(tmp_path / "a.npz", list(stored), rows))
        np.testing.assert_array_equal(table.embed(list(asked)), rows)


def test_a_name_of_its_own_comes_before_the_alias(tmp_path):
    table = AnchorTable.load(save(tmp_path / "a.npz", ["tv", "tvmonitor"], ROWS[:2]))
    np.testing.assert_array_equal(table.embed(["tvmonitor", "tv"]), ROWS[[1, 0]])


def test_all_missing_names_are_listed(path):
    with pytest.raises(UserError, match=r"anchors.npz lacks 'dog', 'motorbike'; take"):
        AnchorTable.load(path).embed(["cat", "dog", "motorbike", "tv"])


def test_the_digest_is_of_the_content(tmp_path, path):
    digest = AnchorTable.load(path).source["sha256"]
    again = AnchorTable.load(save(tmp_path / "b.npz", embeddings=ROWS.astype(np.float64)))
    assert again.source["sha256"] == digest
    other = AnchorTable.load(save(tmp_path / "c.npz", embeddings=ROWS + 1))
    assert other.source["sha256"] != digest


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"embeddings": ROWS[:3]}, r"expected embeddings \(K, D\) for K names; got \(3, 3\) for 4 names"),
        ({"embeddings": ROWS[0]}, r"expected embeddings \(K, D\)"),
        ({"names": [], "embeddings": ROWS[:0]}, r"expected embeddings \(K, D\)"),
        ({"embeddings": ROWS.astype(int)}, "are of type int64; expected floating point"),
        (
            {"embeddings": np.where(ROWS == 4, np.nan, ROWS).astype(np.float32)},
            "must be finite and not zero; not so for airplane",
        ),
        ({"embeddings": np.where(ROWS < 7, ROWS, 0).astype(np.float32)}, "not so for tvmonitor, cat"),
        ({"names": ["a", "b", "a", "c"]}, "repeated are a"),
    ],
)
def test_a_table_of_another_form_is_told(arrays, message, tmp_path):
    with pytest.raises(UserError, match=message):
        AnchorTable.load(save(tmp_path / "a.npz", **arrays))


def test_a_file_that_is_no_table_is_told(tmp_path, path):
    with pytest.raises(UserError, match="no such anchor table"):
        AnchorTable.load(tmp_path / "none.npz")
    with pytest.raises(UserError, match="expected an .npz of"):
        AnchorTable.load(tmp_path)
    broken = tmp_path / "broken.npz"
    for content in (path.read_bytes()[:-40], b"", b"text"):
        broken.write_bytes(content)
        with pytest.raises(UserError, match="expected an .npz of"):
            AnchorTable.load(broken)
    for arrays in ({"names": NAMES}, {"names": np.array(NAMES, object), "embeddings": ROWS}):
        np.savez(broken, allow_pickle=True, **arrays)
        with pytest.raises(UserError, match="expected an .npz of"):
            AnchorTable.load(broken)
    np.save(tmp_path / "one.npy", ROWS)
    with pytest.raises(UserError, match="expected an .npz of"):
        AnchorTable.load(tmp_path / "one.npy")


def test_the_lent_table_holds_every_voc_class(sazs_data):
    table = AnchorTable.load(sazs_data / "clip_anchors" / "vit_b32_a_name.npz")
    rows = table.embed(["others", "aeroplane", "diningtable", "motorbike", "pottedplant", "tvmonitor", "sofa"])
    assert rows.shape == (7, table.dim) == (7, 512)
    assert table.source["templates"] is None


# --- Tower ---


def test_an_embedding_is_the_mean_of_unit_vectors_over_templates(directory):
    one = TextTower.load(directory, ("{}",)).embed(["red", "photo of red"])
    np.testing.assert_allclose(np.linalg.norm(one, axis=1), 1, rtol=1e-5)
    two = TextTower.load(directory, ("{}", "photo of {}"))
    np.testing.assert_allclose(two.embed(["red"])[0], one.mean(axis=0), atol=1e-5)
    assert two.dim == 32


def test_an_embedding_does_not_depend_on_its_company_and_words_are_encoded_once(directory, monkeypatch):
    tower = TextTower.load(directory, ("{}",))
    alone = tower.embed(["red"])[0]
    fresh = TextTower.load(directory, ("{}",))
    many = fresh.embed([f"circle {i}" for i in range(70)] + ["red", "a much longer text than any of the others"])
    np.testing.assert_allclose(many[70], alone, atol=1e-5)

    monkeypatch.setattr(fresh, "_embed_prompts", lambda prompts: pytest.fail(f"encoded {prompts} again"))
    np.testing.assert_array_equal(fresh.embed(["red", "circle 3", "red"]), many[[70, 3, 70]])
    assert fresh.embed([]).shape == (0, 32)


def test_vocs_odd_names_are_encoded_as_everyday_words(directory):
    tower = TextTower.load(directory, ("{}", "photo of {}"))
    odd, everyday, run_together = tower.embed(["tvmonitor", "tv", "redcircle"])
    np.testing.assert_array_equal(odd, everyday)
    assert np.abs(run_together - tower.embed(["red circle"])[0]).max() > 0.01  # no other name is touched


def test_a_text_longer_than_the_context_is_told(directory):
    with pytest.raises(UserError, match="has 102 tokens, the text tower takes 77"):
        TextTower.load(directory, ("{}",)).embed(["red " * 100])


@pytest.mark.parametrize("templates", [(), ("a photo",), ("{}", "a {name}")])
def test_templates_without_a_place_for_the_name_are_told(templates, directory):
    with pytest.raises(UserError, match="text.templates is"):
        TextTower.load(directory, templates)


# --- Which source, and which go together ---


def test_the_source_that_is_named_is_opened(path, directory):
    config = ConfigDict({"anchors": str(path), "tower": "not/read", "templates": ("{}",)})
    assert isinstance(text_source(config), AnchorTable)
    config = ConfigDict({"anchors": "", "tower": directory, "templates": ("{}",)})
    assert isinstance(text_source(config), TextTower)
    assert isinstance(open_text(path, ("{}",)), AnchorTable)
    assert isinstance(open_text(directory, ("{}",)), TextTower)


def test_sources_of_one_space_go_together(tmp_path, path, directory):
    a = {"templates": np.array(["a {}"])}
    bare, prompted = AnchorTable.load(path), AnchorTable.load(save(tmp_path / "p.npz", embeddings=ROWS[:, :2], **a))
    larger = AnchorTable.load(save(tmp_path / "l.npz", [*NAMES, "dog"], np.ones((5, 2), np.float32), **a))
    tower = TextTower.load(directory, ("{}",))
    for stored, new in ((bare, bare), (prompted, larger), (tower, tower)):
        stored = json.loads(json.dumps(stored.source))  # as a checkpoint gives it back
        check_compatible(stored, new.source)


def test_a_tower_and_a_table_mix_only_when_the_templates_agree(tmp_path, directory):
    names, rows = ["red"], np.ones((1, 32), np.float32)
    tower = TextTower.load(directory, ("a {}",))
    unknown = AnchorTable.load(save(tmp_path / "a.npz", names, rows))
    other = AnchorTable.load(save(tmp_path / "b.npz", names, rows, templates=np.array(["{}"])))
    equal = AnchorTable.load(save(tmp_path / "c.npz", names, rows, templates=np.array(["a {}"])))
    for table in (unknown, other):
        for stored, new in ((tower, table), (table, tower)):
            with pytest.raises(UserError, match="the network was trained with a .*; use the same table"):
                check_compatible(stored.source, new.source)
    check_compatible(tower.source, equal.source)
    check_compatible(equal.source, tower.source)


def test_towers_of_other_weights_do_not_go_together(tmp_path, directory):
    write_random_tower(tmp_path / "other", ["red"], seed=1, dim=32)
    trained, other = (TextTower.load(str(folder), ("{}",)) for folder in (directory, tmp_path / "other"))
    with pytest.raises(UserError, match="other has other weights; use the same tower"):
        check_compatible(trained.source, other.source)


def test_embeddings_of_another_width_are_refused(path, directory):
    with pytest.raises(UserError, match="trained with text embeddings of 3 dimensions; these have 32"):
        check_compatible(AnchorTable.load(path).source, TextTower.load(directory, ("{}",)).source)
