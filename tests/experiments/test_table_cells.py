"""What a table makes of scores that are known: means, spreads, reasons, and where the upper bound stands."""

import csv as csv_reader
import io
from pathlib import Path

import pytest

from experiments.tables.cells import Cell, Choices, cell, summarize
from experiments.tables.measurements import Measurements, MissingError
from experiments.tables.paper import TABLES
from experiments.tables.parts import FUSED, Column, Row, Section, Setting, Table
from experiments.tables.published import Published
from experiments.tables.report import UPPER_BOUND, Filled, csv, markdown
from experiments.tables.source_folders import find_folders
from sazs_jax.errors import UserError

PLAIN = Setting("pascal_5i", "lite", "plain")


class Known(Measurements):
    """Scores that follow from fold, seed and rule; fold 3 has no pair, seed 2 cannot be had."""

    def scores(self, setting, fold, seed, evaluation):
        assert fold is not None
        if seed == 2:
            raise MissingError("seed 2 is broken")
        of_rule = {"none": 0.1, "agreement+diffusion": 0.2, "oracle": 0.3}
        return {
            "fusion": {
                rule: {
                    "miou": None if fold == 3 else base + 0.1 * fold + 0.02 * seed,
                    "fbiou": base + 0.5,
                    "per_class": {"cat": base},
                }
                for rule, base in of_rule.items()
            }
        }


@pytest.fixture
def known():
    return Known(Path("nowhere"), {})


def test_mean_and_spread_over_seeds_by_hand(known):
    assert summarize([50.0, 60.0, 70.0]) == Cell(60.0, 10.0, 3)  # squares 100, 0, 100 over 2
    assert summarize([50.0]) == Cell(50.0, None, 1)
    choices = Choices(folds=(0, 1), seeds=2)
    found = cell(Row("fused", PLAIN, FUSED), Column("mIoU", "mean"), known, choices)
    assert found.value == pytest.approx(26)  # seed 0: 20, 30; seed 1: 22, 32
    assert found.spread == pytest.approx(2**0.5)  # of 25 and 27
    found = cell(Row("alone", PLAIN), Column("fold 1", "fold", 1), known, choices)
    assert (found.value, found.seeds) == (pytest.approx(21), 2)
    found = cell(Row("alone", PLAIN), Column("cat", "class", 1), known, choices)
    assert (found.value, found.spread) == (pytest.approx(10), 0)


def test_a_cell_tells_why_it_is_not_measured(known):
    row = Row("alone", PLAIN)
    choices = Choices(folds=(1, 3), seeds=3)
    assert cell(row, Column("fold 0", "fold", 0), known, choices).missing == "fold 0 is not among --folds"
    none = cell(row, Column("fold 3", "fold", 3), known, choices)
    assert (none.value, none.missing) == (None, "fold 3 has too few test pairs; seed 2 is broken")
    assert cell(row, Column("mIoU", "mean"), known, choices).value is None  # no mean over a part of the folds
    some = cell(row, Column("fold 1", "fold", 1), known, choices)
    assert (some.value, some.seeds, some.missing) == (pytest.approx(21), 2, "seed 2 is broken")


def test_drn_without_its_weights_is_told():
    with pytest.raises(MissingError, match="DRN's ImageNet weights are on no hub: give their file by --drn_weights"):
        Measurements(Path("nowhere"), {}).scores(Setting("pascal_5i", "drn", "plain"), 0, 0, {})


def test_markdown_and_csv(known):
    columns = (Column("fold 1", "fold", 1), Column("fold 0", "fold", 0))
    rows = (
        Row("ours", PLAIN),
        Row("ours", PLAIN, "oracle"),
        Published("theirs", "ViT-L", {"fold 0": 51.7}, bound=True),
    )
    section, choices = Section("VOC", columns, rows), Choices(folds=(1,), seeds=2)
    filled = [Filled(section, [[cell(row, column, known, choices) for column in columns] for row in rows])]
    text = markdown(Table("A table", (section,), ("a note",)), filled, ["for all"], fusion="iou", seeds=2)
    apart = text.split(f"## VOC. {UPPER_BOUND}")
    assert "| ours | lite | none | ours | 21.0 ± 1.4 | not measured [1] |" in apart[0]
    assert "| ours | lite | oracle | ours | 41.0 ± 1.4 | not measured [1] |" in apart[1]
    assert "| theirs | ViT-L | oracle | published | - | 51.7 |" in apart[1]
    assert "oracle" not in apart[0]
    assert text.endswith("Not measured:\n\n1. fold 0 is not among --folds\n")
    assert "for all\n\na note\n" in text
    read = list(csv_reader.DictReader(io.StringIO(csv("table0", filled, fusion="iou"))))
    assert len(read) == 6
    assert (read[0]["value"], read[0]["seeds"], read[0]["upper_bound"]) == (str(21.0), "2", "False")
    assert read[5]["source"] == "published"
    assert read[1]["not_measured"] == "fold 0 is not among --folds"


def test_one_encoder_for_all_leaves_no_row_twice():
    first = TABLES["table1"].sections[0]
    ours = [row for row in first.with_variant("lite").rows if isinstance(row, Row)]
    assert len(ours) == len(set(ours)) == 5  # SPNet-like, LSeg, and SAZS alone, fused, by the ground truth
    assert {row.setting.variant for row in ours} == {"lite"}
    assert len([row for row in first.rows if isinstance(row, Row)]) == 9


def test_every_class_of_tables_8_and_9_is_asked_of_the_fold_that_tests_it():
    coco, pascal = TABLES["table8"].sections[0], TABLES["table9"].sections[0]
    assert [(c.title, c.fold) for c in coco.columns][:5] == [
        ("person", 0), ("bicycle", 1), ("car", 2), ("motorcycle", 3), ("airplane", 0)
    ]  # fmt: skip
    assert {c.title: c.fold for c in pascal.columns}["cat"] == 1
    assert (len(coco.columns), len(pascal.columns)) == (80, 20)


def test_folders_are_known_by_what_they_hold(tmp_path):
    for folder in ("VOCdevkit/VOC2012/JPEGImages", "COCO/annotations", "empty"):
        (tmp_path / folder).mkdir(parents=True)
    expected = {"pascal_5i": tmp_path / "VOCdevkit/VOC2012", "coco_20i": tmp_path / "COCO"}
    assert find_folders([str(tmp_path)]) == expected
    assert find_folders([str(folder) for folder in expected.values()]) == expected
    assert find_folders([]) == {}
    with pytest.raises(UserError, match="holds no VOC devkit .* and no COCO"):
        find_folders([str(tmp_path / "empty")])
    with pytest.raises(UserError, match="are both coco_20i"):
        find_folders([str(tmp_path), str(tmp_path / "COCO")])
    (tmp_path / "more/annotations").mkdir(parents=True)
    with pytest.raises(UserError, match="holds more than one coco_20i"):
        find_folders([str(tmp_path)])
