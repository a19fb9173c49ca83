"""The project's commands as an experiment runs them."""

import pytest

from experiments import commands


def test_what_a_command_complains_of_is_told_once_by_its_caller(tmp_path, capfd):
    with pytest.raises(commands.CommandError) as told:
        commands.train("configs/demo.py", tmp_path / "run", {"train.steps": 3})
    assert told.value.reason == "the config has no key 'steps'; configs/defaults.py lists them all"
    assert str(told.value).startswith(f"train.py failed: {told.value.reason}; it was run as: ")
    assert "--config.train.steps=3" in str(told.value)
    assert "error: " not in capfd.readouterr().err
