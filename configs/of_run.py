"""The settings of a run that was trained before, to train it again with changes.

python train.py --config configs/of_run.py:runs/fold1 --workdir runs/fold1-seed1 --config.train.seed=1
"""

from ml_collections import ConfigDict

from configs import defaults, overrides
from sazs_jax.training.run_config import FREE_GROUPS, check_same_keys, flatten, load_config


def get_config(workdir: str) -> ConfigDict:
    """The config of the run in `workdir`, with the defaults of newer keys that training does not depend on.

    Raises:
      UserError: another version of this program wrote it, with other keys than these.
    """
    config = load_config(workdir)
    overrides.add_missing(config, FREE_GROUPS)
    stored = config.to_dict()
    check_same_keys(flatten(stored), flatten(defaults.get_config().to_dict()), f"{workdir}/config.json")
    return ConfigDict({name: _as_written(value) for name, value in stored.items()})


def _as_written(value):
    """JSON has lists where configs have tuples."""
    if isinstance(value, dict):
        return {name: _as_written(item) for name, item in value.items()}
    return tuple(value) if isinstance(value, list) else value
