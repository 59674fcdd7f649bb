"""The table of runs: one row per run, with its measurements or the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Protocol, TypeVar

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dtsim.results.folders import failed, read_run, why_failed
from dtsim.results.seal import read_result


class _HasRank(Protocol):
    @property
    def rank(self) -> int: ...


Ranked = TypeVar("Ranked", bound=_HasRank)


@dataclass(frozen=True)
class RunColumn:
    """A column of the table of runs."""

    header: str
    """Header, at most two lines."""
    long: str
    """Name in a table of one run."""
    cell: Callable[[Any], str]
    """Text of the cell for a row of run.csv."""
    rank: int = 0
    """Order of omission in a narrow terminal: the highest rank is left out first."""
    justify: Literal["left", "right"] = "right"


def _percent(share: float) -> str:
    """A share in percent; a dash if it is unknown."""
    return "–" if math.isnan(share) else f"{100 * share:z.1f} %"  # z: no -0.0


COLUMNS = (
    RunColumn("scheme", "scheme", lambda run: str(run.scheme), justify="left"),
    RunColumn("MUs", "mobile users", lambda run: str(run.mu)),
    RunColumn("seed", "seed", lambda run: str(run.seed)),
    RunColumn("delay\nmean ms", "system delay, mean", lambda run: f"{1e3 * run.system_delay_mean_s:.1f} ms"),
    RunColumn("delay\np95 ms", "system delay, 95th percentile", lambda run: f"{1e3 * run.system_delay_p95_s:.1f} ms"),
    RunColumn("accu-\nracy", "accuracy, mean", lambda run: f"{run.accuracy_mean:.3f}"),
    RunColumn("break-\nouts", "break-outs of MU-slots", lambda run: _percent(run.breakout_rate), rank=3),
    RunColumn("frame\nb.-outs", "break-outs of MU-frames", lambda run: _percent(run.frame_breakout_rate)),
    RunColumn("re-\ntrains", "retrainings", lambda run: str(run.retrains)),
    RunColumn("training\nwork", "retraining work", lambda run: f"{run.retrain_flop / 1e9:,.0f} GFLOP", rank=2),
    RunColumn("allocator", "allocator", lambda run: str(run.allocator), rank=4, justify="left"),
    RunColumn(
        "alloc.\ngap", "allocation above the optimum, mean", lambda run: _percent(run.allocator_gap_mean), rank=1
    ),
    RunColumn(
        "assoc.\ngap",
        "association's optimality gap, mean",
        lambda run: _percent(run.association_gap_mean),
        rank=1,
    ),
    RunColumn("wall\ntime", "wall time", lambda run: f"{run.wall_time_s:.0f} s", rank=5),
)


def _of_one(run: Any) -> Table:
    shown = Table(show_header=False)
    for column in COLUMNS:
        shown.add_row(column.long, Text(column.cell(run), justify=column.justify))
    return shown


@dataclass(frozen=True)
class NoResult:
    """Reason why a run has no result."""

    state: str
    """The state in one or two words."""
    why: str
    """The reason in one line; empty if the state says it all."""


def _of_many(runs: Sequence[tuple[Path, SimpleNamespace | NoResult]], columns: Sequence[RunColumn]) -> Table:
    shown = Table()
    for column in columns:
        shown.add_column(column.header, justify=column.justify, no_wrap=True)
    for folder, run in runs:
        if isinstance(run, NoResult):
            scheme, mu = folder.parent.parent.name, folder.parent.name.removeprefix("mu=")
            seed = folder.name.removeprefix("seed=").split("-")[0]
            shown.add_row(Text(scheme), Text(mu), Text(seed), Text(run.state, style="red"))
        else:
            # The unit is in the header or in the first line, so that the numbers of a column are easy to compare.
            shown.add_row(*(Text(column.cell(run).removesuffix(" ms")) for column in columns))
    return shown


def _seen(folder: Path) -> SimpleNamespace | NoResult:
    """The measurements of a run, or the reason why it has none."""
    if failed(folder):
        return NoResult("failed", why_failed(folder))
    if not folder.is_dir():
        return NoResult("not run", "")
    try:
        read_result(folder)
        return SimpleNamespace(**read_run(folder))
    except (OSError, ValueError) as error:
        return NoResult("damaged", str(error))


def show(folders: Sequence[Path], console: Console | None = None) -> set[Path]:
    """Print the table of `folders` and the location of their files; a narrow terminal gets fewer columns.

    Returns:
        The folders without a result; the reason of each was printed.
    """
    console = console or Console()
    if not console.is_terminal:
        console = Console(width=150)  # a log file has no width
    runs = [(folder, _seen(folder)) for folder in folders]
    only = runs[0][1] if len(runs) == 1 else None
    if isinstance(only, SimpleNamespace):
        console.print(_of_one(only))
        console.print(f"results: {folders[0]}/*.csv", highlight=False, soft_wrap=True, markup=False)
    else:
        console.print(fitting(console, COLUMNS, lambda columns: _of_many(runs, columns)))
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


def fitting(console: Console, columns: Sequence[Ranked], table: Callable[[list[Ranked]], Table]) -> Table:
    """`table` with as many of `columns` as the console's width allows."""
    kept = list(columns)
    shown = table(kept)
    while Measurement.get(console, console.options.update(max_width=10_000), shown).maximum > console.width:
        widest = max(kept, key=lambda column: column.rank)
        if widest.rank == 0:
            break
        kept.remove(widest)
        shown = table(kept)
    return shown
