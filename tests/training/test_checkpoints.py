"""Which checkpoints are kept, which one is used, and what is said of a broken one."""

import json
import shutil

import grain
import numpy as np
import pytest
from flax import nnx

from configs import affine_mlp, defaults, demo
from sazs_jax.edges import TILE
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.models.sazs import build_model
from sazs_jax.training.checkpoints import (
    Checkpoints,
    StoredAnchors,
    claim_workdir,
    restore_affine_mlp,
    restore_model,
    weights_digest,
)
from sazs_jax.training.optimizer import make_optimizer
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


@pytest.fixture
def affine_run(tmp_path):
    """The work directory of an untrained affine MLP of fold 1."""
    config = affine_mlp.get_config()
    config.data.fold = 1
    claim_workdir(tmp_path / "affine", config)
    mlp = random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0)))
    _, state = create_state(mlp, make_optimizer(config.optimizer, 10, freeze_encoder=False))
    checkpoints = Checkpoints(tmp_path / "affine", None)
    checkpoints.save(state, batches(), 0.5, step=1)
    checkpoints.close()
    return tmp_path / "affine", mlp


def test_an_affine_mlp_comes_back_for_a_run_of_its_fold(affine_run):
    workdir, mlp = affine_run
    config = defaults.get_config()
    config.data.fold, config.data.crop = 1, 320
    restored = restore_affine_mlp(workdir, config)
    np.testing.assert_array_equal(restored.out.kernel[...], mlp.out.kernel[...])
    config.data.fold = 2
    with pytest.raises(UserError, match=r"another data\.fold \(1 there, 2 here\); train one anew"):
        restore_affine_mlp(workdir, config)


def test_a_run_goes_on_with_the_affine_mlp_it_began_with_alone(affine_run, config, tmp_path):
    _, mlp = affine_run
    config.loss.affine_mlp_digest = weights_digest(mlp)
    claim_workdir(tmp_path / "run", config)
    checkpoints = Checkpoints(tmp_path / "run", ANCHORS)
    checkpoints.save(new_state(config), batches(), None, step=1)
    checkpoints.close()
    again = random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0)))
    config.loss.affine_mlp_digest = weights_digest(again)
    claim_workdir(tmp_path / "run", config)
    again.out.kernel[...] += 1e-3
    config.loss.affine_mlp_digest = weights_digest(again)
    with pytest.raises(UserError, match="was trained with another affine MLP than .* holds now; put that one back"):
        claim_workdir(tmp_path / "run", config)


def test_a_missing_affine_mlp_and_runs_of_another_task_are_the_users_errors(affine_run, config, tmp_path):
    with pytest.raises(UserError, match="loss.shape_weight is not 0 and needs loss.affine_mlp; train it by"):
        restore_affine_mlp("", config)
    with pytest.raises(UserError, match="holds no checkpoint"):
        restore_affine_mlp(tmp_path / "nothing", config)
    with pytest.raises(UserError, match="is a run of task=affine_mlp; give a run of task=segmentation"):
        restore_model(affine_run[0])


def test_a_claimed_directory_without_a_checkpoint_can_be_claimed_again(config, tmp_path):
    claim_workdir(tmp_path, config)
    config.loss.logit_scale = 2.0
    claim_workdir(tmp_path, config)
    assert json.loads((tmp_path / "config.json").read_text())["loss"]["logit_scale"] == 2.0
    with pytest.raises(UserError, match="no checkpoint"):
        restore_model(tmp_path)
