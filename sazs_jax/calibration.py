"""Words outside the training vocabulary against those inside it.

Training pulls every pixel to a trained word, so beside trained words an untrained one hardly wins a pixel. A constant
on the cosines of untrained words makes up for it (Chao et al. 2016 subtract it from the trained ones). It is chosen on
classes that training left out, by `python -m experiments calibration`, and kept in the work directory.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from sazs_jax.atomic import write_atomically
from sazs_jax.errors import UserError
from sazs_jax.text import find_name

_FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """What is added to the cosine of a word that training did not know.

    Attributes:
      constant: in units of the cosine, not negative.
      trained: the words of the training, "others" not among them.
    """

    constant: float
    trained: tuple[str, ...]

    def constants(self, words: Sequence[str]) -> Float[np.ndarray, "K"]:
        """Of each word: 0 for a trained one, under either of its names, else the constant."""
        return np.array([0.0 if find_name(word, self.trained) else self.constant for word in words], np.float32)

    @classmethod
    def load(cls, workdir: str | os.PathLike) -> "Calibration | None":
        """That of a work directory; None where it was never calibrated.

        Raises:
          UserError: the file is damaged.
        """
        path = Path(workdir) / _FILE
        if not path.exists():
            return None
        try:
            stored = json.loads(path.read_text())
            constant = float(stored["constant"])
            if not 0 <= constant < math.inf:
                raise ValueError(f"constant {constant}")
            return cls(constant, tuple(map(str, stored["trained"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path} is damaged ({type(error).__name__}); remove it, or choose the constant anew: "
                "python -m experiments calibration"
            ) from error

    def save(self, workdir: str | os.PathLike) -> None:
        """Write it into a work directory."""
        write_atomically(Path(workdir) / _FILE, json.dumps(asdict(self), indent=2) + "\n")


def calibrate(
    logits: Float[Array, "B h w K"], constants: Float[Array, "W"], *, background: bool = True
) -> Float[Array, "B h w K"]:
    """Add a constant to each word's cosine.

    What is background stays so: its logit moves with the best word's, hence words that all have the same constant are
    found where they were without it.

    Args:
      logits: cosines in [-1, 1].
      constants: of the words.
      background: the first label is none of the words (K = 1 + W, else K = W).
    """
    if not background:
        return logits + constants
    words = logits[..., 1:]
    calibrated = words + constants
    rise = calibrated.max(axis=-1, keepdims=True) - words.max(axis=-1, keepdims=True)
    return jnp.concatenate([logits[..., :1] + rise, calibrated], axis=-1)
