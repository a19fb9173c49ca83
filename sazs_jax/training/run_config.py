"""The config.json of a work directory: what a run was trained with, and whether another run may go on there."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError

# What may change when a run is taken up again: nothing that the losses depend on. Of the affine MLP the digest decides.
_FREE_TO_CHANGE = (
    "model.attention",
    "data.cache",
    "loss.affine_mlp",
    "train.log_every",
    "train.image_every",
    "train.profile",
)
FREE_GROUPS = ("spectral", "eval")

# Keys that came later and that no weight depends on: their values in runs that lack them.
_LATER = {"model": {"attention": "auto"}, "spectral": {"dtype": "float32"}}

# Stored as absolute where they are there, so that a run can be scored and used from any directory.
_PATHS = (
    ("model", "pretrained"),
    ("data", "root"),
    ("data", "cache"),
    ("text", "anchors"),
    ("text", "tower"),
    ("loss", "affine_mlp"),
    ("spectral", "dino"),
    ("spectral", "cache"),
)


def claim_workdir(workdir: str | os.PathLike, config: ConfigDict) -> None:
    """Write the config into the work directory, or check that the checkpoints already there are of the same.

    Raises:
      UserError: the directory belongs to a run with another config, with another affine MLP, or of another version.
    """
    path = Path(workdir) / "config.json"
    tree = _as_stored(config)
    if path.exists() and checkpoint_steps(workdir):
        stored, wanted = flatten(load_config(workdir).to_dict()), flatten(tree)
        different = differing_keys(workdir, config)
        if different == ["loss.affine_mlp_digest"]:
            raise UserError(
                f"{workdir} was trained with another affine MLP than {wanted['loss.affine_mlp']} holds now; "
                "put that one back, or choose another --workdir"
            )
        if different:
            listed = ", ".join(f"{key} ({stored[key]!r} there, {wanted[key]!r} now)" for key in different)
            raise UserError(
                f"{workdir} holds a run with another config: {listed}; "
                "choose another --workdir, or repeat the run's own settings to go on with it"
            )
        if stored == wanted:
            return
    if jax.process_index() == 0:
        write_atomically(path, json.dumps(tree, indent=2) + "\n")


def identity(config: ConfigDict) -> dict[str, Any]:
    """What the losses of a run depend on: values by dotted key, as its config.json has them."""
    flat = flatten(_as_stored(config))
    return {key: value for key, value in flat.items() if not _may_change(key)}


def differing_keys(workdir: str | os.PathLike, config: ConfigDict) -> list[str]:
    """Keys of `identity` in which the run of a work directory differs from a config.

    Raises:
      UserError: the run is of another version, so that their keys differ.
    """
    stored, wanted = identity(load_config(workdir)), identity(config)
    check_same_keys(stored, wanted, Path(workdir) / "config.json")
    return sorted(key for key in stored if stored[key] != wanted[key])


def load_config(workdir: str | os.PathLike) -> ConfigDict:
    """The config of the run in a work directory."""
    path = Path(workdir) / "config.json"
    try:
        tree = json.loads(path.read_text())
        for group, values in _LATER.items():
            tree[group] = {**values, **tree.get(group, {})}
        stored = ConfigDict(tree)
        groups = {k: _RunConfig(v, prefix=f"{k}.") if isinstance(v, ConfigDict) else v for k, v in stored.items()}
        return _RunConfig(groups)
    except (AttributeError, OSError, ValueError, TypeError) as error:
        raise UserError(f"cannot read the run's config {path}: {error}; restore the file") from error


def check_same_keys(stored: Mapping[str, Any], expected: Mapping[str, Any], path: str | os.PathLike) -> None:
    """Tell a run's flat config of another version of this program by its keys.

    Args:
      stored: as read from `path`.
      expected: of this version.

    Raises:
      UserError: a key that only one of the two has.
    """
    missing = [f"{key} ({expected[key]!r} now)" for key in sorted(expected.keys() - stored.keys())]
    unknown = [f"{key} ({stored[key]!r})" for key in sorted(stored.keys() - expected.keys())]
    if missing or unknown:
        told = [f"has no {', '.join(missing)}"] if missing else []
        told += [f"has {', '.join(unknown)}, which this version does not know"] if unknown else []
        raise UserError(
            f"another version of this program wrote {os.fspath(path)}: it {' and '.join(told)}; "
            "bring it into line by hand, with the values that the run had, or train again in another --workdir"
        )


def _as_stored(config: ConfigDict) -> dict[str, Any]:
    tree = json.loads(config.to_json())
    for group, key in _PATHS:
        if tree[group].get(key) and Path(tree[group][key]).expanduser().exists():
            tree[group][key] = os.fspath(Path(tree[group][key]).expanduser().absolute())
    return tree


def checkpoint_steps(workdir: str | os.PathLike) -> list[int]:
    """Steps of the checkpoints of a work directory."""
    folder = Path(workdir).absolute() / "checkpoints"
    return ocp.path.step.checkpoint_steps(folder) if folder.is_dir() else []


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Values by dotted key; tuples as JSON gives them back, lists."""
    flat = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def _may_change(key: str) -> bool:
    return key in _FREE_TO_CHANGE or key.split(".")[0] in FREE_GROUPS


class _MissingKeyError(UserError, AttributeError, KeyError):
    """An older version wrote the config."""

    __str__ = Exception.__str__  # KeyError's puts the message in quotes


class _RunConfig(ConfigDict):
    """A config as a run stored it. To read a key that it lacks is the user's to mend."""

    def __init__(self, values: Mapping[str, Any] | ConfigDict | None = None, prefix: str = ""):
        super().__init__(values)
        object.__setattr__(self, "_prefix", prefix)

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):
            raise AttributeError(attribute)
        return self[attribute]

    def __getitem__(self, key: str) -> Any:
        try:
            return super().__getitem__(key)
        except _MissingKeyError:
            raise
        except KeyError as error:
            raise _MissingKeyError(
                f"the run's config.json has no {self._prefix}{key}: another version of this program wrote it; "
                "add the key (configs/defaults.py tells what it means), or train again"
            ) from error
