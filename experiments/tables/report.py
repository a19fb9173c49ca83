"""A table as Markdown and as CSV. What looks at the ground truth stands apart, under a head that says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from experiments.csv_text import csv_text
from experiments.tables.cells import Cell
from experiments.tables.parts import FUSED, Column, Row, Section, Table
from experiments.tables.published import Published

UPPER_BOUND = "Oracle (upper bound): masks chosen by the ground truth"


@dataclass(frozen=True)
class Filled:
    """A section with its cells, a row of them for each of its rows."""

    section: Section
    cells: Sequence[Sequence[Cell]]


def markdown(table: Table, filled: Sequence[Filled], notes: Sequence[str], *, fusion: str, seeds: int) -> str:
    """The table, its notes, and below it the reasons for what was not measured."""
    reasons: dict[str, int] = {}

    def told(cell: Cell, published: bool) -> str:
        if cell.value is None and published:
            return "-"
        mark = f" [{reasons.setdefault(cell.missing, len(reasons) + 1)}]" if cell.missing else ""
        if cell.value is None:
            return f"not measured{mark}"
        spread = "" if cell.spread is None else f" ± {cell.spread:.1f}"
        share = f" ({cell.seeds} of {seeds} seeds)" if cell.missing else ""
        return f"{cell.value:.1f}{spread}{share}{mark}"

    lines = [f"# {table.title}", "", *(line for note in (*notes, *table.notes) for line in (note, ""))]
    for part in filled:
        section = part.section
        for bound in (False, True):
            chosen = [(row, cells) for row, cells in zip(section.rows, part.cells, strict=True) if row.bound == bound]
            if not chosen:
                continue
            lines += [f"## {section.title}" + (f". {UPPER_BOUND}" if bound else ""), ""]
            head = ["method", "encoder", "fusion", "source"]
            body = [
                [*_about(row, fusion), *(told(cell, isinstance(row, Published)) for cell in cells)]
                for row, cells in chosen
            ]
            rows = [[*head, *(_head(column) for column in section.columns)], *body]
            if section.transposed:
                joined = [", ".join(row[:3]) for row in rows[1:]]
                rows = [["class", *joined], *map(list, zip(*(row[4:] for row in rows), strict=True))]
            lines += [_line(rows[0]), "|" + "---|" * len(rows[0]), *map(_line, rows[1:]), ""]
    if reasons:
        lines += ["Not measured:", "", *(f"{number}. {reason}" for reason, number in reasons.items()), ""]
    return "\n".join(lines).rstrip() + "\n"


def csv(table: str, filled: Sequence[Filled], *, fusion: str) -> str:
    """A line a cell."""
    return csv_text(
        {
            "table": table,
            "section": part.section.title,
            **dict(zip(("method", "encoder", "fusion", "source"), _about(row, fusion), strict=True)),
            "upper_bound": row.bound,
            "column": column.title,
            "unit": column.unit,
            "value": cell.value,
            "spread": cell.spread,
            "seeds": cell.seeds or None,
            "not_measured": cell.missing or None,
        }
        for part in filled
        for row, cells in zip(part.section.rows, part.cells, strict=True)
        for column, cell in zip(part.section.columns, cells, strict=True)
    )


def _about(row: Row | Published, fusion: str) -> tuple[str, str, str, str]:
    """Method, encoder, fusion and source."""
    if isinstance(row, Published):
        return row.method, row.encoder, "oracle" if row.bound else "-", "published"
    return row.method, row.setting.variant, fusion if row.rule == FUSED else row.rule, "ours"


def _head(column: Column) -> str:
    return column.title if column.unit in ("%", column.title) else f"{column.title}, {column.unit}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
