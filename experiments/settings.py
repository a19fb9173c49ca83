"""Which runs are one setting of the paper's figures: those that differ in nothing but their fold."""

from collections.abc import Sequence

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
        flat = flatten_dict(run.config.to_dict(), sep=".")
        members = groups.setdefault(tuple((k, str(v)) for k, v in flat.items() if k not in _NOT_OF_A_SETTING), [])
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
