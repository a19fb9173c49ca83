"""Which runs are one setting of the paper's figures: those that differ in nothing but their fold."""

from collections.abc import Mapping, Sequence

from flax.traverse_util import flatten_dict

from experiments.runs import Run
from sazs_jax.errors import UserError

# What follows the fold, or changes no result.
_NOT_OF_A_SETTING = (
    "data.fold", "data.cache", "data.num_workers", "loss.affine_mlp", "loss.affine_mlp_digest", "spectral.cache",
    "train.log_every", "train.image_every", "train.profile",
)  # fmt: skip


def group(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by setting, under a title: encoder, shape, and whatever else tells it from another of the same.

    Raises:
      UserError: the runs have other classes or are scored otherwise, or a setting has a fold twice.
    """
    first = runs[0]
    for run in runs[1:]:
        if run.dataset.class_names != first.dataset.class_names:
            raise UserError(f"{first.workdir} and {run.workdir} are of other classes; compare runs on one data set")
        for key in ("protocol", "resize", "min_pairs"):
            if run.config.eval[key] != first.config.eval[key]:
                raise UserError(
                    f"{first.workdir} and {run.workdir} differ in eval.{key}; "
                    f"give one for all: --config.eval.{key}=VALUE"
                )
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        members = groups.setdefault(tuple(_of_setting(run).items()), [])
        for other in members:
            if other.config.data.fold == run.config.data.fold:
                raise UserError(
                    f"{other.workdir} and {run.workdir} are one setting and both of fold {run.config.data.fold}; "
                    "give one of them"
                )
        members.append(run)
    return dict(
        zip(_titles([(dict(key), members[0]) for key, members in groups.items()]), groups.values(), strict=True)
    )


def differing_keys(settings: Mapping[str, Sequence[Run]]) -> list[str]:
    """Keys of the config, other than the encoder and the weights of Eq. 3, in which the settings differ."""
    configs = [_of_setting(runs[0]) for runs in settings.values()]
    told = ("model.encoder", "loss.shape_weight", "loss.bce_weight")
    return [key for key in configs[0] if key not in told and len({config.get(key) for config in configs}) > 1]


def _of_setting(run: Run) -> dict[str, str]:
    flat = flatten_dict(run.config.to_dict(), sep=".")
    return {key: str(value) for key, value in flat.items() if key not in _NOT_OF_A_SETTING}


def _titles(settings: Sequence[tuple[dict[str, str], Run]]) -> list[str]:
    bases = [
        f"{run.config.model.encoder} {'with' if run.has_shape else 'without'} shape constraint" for _, run in settings
    ]
    titles = []
    for (config, _), base in zip(settings, bases, strict=True):
        rivals = [other for (other, _), title in zip(settings, bases, strict=True) if title == base]
        keys = [key for key in config if len({rival.get(key) for rival in rivals}) > 1]
        titles.append(", ".join([base, *(f"{key}={config[key]}" for key in keys)]))
    return titles
