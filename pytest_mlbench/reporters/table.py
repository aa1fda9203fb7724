"""Lay out a plain text table: columns as wide as their content, numbers to the right."""

from __future__ import annotations

from collections.abc import Sequence


class Table:
    """Rows under a heading. `right` are the columns whose cells stand to the right."""

    def __init__(self, heading: Sequence[str], right: Sequence[str] = ()) -> None:
        self._heading = tuple(heading)
        self._right = {self._heading.index(name) for name in right}
        self._rows: list[tuple[str, ...]] = []

    def add(self, *cells: str) -> None:
        """Add a row; it has as many cells as the heading."""
        if len(cells) != len(self._heading):
            raise ValueError(f"{len(cells)} cells for {len(self._heading)} columns")
        self._rows.append(cells)

    def lines(self) -> list[str]:
        """Return heading, rule and rows."""
        rows = [self._heading, *self._rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self._heading))]

        def laid(row: Sequence[str]) -> str:
            cells = [
                cell.rjust(width) if column in self._right else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        return [laid(self._heading), "  ".join("-" * width for width in widths), *map(laid, self._rows)]
