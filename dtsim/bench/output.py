"""Output: tables for people and CSV files for programs."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.core.cache import write_atomically


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write `rows` with identical keys as CSV, atomically by rename."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode())


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    """Print `rows` with identical keys as a table."""
    table = Table(title=Text(title, style="italic"), title_justify="left")
    for place, name in enumerate(rows[0]):
        table.add_column(name, justify="right" if place else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(Text, row.values()))
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)  # a log file has no width
    console.print(table)


def tell(lines: Sequence[str]) -> None:
    """Print `lines` without formatting."""
    for line in lines:
        Console().print(line, highlight=False, soft_wrap=True, markup=False)
