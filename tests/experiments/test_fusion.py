"""python -m experiments fusion, as a person runs it."""

import json

import pytest
from PIL import Image

from sazs_jax.spectral.fusion import RULES
from tests.tiny_run import command, complaint, make_run


def test_every_rule_is_compared_with_the_network_alone(tmp_path):
    workdir, out = make_run(tmp_path), tmp_path / "out"
    arguments = ("-m", "experiments", "fusion", "--workdir", workdir, "--out", out)
    result = command(*arguments, "--config.eval.min_pairs=1")
    assert result.returncode == 0, result.stderr
    scores = json.loads((out / "fusion.json").read_text())["runs"][str(workdir)]
    assert set(scores) == {*RULES, "oracle"}
    assert 0 <= scores["none"]["miou_min_pairs"]["value"] <= 1
    assert scores["oracle"]["miou_min_pairs"]["value"] == pytest.approx(
        json.loads((out / "fusion.json").read_text())["runs"]["mean"]["oracle"]["miou_min_pairs"]["value"]
    )
    assert "oracle (upper bound)" in (out / "fusion.md").read_text()
    with Image.open(out / "run.png") as sheet:
        assert sheet.width > (len(RULES) + 3) * 48
        assert sheet.height > 3 * 40  # three pairs
    assert "give --config.spectral.features=lite" in complaint(command(*arguments, "--config.spectral.features="))
