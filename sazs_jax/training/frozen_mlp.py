"""The trained affine MLP of paper 3.3, as a run takes it: of the right kind, and one that learnt something."""

import hashlib
import json
import os
from pathlib import Path

import jax
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from sazs_jax.edges import TILE
from sazs_jax.errors import UserError
from sazs_jax.models.affine_mlp import AffineMLP
from sazs_jax.training.checkpoints import config_of, restore_best, stored_score
from sazs_jax.training.run_config import check_same_keys, flatten

# What its tiles depend on.
_KEYS = ("data.dataset", "data.fold", "data.exclude", "data.crop", "loss.patches", "loss.edge_width", "loss.void_band")


def restore_affine_mlp(workdir: str | os.PathLike, config: ConfigDict) -> AffineMLP:
    """The best checkpoint of a run of `configs/affine_mlp.py`, for a run of `config`.

    Raises:
      UserError: as `restore_model`; or it was trained on another fold, on edges and tiles of another kind, or in vain.
    """
    if not workdir:
        raise UserError(
            "loss.shape_weight is not 0 and needs loss.affine_mlp; train it by "
            "python train.py --config configs/affine_mlp.py --workdir A, with the same data.fold, and give A"
        )
    workdir = Path(workdir).expanduser()
    trained, wanted = (
        {key: value for key, value in flatten(json.loads(c.to_json())).items() if key in _KEYS}
        for c in (config_of(workdir, "affine_mlp"), config)
    )
    check_same_keys(trained, wanted, workdir / "config.json")
    different = [
        f"{key} ({trained[key]!r} there, {wanted[key]!r} here)" for key in trained if trained[key] != wanted[key]
    ]
    if different:
        raise UserError(f"the affine MLP of {workdir} was trained with another {', '.join(different)}; train one anew")
    model, _, step = restore_best(workdir, lambda: AffineMLP(TILE, rngs=nnx.Rngs(0)), {})
    _check_learnt(model, stored_score(workdir, step), workdir)
    return model


def weights_digest(model: nnx.Module) -> str:
    """SHA-256 of a network's arrays, one after the other."""
    digest = hashlib.sha256()
    for leaf in jax.tree.leaves(nnx.state(model)):
        digest.update(np.asarray(leaf).tobytes())
    return digest.hexdigest()


def _check_learnt(model: AffineMLP, reduction: float, workdir: Path) -> None:
    if not np.any(model.out.kernel[...]):  # as it starts
        reason = "its theta is the same whatever it is shown"
    elif -np.inf < reduction <= 0:
        reason = f"on tiles that it was not trained on it errs no less than the identity (reduction {reduction:.3f})"
    else:
        return
    raise UserError(f"the affine MLP of {workdir} learnt nothing: {reason}; train it for more steps, or on more images")
