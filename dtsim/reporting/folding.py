"""Tables that are wider than the terminal: their columns go on below, and what names a row is repeated there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

Column = TypeVar("Column")


def folded(
    console: Console, naming: Sequence[Column], columns: Sequence[Column], table: Callable[[list[Column]], Table]
) -> Iterator[Table]:
    """`table` of all columns if the console is wide enough, else several with as many as fit; none is left out.

    Args:
        console: where the tables are shown.
        naming: the columns that name a row, which each table begins with; they wrap where there is no room.
        columns: the other columns, in order.
        table: makes a table of some columns.
    """
    widths = {id(column): _width(console, table([column])) for column in (*naming, *columns)}
    first, second = (*naming, *columns)[:2]
    between = _width(console, table([first, second])) - widths[id(first)] - widths[id(second)]

    def width(shown: Sequence[Column]) -> int:
        return sum(widths[id(column)] for column in shown) + between * (len(shown) - 1)

    block: list[Column] = []
    for column in columns:
        if block and width([*naming, *block, column]) > console.width:
            yield table([*naming, *block])
            block = []
        block.append(column)
    yield table([*naming, *block])


def wide(console: Console) -> Console:
    """`console`, or one of 180 columns where the output is no terminal: a log file has no width."""
    return console if console.is_terminal else Console(width=180)


def _width(console: Console, table: Table) -> int:
    table.title = None  # it wraps, and needs no width
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum
