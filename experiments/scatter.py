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
_COLUMNS = 4  # panels beside one another
_PLACES = ((0, 9), (0, -10), (9, 0), (-9, 0), (8, 10), (-8, 10), (8, -10), (-8, -10), (0, 19), (0, -20))  # of a name


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
    height = 4.2 + 0.4 * max(len(series) for series in panels.values())
    figure = Figure(figsize=(5.5 * len(panels), height), layout="constrained")
    drawn = []
    for column, (title, shown) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), column + 1)
        drawn.append((axes, shown))
        for number, one in enumerate(shown):
            _draw(axes, one, number)
        _dress(axes, title, first=column == 0)
        if shown:
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=8, frameon=False)
    _name_classes(figure, drawn)
    return figure_png(figure)


def by_setting(panels: Mapping[str, Sequence[Series]]) -> bytes:
    """PNG of a panel a measure and series, as in Fig. 6: a measure's series side by side, at most _COLUMNS."""
    most = max(len(series) for series in panels.values())
    columns, lines = min(most, _COLUMNS), -(-most // _COLUMNS)
    figure = Figure(figsize=(3.4 * columns + 0.4, 3.6 * lines * len(panels)), layout="constrained")
    drawn = []
    for number, (title, shown) in enumerate(panels.items()):
        for i, one in enumerate(shown):
            line, column = divmod(i, columns)
            axes = figure.add_subplot(lines * len(panels), columns, (number * lines + line) * columns + column + 1)
            drawn.append((axes, [one]))
            _draw(axes, one, i)
            _dress(axes, title, first=column == 0)
            axes.set_title(f"{textwrap.fill(one.title, 42)}\n{told(one.correlation, len(one.x))}", fontsize=8)
    _name_classes(figure, drawn)
    return figure_png(figure)


def told(correlation: Correlation | None, classes: int) -> str:
    """What a figure says of a correlation: r and p, or that there are too few classes."""
    if correlation is None or not correlation.means_something:
        return f"{classes} classes, fewer than {FEWEST_CLASSES}: no r, no p"
    p = "p < 0.001" if correlation.p < 0.001 else f"p = {correlation.p:.3f}"
    return f"r = {correlation.r:+.2f}, {p}, {classes} classes"


def _draw(axes: Any, one: Series, number: int) -> None:
    colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number // len(_COLOURS) % len(_MARKERS)]
    label = f"{textwrap.fill(one.title, 60)}\n{told(one.correlation, len(one.x))}"
    axes.scatter(one.x, one.iou, s=36, marker=marker, label=label, linewidths=1.2, edgecolors=colour, zorder=3,
                 facecolors="none" if one.bound else colour)  # fmt: skip
    if one.correlation and one.correlation.means_something:
        ends = np.array([one.x.min(), one.x.max()])
        axes.plot(ends, np.polyval(np.polyfit(one.x, one.iou, 1), ends), color=colour, linewidth=1,
                  linestyle="--" if one.bound else "-", zorder=2)  # fmt: skip


def _name_classes(figure: Figure, panels: Sequence[tuple[Any, Sequence[Series]]]) -> None:
    """Each class's name, once a panel, beside its highest point, where it covers least of points and other names."""
    figure.draw_without_rendering()  # places in pixels mean nothing before the layout stands
    unit = figure.dpi / 72  # pixels of a typographic point, in which offsets and letters are measured
    for axes, shown in panels:
        points = [(y, x, name) for one in shown for name, x, y in zip(one.names, one.x, one.iou, strict=True)]
        places = axes.transData.transform([(x, y) for y, x, _ in points] or np.empty((0, 2))) / unit
        left, bottom, right, top = axes.bbox.extents / unit
        taken = [_box(x, y, 4, 4) for x, y in places]
        taken += [(left - 99, left, bottom, top), (right, right + 99, bottom, top)]  # names stay inside the axes
        for name, (x, y) in {name: (x, y) for y, x, name in sorted(points)}.items():
            at, half = axes.transData.transform((x, y)) / unit, 2.1 * len(name)
            boxes = {(dx, dy): _box(at[0] + dx + np.sign(dx) * half, at[1] + dy, half, 4) for dx, dy in _PLACES}
            best = min(boxes, key=lambda place: sum(_shared(boxes[place], box) for box in taken))
            taken.append(boxes[best])
            side = ("center", "left", "right")[int(np.sign(best[0]))]
            axes.annotate(name, (x, y), xytext=best, textcoords="offset points", fontsize=7, ha=side, va="center",
                          color="#444444", in_layout=False)  # fmt: skip


def _box(x: float, y: float, half_width: float, half_height: float) -> tuple[float, float, float, float]:
    return x - half_width, x + half_width, y - half_height, y + half_height


def _shared(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Area that two boxes share."""
    return max(0, min(a[1], b[1]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[2], b[2]))


def _dress(axes: Any, title: str, *, first: bool) -> None:
    axes.set_xlabel(title, fontsize=9)
    axes.set_ylabel("IoU (%)" if first else "", fontsize=9)
    axes.set_ylim(0, 100)
    axes.margins(x=0.12)
    axes.tick_params(labelsize=8)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.set_axisbelow(True)
