"""TensorBoard: scalars and images, written by host 0 alone."""

import os
from collections.abc import Mapping

import jax
import numpy as np
from tensorboardX import SummaryWriter


class TensorBoard:
    """Event files in the work directory; does nothing on any host but the first."""

    def __init__(self, workdir: str | os.PathLike, start: int):
        """Begin after step `start`; what an earlier, killed run wrote past it is not shown."""
        self._writer = None
        if jax.process_index() == 0:
            self._writer = SummaryWriter(os.fspath(workdir), purge_step=start + 1 if start else None)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Write a scalar a name."""
        if self._writer:
            for name, value in values.items():
                self._writer.add_scalar(name, float(value), step)

    def image(self, name: str, image: np.ndarray, step: int) -> None:
        """Write one uint8 (H, W, 3) image."""
        if self._writer:
            self._writer.add_image(name, image, step, dataformats="HWC")

    def flush(self) -> None:
        """Put what was written on disk."""
        if self._writer:
            self._writer.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        if self._writer:
            self._writer.close()
