"""Command-line settings of some groups of a run's config, other than those that the run was trained with."""

from collections.abc import Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from configs import defaults
from sazs_jax.errors import UserError, exit_on_user_error


def define(groups: Sequence[str]) -> None:
    """Define the flags --config.GROUP.KEY=VALUE; absl reads the command line at once for them."""
    settings = ConfigDict({group: defaults.get_config()[group] for group in groups})
    with exit_on_user_error():
        try:
            config_flags.DEFINE_config_dict("config", settings, "Settings of these groups other than the run's")
        except (AttributeError, KeyError) as error:
            known = ", ".join(f"{group}.{key}" for group in groups for key in settings[group])
            raise UserError(f"unknown setting; --config.KEY=VALUE takes one of the keys {known}") from error


def given() -> dict[str, Any]:
    """What was given, by key."""
    return config_flags.get_override_values(flags.FLAGS["config"])


def apply(config: ConfigDict) -> None:
    """Put what was given into a run's config, and the defaults of keys that were not there when it was trained."""
    add_missing(config, tuple(flags.FLAGS["config"].value or ()))
    config.update_from_flattened_dict(given())


def add_missing(config: ConfigDict, groups: Sequence[str]) -> None:
    """Give a run's config the defaults of the keys of these groups that were not there when it was trained."""
    for group in groups:
        known = defaults.get_config()[group].to_dict()
        config.update({group: {key: value for key, value in known.items() if key not in config.get(group, {})}})
