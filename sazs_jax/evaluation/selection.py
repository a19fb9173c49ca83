"""Scores on the selection images, which choose a run's best checkpoint: the seen classes' episodes."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
from jaxtyping import Float
from ml_collections import ConfigDict

from sazs_jax.evaluation.episodes import LabelledImage
from sazs_jax.evaluation.evaluator import Evaluator
from sazs_jax.models.sazs import SAZS


def selection_scores(
    class_names: Sequence[str],
    seen: Sequence[int],
    anchors: Float[np.ndarray, "K D"],
    config: ConfigDict,
    read_images: Callable[[], Iterable[LabelledImage]],
) -> Callable[[SAZS], dict[str, float | None]]:
    """A function that scores a model: `miou`, which chooses, and `fbiou`.

    Args:
      class_names: of the data set.
      seen: 0-based classes to score.
      anchors: "others", then a row a class.
      config: the whole config; images are squashed to `data.crop`, one size for one compilation.
      read_images: opens the images anew with their episodes of seen classes.
    """
    evaluator = Evaluator(
        class_names,
        seen,
        anchors,
        resize=config.data.crop,
        batch_size=config.eval.batch_size,
        boundary=False,
        generalized=False,
    )

    def scores(model: SAZS) -> dict[str, float | None]:
        found = evaluator.run(model, read_images())["fusion"]["none"]
        return {name: found[name] for name in ("miou", "fbiou")}

    return scores
