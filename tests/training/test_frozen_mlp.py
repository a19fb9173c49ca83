"""Which trained affine MLP a run takes, and which it goes on with."""

import json

import grain
import jax
import numpy as np
import pytest
from flax import nnx

from configs import affine_mlp, defaults, demo
from sazs_jax.edges import TILE
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.training.affine import AffineRegression
from sazs_jax.training.checkpoints import Checkpoints, restore_model
from sazs_jax.training.frozen_mlp import restore_affine_mlp, weights_digest
from sazs_jax.training.optimizer import make_optimizer
from sazs_jax.training.run_config import claim_workdir, load_config
from sazs_jax.training.state import create_state
from tests.random_weights import random_weights


def save(workdir, module, config, score):
    """One checkpoint, of step 1."""
    claim_workdir(workdir, config)
    _, state = create_state(module, make_optimizer(config.optimizer, 10, freeze_encoder=False))
    checkpoints = Checkpoints(workdir, None)
    checkpoints.save(state, iter(grain.MapDataset.range(4).to_iter_dataset()), score, step=1)
    checkpoints.close()
    return workdir


def make_mlp() -> AffineMLP:
    return random_weights(lambda: AffineMLP(TILE, rngs=nnx.Rngs(0)))


@pytest.fixture
def mlp_config():
    config = affine_mlp.get_config()
    config.data.fold = 1
    return config


@pytest.fixture
def affine_run(tmp_path, mlp_config):
    """The work directory of an affine MLP of fold 1 with random weights."""
    return save(tmp_path / "affine", make_mlp(), mlp_config, 0.5)


@pytest.fixture
def config():
    """Of a run that the affine MLP suits."""
    config = defaults.get_config()
    config.data.fold, config.data.crop = 1, 320
    return config


def test_an_affine_mlp_comes_back_for_a_run_of_its_fold(affine_run, config):
    restored = restore_affine_mlp(affine_run, config)
    np.testing.assert_array_equal(restored.out.kernel[...], make_mlp().out.kernel[...])
    config.data.fold = 2
    with pytest.raises(UserError, match=r"another data\.fold \(1 there, 2 here\); train one anew"):
        restore_affine_mlp(affine_run, config)


def test_a_run_goes_on_with_the_affine_mlp_it_began_with_alone_wherever_that_lies(tmp_path):
    config, mlp = demo.get_config(), make_mlp()
    config.loss.affine_mlp, config.loss.affine_mlp_digest = "here", weights_digest(mlp)
    run = save(tmp_path / "run", mlp, config, None)
    config.loss.affine_mlp, config.loss.affine_mlp_digest = "there", weights_digest(make_mlp())
    claim_workdir(run, config)
    assert load_config(run).loss.affine_mlp == "there"
    mlp.out.kernel[...] += 1e-3
    config.loss.affine_mlp, config.loss.affine_mlp_digest = "elsewhere", weights_digest(mlp)
    with pytest.raises(UserError, match="was trained with another affine MLP than elsewhere holds now; put that one"):
        claim_workdir(run, config)


def test_a_missing_affine_mlp_and_runs_of_another_task_are_the_users_errors(affine_run, config, tmp_path):
    with pytest.raises(UserError, match="loss.shape_weight is not 0 and needs loss.affine_mlp; train it by"):
        restore_affine_mlp("", config)
    with pytest.raises(UserError, match="holds no checkpoint"):
        restore_affine_mlp(tmp_path / "nothing", config)
    with pytest.raises(UserError, match="is a run of task=affine_mlp; give a run of task=segmentation"):
        restore_model(affine_run)


def test_an_affine_mlp_of_another_version_is_told_from_one_of_other_settings(affine_run, config):
    stored = json.loads((affine_run / "config.json").read_text())
    del stored["data"]["exclude"]
    (affine_run / "config.json").write_text(json.dumps(stored))
    with pytest.raises(
        UserError, match=r"another version of this program wrote .*: it has no data.exclude \(\[\] now\)"
    ):
        restore_affine_mlp(affine_run, config)
    restore_affine_mlp(affine_run, load_config(affine_run))  # as the experiment on it does
    with pytest.raises(UserError, match="config.json has no data.exclude: another version of this program wrote it"):
        _ = load_config(affine_run).data["exclude"]


def test_an_affine_mlp_that_learnt_nothing_is_the_users_error(config, mlp_config, tmp_path):
    untrained = AffineRegression(mlp_config).build(jax.random.key(0))
    workdir = save(tmp_path / "untrained", untrained, mlp_config, None)
    with pytest.raises(UserError, match="learnt nothing: its theta is the same whatever it is shown; train it"):
        restore_affine_mlp(workdir, config)
    for score in (0.0, -0.25):
        workdir = save(tmp_path / f"worse{score}", make_mlp(), mlp_config, score)
        with pytest.raises(UserError, match=rf"learnt nothing: .* no less than the identity \(reduction {score:.3f}\)"):
            restore_affine_mlp(workdir, config)
    restore_affine_mlp(save(tmp_path / "unscored", make_mlp(), mlp_config, None), config)


def test_images_that_show_no_motion_are_told_before_training(mlp_config):
    mlp_config.loss.patches = (2, 2)
    task = AffineRegression(mlp_config)
    plain = {"label": np.zeros((2, 64, 64), np.uint8)}
    with pytest.raises(UserError, match="no tile of the first training images has enough edge"):
        task.check_shows_motion([plain, plain])
    squares = {"label": plain["label"].copy()}
    squares["label"][:, 8:24, 8:24] = 1
    task.check_shows_motion([plain, squares])
