"""The table of runs: one row per run, with its measurements or the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.reporting.folding import folded, wide
from dtsim.reporting.labels import swept, text
from dtsim.reporting.runs import row_of, table_of
from dtsim.results.folders import failed, why_failed

Row: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True)
class RunColumn:
    """A column of the table of runs."""

    header: str
    """Header, at most two lines."""
    long: str
    """Name in a table of one run."""
    cell: Callable[[Row], str]
    """Text of the cell for a row of `runs.load`."""
    justify: Literal["left", "right"] = "right"


def _percent(share: float) -> str:
    """A share in percent; a dash if it is unknown."""
    return "–" if math.isnan(share) else f"{100 * share:z.1f} %"  # z: no -0.0


NAMING = (
    RunColumn("scheme", "scheme", lambda run: str(run["scheme"]), justify="left"),
    RunColumn("MUs", "mobile users", lambda run: str(run["mu"])),
    RunColumn("seed", "seed", lambda run: str(run["seed"])),
)
"""What names a run; the keys that are swept come before them."""

_P95 = "system_delay_p95_s"

MEASURED = (
    RunColumn("delay\nmean ms", "system delay, mean", lambda run: f"{1e3 * run['system_delay_mean_s']:.1f} ms"),
    RunColumn("delay\np95 ms", "system delay, 95th percentile", lambda run: f"{1e3 * run[_P95]:.1f} ms"),
    RunColumn("accu-\nracy", "accuracy, mean", lambda run: f"{run['accuracy_mean']:.3f}"),
    RunColumn("break-\nouts", "break-outs of MU-slots", lambda run: _percent(run["breakout_rate"])),
    RunColumn("frame\nb.-outs", "break-outs of MU-frames", lambda run: _percent(run["frame_breakout_rate"])),
    RunColumn("re-\ntrains", "retrainings", lambda run: str(run["retrains"])),
    RunColumn("training\nwork", "retraining work", lambda run: f"{run['retrain_flop'] / 1e9:,.0f} GFLOP"),
    RunColumn("allocator", "allocator", lambda run: str(run.get("choice.allocator", run["allocator"])), justify="left"),
    RunColumn("alloc.\ngap", "allocation above the optimum, mean", lambda run: _percent(run["allocator_gap_mean"])),
    RunColumn("assoc.\ngap", "association's optimality gap, mean", lambda run: _percent(run["association_gap_mean"])),
    RunColumn("wall\ntime", "wall time", lambda run: f"{run['wall_time_s']:.0f} s"),
)


def swept_columns(rows: Sequence[Row]) -> list[RunColumn]:
    """A column for each key, other than mu and seed, that differs between runs of one scheme."""
    if not rows:
        return []
    table = table_of(rows)
    values = {key: dict(zip(table["folder"], text(table, key), strict=True)) for key in swept(table)}

    def column(key: str) -> RunColumn:
        return RunColumn(key, key, lambda run: values[key][run["folder"]], justify="left")

    return [column(key) for key in values]


def _of_one(run: Row) -> Table:
    shown = Table(show_header=False)
    for column in (*NAMING, *MEASURED):
        shown.add_row(column.long, Text(column.cell(run), justify=column.justify))
    return shown


@dataclass(frozen=True)
class NoResult:
    """Reason why a run has no result."""

    state: str
    """The state in one or two words."""
    why: str
    """The reason in one line; empty if the state says it all."""


def _of_many(
    runs: Sequence[tuple[Path, Row | NoResult]], naming: Sequence[RunColumn], columns: Sequence[RunColumn]
) -> Table:
    shown = Table()
    for column in columns:
        shown.add_column(column.header, justify=column.justify, no_wrap=column not in naming, overflow="fold")
    for folder, run in runs:
        if isinstance(run, NoResult):
            named = {"scheme": folder.parent.parent.name, "MUs": folder.parent.name.removeprefix("mu=")}
            named["seed"] = folder.name.removeprefix("seed=").split("-")[0]
            cells = [named.get(column.header, "") if column in naming else None for column in columns]
            first = cells.index(None) if None in cells else len(cells)
            shown.add_row(*(Text(run.state, style="red") if n == first else (c or "") for n, c in enumerate(cells)))
        else:
            # The unit is in the header or in the first line, so that the numbers of a column are easy to compare.
            shown.add_row(*(Text(column.cell(run).removesuffix(" ms")) for column in columns))
    return shown


def _seen(folder: Path) -> Row | NoResult:
    """The measurements and keys of a run, or the reason why it has no result."""
    if failed(folder):
        return NoResult("failed", why_failed(folder))
    if not folder.is_dir():
        return NoResult("not run", "")
    try:
        return row_of(folder)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return NoResult("damaged", str(error))


def show(folders: Sequence[Path], console: Console | None = None) -> set[Path]:
    """Print the table of `folders` and the location of their files; what is wider than the terminal goes on below.

    Returns:
        The folders without a result; the reason of each was printed.
    """
    console = wide(console or Console())
    runs = [(folder, _seen(folder)) for folder in folders]
    only = runs[0][1] if len(runs) == 1 else None
    if only is not None and not isinstance(only, NoResult):
        console.print(_of_one(only))
        console.print(f"results: {folders[0]}/*.csv", highlight=False, soft_wrap=True, markup=False)
    else:
        naming = [*swept_columns([run for _, run in runs if not isinstance(run, NoResult)]), *NAMING]
        for part in folded(console, naming, MEASURED, lambda columns: _of_many(runs, naming, columns)):
            console.print(part)
        console.print("delay: system delay of a slot; gaps: to the exact optimum", style="dim")
    empty = {folder: run for folder, run in runs if isinstance(run, NoResult)}
    for folder, run in empty.items():
        if run.why:
            show_left_out(console, folder, run.state, run.why)
    return set(empty)


def show_left_out(console: Console, folder: Path, state: str, why: str) -> None:
    """Print in one line why a run is not in a table."""
    line = f"{state}: {folder}: {why}" if str(folder) not in why else f"{state}: {why}"
    console.print(line, highlight=False, soft_wrap=True, style="red", markup=False)
