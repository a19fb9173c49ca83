"""A figure of rows of pictures under common column titles, each row with a name or a legend."""

import textwrap
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.legend import Legend
from matplotlib.patches import Patch

from experiments.scatter import figure_png
from sazs_jax.visualization import palette

_WIDTH = 2.2  # inches of a column
_LARGEST_RATIO = 1.2  # height over width of a cell; a higher picture is narrower than its column
_BELOW = 0.24  # inches below a row's pictures
_LEGEND = 0.2  # inches of a line of a legend


class Cell(NamedTuple):
    """One picture, its column's title and a line below it."""

    title: str
    picture: UInt8[np.ndarray, "H W 3"]
    below: str = ""


class Row(NamedTuple):
    """One image's pictures, all of one size."""

    name: str  # at the left
    cells: list[Cell]
    legend: Sequence[tuple[str, int, bool]] = ()  # name, label value, unseen


def panel_png(rows: Sequence[Row], note: str) -> bytes:
    """PNG of the rows; titles above the first, the meaning of the marks and `note` at the foot."""
    columns = len(rows[0].cells)
    per_line = max(1, columns // 2)  # words of a legend's half beside one another
    heights = []  # of a row's pictures, and of what is below them
    for row in rows:
        height, width = row.cells[0].picture.shape[:2]
        lines = max((-(-len(part) // per_line) for part in _parts(row)), default=0)
        heights.append(_WIDTH * min(height / width, _LARGEST_RATIO))
        heights.append(_BELOW + (_LEGEND * (1 + lines) if row.legend else 0))
    figure = Figure(figsize=(_WIDTH * columns, sum(heights)))
    edges = {"left": 0, "right": 1, "bottom": 0, "top": 1}
    grid = GridSpec(len(heights), columns, figure, height_ratios=heights, wspace=0.03, hspace=0, **edges)
    for i, row in enumerate(rows):
        for column, cell in enumerate(row.cells):
            axes = figure.add_subplot(grid[2 * i, column])
            axes.imshow(cell.picture, interpolation="antialiased")
            axes.set(xticks=[], yticks=[], anchor="S")
            for spine in axes.spines.values():
                spine.set_visible(False)
            if i == 0:
                axes.set_title(cell.title, fontsize=10)
            axes.set_xlabel(cell.below, fontsize=8, labelpad=2)
            if column == 0:
                axes.set_ylabel(row.name, fontsize=10)
        if row.legend:
            axes = figure.add_subplot(grid[2 * i + 1, :])
            axes.axis("off")
            _draw_legend(axes, row, per_line)
    foot = f"* unseen in training. Beige: void, not scored. {note}."
    figure.text(0, 0, textwrap.fill(foot, 32 * columns), fontsize=8, va="top")
    return figure_png(figure)


def _draw_legend(axes: Any, row: Row, per_line: int) -> None:
    """Seen words at the left, unseen ones, starred and hatched, at the right."""
    colours = (palette() / 255).tolist()
    for part, title, x in zip(_parts(row), ("seen", "unseen*"), (0.0, 0.5), strict=True):
        style: dict[str, Any] = {"edgecolor": "black", "linewidth": 0.6}
        if title == "unseen*":
            style["hatch"] = "////"
        handles = [Patch(facecolor=tuple(colours[value]), label=name, **style) for name, value, _ in part]
        if handles:
            place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (x, 1.0), "ncols": per_line}
            look: dict[str, Any] = {"fontsize": 8, "title_fontsize": 8, "frameon": False, "borderpad": 0.1}
            legend = Legend(axes, handles, [name for name, *_ in part], title=title, alignment="left", **place, **look)
            axes.add_artist(legend)


def _parts(row: Row) -> tuple[list, list]:
    """A legend's seen and unseen words."""
    return [entry for entry in row.legend if not entry[2]], [entry for entry in row.legend if entry[2]]
