"""Which checkpoints are kept, which one is used, and what is said of a broken one."""

import json
import shutil

import grain
import numpy as np
import pytest
from flax import nnx

from configs import defaults, demo, of_run
from sazs_jax.errors import UserError
from sazs_jax.models.sazs import build_model
from sazs_jax.training.checkpoints import (
    Checkpoints,
    StoredAnchors,
    claim_workdir,
    restore_model,
)
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.run_config import differing_keys, load_config
from sazs_jax.training.state import create_state
from tests.random_weights import random_weights

ANCHORS = StoredAnchors(("others", "cat"), np.ones((2, 8), np.float32), {"kind": "table"})


@pytest.fixture
def config():
    config = demo.get_config()
    config.model.embedding_dim = config.model.decoder_width = 8
    return config


def new_state(config, seed=0):
    model = random_weights(lambda: build_model(config, rngs=nnx.Rngs(0)), seed)
    return create_state(model, make_optimizer(config.optimizer, 10, freeze_encoder=False))[1]


def batches():
    return iter(grain.MapDataset.range(100).to_iter_dataset())


def test_the_best_on_selection_is_used_and_outlives_a_restart(config, tmp_path):
    claim_workdir(tmp_path, config)
    for steps in (((1, 0.5), (2, 0.9), (3, 0.1)), ((4, 0.3), (5, None))):  # the run is taken up again after step 3
        checkpoints = Checkpoints(tmp_path, ANCHORS)
        for step, miou in steps:
            checkpoints.save(new_state(config, seed=step), batches(), miou, step=step)
            checkpoints.wait()
        checkpoints.close()
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir() if path.is_dir())
    assert kept == ["00000002", "00000005"]  # the best and the latest
    _, model, anchors, step = restore_model(tmp_path)
    assert step == 2
    expected = new_state(config, seed=2).params["head"]["kernel"]
    np.testing.assert_array_equal(nnx.state(model)["head"]["kernel"], expected)
    assert anchors.names == ANCHORS.names


def test_the_state_and_the_data_position_come_back(config, tmp_path):
    source = batches()
    next(source)
    next(source)
    state = new_state(config, seed=3)
    checkpoints = Checkpoints(tmp_path, ANCHORS)
    checkpoints.save(state, source, None, step=2)
    checkpoints.close()
    again = batches()
    checkpoints = Checkpoints(tmp_path, ANCHORS)
    restored = checkpoints.restore(new_state(config, seed=0), again, step=2)
    checkpoints.close()
    assert next(again) == 2
    np.testing.assert_array_equal(restored.params["head"]["kernel"], state.params["head"]["kernel"])


def test_weights_of_another_shape_and_damage_are_the_users_errors(config, tmp_path):
    claim_workdir(tmp_path, config)
    checkpoints = Checkpoints(tmp_path, ANCHORS)
    checkpoints.save(new_state(config), batches(), None, step=1)
    checkpoints.close()
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["model"]["decoder_width"] = 16
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="not those of the config"):
        restore_model(tmp_path)
    stored["model"]["decoder_width"] = 8
    (tmp_path / "config.json").write_text(json.dumps(stored))
    shutil.rmtree(tmp_path / "checkpoints" / "00000001" / "model")
    with pytest.raises(UserError, match="damaged"):
        restore_model(tmp_path)


def test_local_paths_are_stored_so_that_the_run_can_be_used_from_anywhere(config, tmp_path, monkeypatch):
    (tmp_path / "words.npz").touch()
    monkeypatch.chdir(tmp_path)
    config.text.anchors, config.text.tower = "words.npz", "openai/clip-vit-base-patch32"
    claim_workdir("run", config)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())["text"]
    assert stored["anchors"] == str(tmp_path / "words.npz")
    assert stored["tower"] == "openai/clip-vit-base-patch32"  # of a hub, no folder here


def test_a_claimed_directory_without_a_checkpoint_can_be_claimed_again(config, tmp_path):
    claim_workdir(tmp_path, config)
    config.loss.logit_scale = 2.0
    claim_workdir(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["loss"]["logit_scale"] == 2.0
    with pytest.raises(UserError, match="no checkpoint"):
        restore_model(tmp_path)


def test_a_run_of_another_version_is_told_from_one_of_other_settings(config, tmp_path):
    claim_workdir(tmp_path, config)
    checkpoints = Checkpoints(tmp_path, ANCHORS)
    checkpoints.save(new_state(config), batches(), None, step=1)
    checkpoints.close()
    path = tmp_path / "config.json"
    whole = json.loads(path.read_text())

    def write(**changes):
        path.write_text(json.dumps({**whole, "loss": {**whole["loss"], **changes}}))

    older = {key: value for key, value in whole["loss"].items() if key != "affine_mlp_digest"}
    path.write_text(json.dumps({**whole, "loss": older}))
    with pytest.raises(
        UserError, match=r"version of this program wrote .*: it has no loss.affine_mlp_digest \('' now\);"
    ):
        claim_workdir(tmp_path, config)
    write(newer=3)
    with pytest.raises(
        UserError, match=r"it has loss.newer \(3\), which this version does not know; bring it into line"
    ):
        claim_workdir(tmp_path, config)
    write(logit_scale=2.0)
    with pytest.raises(UserError, match=r"holds a run with another config: loss.logit_scale \(2.0 there, .* now\)"):
        claim_workdir(tmp_path, config)
    write()
    claim_workdir(tmp_path, config)


def test_a_run_of_another_version_is_not_trained_again_without_a_word(config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where none of the config's relative paths is there, to be made absolute
    claim_workdir(tmp_path, config)
    assert of_run.get_config(str(tmp_path)).to_dict() == config.to_dict()
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["eval"]["min_pixels"], stored["spectral"]  # training does not depend on them
    (tmp_path / "config.json").write_text(json.dumps(stored))
    again = of_run.get_config(str(tmp_path))
    assert again.eval.min_pixels == defaults.get_config().eval.min_pixels
    assert again.eval.resize == config.eval.resize  # the run's own
    assert again.spectral.to_dict() == defaults.get_config().spectral.to_dict()
    del stored["data"]["exclude"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match=r"another version of this program wrote .*: it has no data.exclude"):
        of_run.get_config(str(tmp_path))


def test_keys_that_came_later_have_the_values_that_older_runs_had(config, tmp_path):
    claim_workdir(tmp_path, config)
    path = tmp_path / "config.json"
    stored = json.loads(path.read_text())
    del stored["model"]["attention"], stored["spectral"]["dtype"]
    path.write_text(json.dumps(stored))
    found = load_config(tmp_path)
    assert (found.model.attention, found.spectral.dtype) == ("auto", "float32")
    assert differing_keys(tmp_path, config) == []
