"""Trains and scores what a table asks for, each once: what was measured before is read again.

OUT/runs/affine-DATA-CROP/fold1                     the affine MLP of a fold, where L_shape needs it
OUT/runs/pascal_5i-lite-shape/fold1/seed0           a run, as train.py makes it
OUT/measured/pascal_5i-lite-shape/fold1/seed0/*.json   what it scored, and under which settings
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

import configs
from experiments import commands
from experiments.tables.parts import METHODS, Data, Setting
from experiments.tables.source_folders import DATA_SETS, KINDS
from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError
from sazs_jax.training.run_config import checkpoint_steps, differing_keys, identity

_FOLDER = Path(configs.__file__).parent
_CONFIGS: Mapping[Data, str] = {
    "pascal_5i": "pascal_fold{fold}",
    "coco_20i": "coco_fold{fold}",
    "coco_to_pascal": "coco_to_pascal",
}
_OF_TABLES = (  # keys that the tables set themselves
    "task", "data.dataset", "data.root", "data.fold", "data.exclude", "train.seed", "loss.shape_weight",
    "loss.bce_weight", "loss.affine_mlp", "loss.affine_mlp_digest",
)  # fmt: skip
# Settings of the command line that the affine MLP is trained with too; how long, --affine_steps tells.
_OF_AFFINE = ("affine.", "data.cache", "data.num_workers", "loss.patches", "loss.edge_width", "loss.void_band")


class MissingError(Exception):
    """Why something cannot be measured. Not an error: the cell says so."""


@dataclass
class Measurements:
    """What has been trained and scored under a folder, and the means to do the rest.

    Attributes:
      out: the folder.
      roots: source folder by data set.
      overrides: settings by key for every run.
      drn_weights: file of DRN's ImageNet weights, which are on no hub; "": none.
      affine_steps: of training each affine MLP; 0: as many as its config says.
      failures: why a thing could not be had; it is tried once.
    """

    out: Path
    roots: Mapping[str, Path]
    overrides: Mapping[str, Any] = field(default_factory=dict)
    drn_weights: str = ""
    affine_steps: int = 0
    failures: dict[Any, str] = field(default_factory=dict)

    def __post_init__(self):
        if taken := [key for key in self.overrides if key in _OF_TABLES]:
            raise UserError(f"{', '.join(taken)}: the tables set this themselves; leave it out")

    def scores(self, setting: Setting, fold: int | None, seed: int, evaluation: Mapping[str, Any]) -> dict[str, Any]:
        """The metrics of a run, trained and scored where that is still to do.

        Args:
          setting: of the run.
          fold: None across data sets.
          seed: of the run.
          evaluation: settings by key, beside the command line's.

        Raises:
          MissingError: it cannot be had, and why.
          UserError: the folder holds runs or measurements of other settings.
        """
        scored = {key: value for key, value in self.overrides.items() if key.startswith(("eval.", "spectral."))}
        scored |= evaluation
        config = self._config(setting, fold, seed)
        place = f"{setting.name}{'' if fold is None else f'/fold{fold}'}/seed{seed}"
        if not config.model.pretrained and setting.variant == "drn" and "model.pretrained" not in self.overrides:
            raise MissingError(
                "DRN's ImageNet weights are on no hub: give their file by --drn_weights (docs/weights.md)"
            )
        *_, target = folders = [self._folder(name) for name in DATA_SETS[setting.data]]
        asked = {
            "run": {key: value for key, value in identity(config).items() if key != "loss.affine_mlp_digest"},
            "evaluation": scored,
            "scored_on": str(target),
            "affine_steps": self.affine_steps if config.loss.shape_weight else 0,
        }

        def measure() -> dict[str, Any]:
            workdir = self.out / "runs" / place
            self._train(setting, fold, seed, config, workdir)
            if len(folders) == 1:
                return commands.evaluate(workdir, scored)
            return commands.evaluate(workdir, scored, dataset=DATA_SETS[setting.data][-1], data_root=target)

        return self._once(f"{place}/{_digest(scored)}", asked, measure)

    def cost(self, setting: Setting, rule: str) -> dict[str, Any]:
        """Parameters, FLOPs and time of a setting's network with a label-free rule, see `experiments.cost`.

        Raises:
          MissingError: it cannot be had, and why.
        """
        settings = {**self._settings(setting), "eval.fusion": rule, "model.pretrained": ""}
        settings = {key: value for key, value in settings.items() if not key.startswith(("data.root", "loss.aff"))}
        name = f"cost/{setting.name}-{rule}"

        def measure() -> dict[str, Any]:
            file = self.out / "measured" / f"{name}.found.json"
            fold = None if setting.data == "coco_to_pascal" else 0
            commands.experiment("cost", f"--config={_config_file(setting, fold)}", f"--out={file}", settings=settings)
            found = json.loads(file.read_text())
            file.unlink()
            return found

        return self._once(name, {"settings": {key: str(value) for key, value in settings.items()}}, measure)

    def _once(self, name: str, asked: dict[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `measure` returns, from its file where it was measured with the same settings before."""
        path = self.out / "measured" / f"{name}.json"
        asked = json.loads(json.dumps(asked))  # as the file has it
        stored = _read(path)
        if stored is not None and stored["asked"] == asked:
            return stored["found"]
        if stored is not None and stored["asked"].get("run") != asked.get("run"):
            before, now = stored["asked"]["run"], asked["run"]
            raise self._other_settings(path, [k for k in {**before, **now} if before.get(k) != now.get(k)])
        if name in self.failures:
            raise MissingError(self.failures[name])
        try:
            print(f"measuring {name}", file=sys.stderr)
            found = measure()
        except (commands.CommandError, MissingError) as error:
            self.failures[name] = error.reason if isinstance(error, commands.CommandError) else str(error)
            print(f"not measured: {self.failures[name]}", file=sys.stderr)
            raise MissingError(self.failures[name]) from error
        write_atomically(path, json.dumps({"asked": asked, "found": found}, indent=2) + "\n")
        return found

    def _train(self, setting: Setting, fold: int | None, seed: int, config: ConfigDict, workdir: Path) -> None:
        if workdir.exists() and checkpoint_steps(workdir):
            if other := [key for key in differing_keys(workdir, config) if key != "loss.affine_mlp_digest"]:
                raise self._other_settings(workdir, other)
            if max(checkpoint_steps(workdir)) == config.train.num_steps:
                return
        if str(workdir) in self.failures:
            raise MissingError(self.failures[str(workdir)])
        try:
            if config.loss.shape_weight:
                self._train_affine_mlp(config)
            file = _config_file(setting, fold)
            commands.train(file, workdir, self._settings(setting, fold, seed))
        except commands.CommandError as error:
            self.failures[str(workdir)] = error.reason
            raise

    def _train_affine_mlp(self, config: ConfigDict) -> None:
        """Once a fold and crop, by train.py, which leaves a finished one as it is."""
        workdir = Path(config.loss.affine_mlp)
        settings = {key: value for key, value in self.overrides.items() if key.startswith(_OF_AFFINE)}
        settings |= {f"data.{key}": config.data[key] for key in ("dataset", "root", "fold", "exclude", "crop")}
        if self.affine_steps:
            settings |= dict.fromkeys(("train.num_steps", "train.eval_every", "train.save_every"), self.affine_steps)
        steps = checkpoint_steps(workdir) if workdir.exists() else []
        if steps and max(steps) == _config_of("affine_mlp", "", settings).train.num_steps:
            return
        commands.train(str(_FOLDER / "affine_mlp.py"), workdir, settings)

    def _config(self, setting: Setting, fold: int | None, seed: int) -> ConfigDict:
        """The config that train.py would store."""
        name = _CONFIGS[setting.data].format(fold=fold)
        return _config_of(name, setting.variant, self._settings(setting, fold, seed))

    def _settings(self, setting: Setting, fold: int | None = None, seed: int = 0) -> dict[str, Any]:
        """What a run changes of its config file, by key."""
        settings = {**self.overrides, **METHODS[setting.method], "train.seed": seed}
        settings["data.root"] = str(self.roots.get(DATA_SETS[setting.data][0], ""))
        if setting.variant == "drn" and "model.pretrained" not in settings:
            settings["model.pretrained"] = self.drn_weights
        if settings.get("loss.shape_weight"):
            config = _config_of(_CONFIGS[setting.data].format(fold=fold or 0), setting.variant, settings)
            place = f"affine-{setting.data}-crop{config.data.crop}{'' if fold is None else f'/fold{fold}'}"
            settings["loss.affine_mlp"] = str((self.out / "runs" / place).absolute())
        return settings

    def _folder(self, name: str) -> Path:
        if name not in self.roots:
            raise MissingError(f"no {KINDS[name]} was given by --root")
        return self.roots[name]

    def _other_settings(self, place: Path, keys: list[str]) -> UserError:
        return UserError(
            f"{place} is of other settings ({', '.join(sorted(keys))}); repeat those, or choose another --out"
        )


def check_settings(overrides: Mapping[str, Any], variant: str | None) -> None:
    """Raises UserError when no config has these settings, or there is no such variant."""
    try:
        _config_of("pascal_fold0", variant or "lite", overrides)
    except ValueError as error:
        raise UserError(f"--variant: {error}") from error


def _config_file(setting: Setting, fold: int | None) -> str:
    return f"{_FOLDER / _CONFIGS[setting.data].format(fold=fold)}.py:{setting.variant}"


def _config_of(name: str, variant: str, settings: Mapping[str, Any]) -> ConfigDict:
    config = importlib.import_module(f"configs.{name}").get_config(variant)
    config.update_from_flattened_dict(dict(settings))
    return config


def _digest(settings: Mapping[str, Any]) -> str:
    """A file name for settings of an evaluation."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]


def _read(path: Path) -> dict[str, Any] | None:
    """A measurement; None where there is none, or it is damaged."""
    try:
        stored = json.loads(path.read_text())
        return stored if {"asked", "found"} <= stored.keys() else None
    except (OSError, ValueError, AttributeError):
        return None
