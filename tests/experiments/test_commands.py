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


def test_an_error_that_arrives_in_pieces_is_held_back_too(tmp_path, capfd):
    script = tmp_path / "pieces.py"
    script.write_text(
        "import sys, time\n"
        "for piece in ('half done\\r', 'er', 'ror: bro', 'ken\\n'):\n"
        "    print(piece, end='', flush=True)\n"
        "    time.sleep(0.1)\n"
        "sys.exit(2)\n"
    )
    with pytest.raises(commands.CommandError) as told:
        commands._run(str(script))
    assert told.value.reason == "broken"
    assert capfd.readouterr().err == "half done\r"
