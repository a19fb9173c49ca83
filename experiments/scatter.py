"""Scatter plots of a measure of classes against their IoU: all settings in one, and a panel each."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.class_measures import FEWEST_CLASSES, Correlation

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")  # Okabe and Ito
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DPI = 150


class Series(NamedTuple):
    """One setting under one rule in one panel."""

    title: str
    x: Float[np.ndarray, "N"]
    iou: Float[np.ndarray, "N"]  # percent
    names: list[str]
    correlation: Correlation | None
    bound: bool  # of the rule that looks at the ground truth: drawn hollow


def figure_png(figure: Figure) -> bytes:
    """PNG file of a figure, cut to what is drawn."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DPI, bbox_inches="tight", facecolor="white")
    return buffer.getvalue()


def all_in_one(panels: Mapping[str, Sequence[Series]]) -> bytes:
    """PNG of a panel a measure, every series in each, as in Fig. 5. The legend below tells r and p."""
    height = 4 + 0.55 * max(len(series) for series in panels.values())
    figure = Figure(figsize=(5.5 * len(panels), height), layout="constrained")
    for column, (title, shown) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), column + 1)
        for number, one in enumerate(shown):
            _draw(axes, one, number)
        _name_classes(axes, shown)
        _dress(axes, title, first=column == 0)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False)
    return figure_png(figure)


def by_setting(panels: Mapping[str, Sequence[Series]]) -> bytes:
    """PNG of a grid: a row a measure, a column a series, as in Fig. 6."""
    columns = max(len(series) for series in panels.values())
    figure = Figure(figsize=(3.4 * columns + 0.4, 3.5 * len(panels)), layout="constrained")
    for row, (title, shown) in enumerate(panels.items()):
        for column, one in enumerate(shown):
            axes = figure.add_subplot(len(panels), columns, row * columns + column + 1)
            _draw(axes, one, column)
            _name_classes(axes, [one])
            _dress(axes, title, first=column == 0)
            head = textwrap.fill(one.title, 40) + "\n" if row == 0 else ""
            axes.set_title(head + told(one.correlation, len(one.x)), fontsize=8)
    return figure_png(figure)


def told(correlation: Correlation | None, classes: int) -> str:
    """What a figure says of a correlation: r and p, or that there are too few classes."""
    if correlation is None or not correlation.means_something:
        return f"{classes} classes, fewer than {FEWEST_CLASSES}: no r, no p"
    p = "p < .001" if correlation.p < 0.001 else f"p = {correlation.p:.3f}"
    return f"r = {correlation.r:+.2f}, {p}, {classes} classes"


def _draw(axes: Any, one: Series, number: int) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
    label = f"{textwrap.fill(one.title, 60)}\n{told(one.correlation, len(one.x))}"
    axes.scatter(one.x, one.iou, s=36, marker=marker, label=label, linewidths=1.2, edgecolors=colour, zorder=3,
                 facecolors="white" if one.bound else colour)  # fmt: skip
    if one.correlation and one.correlation.means_something:
        ends = np.array([one.x.min(), one.x.max()])
        axes.plot(ends, np.polyval(np.polyfit(one.x, one.iou, 1), ends), color=colour, linewidth=1,
                  linestyle="--" if one.bound else "-", zorder=2)  # fmt: skip


def _name_classes(axes: Any, shown: Sequence[Series]) -> None:
    """Each class's name, once, above its highest point."""
    highest: dict[str, tuple[float, float]] = {}
    for one in shown:
        for name, x, iou in zip(one.names, one.x.tolist(), one.iou.tolist(), strict=True):
            if name not in highest or iou > highest[name][1]:
                highest[name] = (x, iou)
    for name, place in highest.items():
        axes.annotate(name, place, xytext=(0, 5), textcoords="offset points", fontsize=7, ha="center", color="#444444")


def _dress(axes: Any, title: str, *, first: bool) -> None:
    axes.set_xlabel(title, fontsize=9)
    axes.set_ylabel("IoU (%)" if first else "", fontsize=9)
    axes.set_ylim(0, 100)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
