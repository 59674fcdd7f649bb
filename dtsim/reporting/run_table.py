"""The table of runs: one row per run, with its measurements or the reason why it has none."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.reporting.folding import folded, wide
from dtsim.reporting.labels import swept, telling_apart, text
from dtsim.reporting.passing import CONSERVED, time_passes
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
    where: Callable[[Row], bool] = lambda run: True
    """Whether it says something about a run."""


def _percent(share: float) -> str:
    """A share in percent; a dash if it is unknown."""
    return "–" if math.isnan(share) else f"{100 * share:z.1f} %"  # z: no -0.0


def _where(where: Callable[[Row], bool], *columns: RunColumn) -> list[RunColumn]:
    """`columns` for such runs alone; the cell of another run is a dash."""

    def of(column: RunColumn) -> RunColumn:
        return replace(column, where=where, cell=lambda run: column.cell(run) if where(run) else "–")

    return [of(column) for column in columns]


NAMING = (
    RunColumn("scheme", "scheme", lambda run: str(run["scheme"]), justify="left"),
    RunColumn("MUs", "mobile users", lambda run: str(run["mu"])),
    RunColumn("seed", "seed", lambda run: str(run["seed"])),
)
"""What names a run; the keys that are swept come before them."""

_P95 = "system_delay_p95_s"
_TASK_P95 = "user_delay_p95_s"


def _number(value: float, unit: str = "", scale: float = 1.0, digits: int = 0) -> str:
    """A number with its unit; a dash if it is unknown."""
    return "–" if math.isnan(value) else f"{scale * value:,.{digits}f}{unit}"


def _counts(run: Row, *names: str) -> str:
    """Counts, one after the other."""
    return " / ".join(_number(run[name]) for name in names)


def _ms(run: Row, name: str) -> str:
    """A delay; a dash if an older version did not measure it."""
    return _number(run.get(name, math.nan), " ms", 1e3, 1)


def _apart(run: Row) -> bool:
    return not time_passes(run)


def _leaks(run: Row) -> bool:
    return time_passes(run) and float(run["conservation_error"]) > CONSERVED


_COLUMNS = (
    RunColumn("delay\nmean ms", "system delay, mean", lambda run: f"{1e3 * run['system_delay_mean_s']:.1f} ms"),
    RunColumn("delay\np95 ms", "system delay, 95th percentile", lambda run: f"{1e3 * run[_P95]:.1f} ms"),
    RunColumn("task\nmean ms", "task delay, mean", lambda run: _ms(run, "user_delay_mean_s"), where=time_passes),
    RunColumn("task\np95 ms", "task delay, 95th percentile", lambda run: _ms(run, _TASK_P95), where=time_passes),
    *_where(
        time_passes,
        RunColumn("late", "tasks that missed their deadline", lambda run: _percent(run["deadline_miss_rate"])),
        RunColumn(
            "wait /\ndropped",
            "tasks waiting at the end / dropped",
            lambda run: _counts(run, "tasks_waiting", "tasks_dropped"),
        ),
    ),
    RunColumn("accu-\nracy", "accuracy, mean", lambda run: f"{run['accuracy_mean']:.3f}"),
    RunColumn("break-\nouts", "break-outs of MU-slots", lambda run: _percent(run["breakout_rate"])),
    RunColumn("frame\nb.-outs", "break-outs of MU-frames", lambda run: _percent(run["frame_breakout_rate"])),
    RunColumn("re-\ntrains", "retrainings", lambda run: str(run["retrains"])),
    *_where(
        time_passes,
        RunColumn(
            "asked / done\n/ stopped",
            "updates asked for / done / stopped",
            lambda run: _counts(run, "jobs", "jobs_done", "jobs_stopped"),
        ),
        RunColumn(
            "stale", "time until an update serves, mean", lambda run: _number(run["stale_mean_s"], " s", digits=1)
        ),
    ),
    RunColumn("training\nwork", "retraining work", lambda run: f"{run['retrain_flop'] / 1e9:,.0f} GFLOP"),
    *_where(
        time_passes,
        RunColumn("energy\na task", "energy per task", lambda run: _number(run["energy_per_task_j"], " mJ", 1e3, 2)),
        RunColumn("hand-\novers", "handovers", lambda run: _number(run["handovers"])),
    ),
    RunColumn("allocator", "allocator", lambda run: str(run.get("choice.allocator", run["allocator"])), justify="left"),
    *_where(
        _apart,
        RunColumn("alloc.\ngap", "allocation above the optimum, mean", lambda run: _percent(run["allocator_gap_mean"])),
    ),
    RunColumn("assoc.\ngap", "association's optimality gap, mean", lambda run: _percent(run["association_gap_mean"])),
    *_where(
        _leaks,
        RunColumn("work\nlost", "work lost or made, largest share", lambda run: f"{run['conservation_error']:.1e}"),
    ),
    RunColumn("wall\ntime", "wall time", lambda run: f"{run['wall_time_s']:.0f} s"),
)


def measured(rows: Iterable[Row]) -> list[RunColumn]:
    """The columns that say something about at least one of the runs in `rows`."""
    told = list(rows)
    return [column for column in _COLUMNS if not told or any(map(column.where, told))]


def legend_of(rows: Sequence[Row]) -> list[str]:
    """What the headers of the table of `rows` mean, in lines."""
    lines = ["delay: system delay of a slot; gaps: to the exact optimum"]
    if any(map(time_passes, rows)):
        lines.append(
            "late: tasks that missed their deadline; stale: from asking for an update to its serving at the BS"
        )
    return lines


def swept_columns(rows: Sequence[Row]) -> list[RunColumn]:
    """A column for each key, other than mu and seed, that differs between runs of one scheme."""
    if not rows:
        return []
    table = table_of(rows)
    values = {
        key: dict(zip(table["folder"], text(table, key), strict=True)) for key in telling_apart(table, swept(table))
    }

    def column(key: str) -> RunColumn:
        return RunColumn(key, key, lambda run: values[key][run["folder"]], justify="left")

    return [column(key) for key in values]


def _of_one(run: Row) -> Table:
    shown = Table(show_header=False)
    for column in (*NAMING, *measured([run])):
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
        rows = [run for _, run in runs if not isinstance(run, NoResult)]
        naming = [*swept_columns(rows), *NAMING]
        for part in folded(console, naming, measured(rows), lambda columns: _of_many(runs, naming, columns)):
            console.print(part)
        for line in legend_of(rows):
            console.print(line, style="dim", highlight=False)
    empty = {folder: run for folder, run in runs if isinstance(run, NoResult)}
    for folder, run in empty.items():
        if run.why:
            show_left_out(console, folder, run.state, run.why)
    return set(empty)


def show_left_out(console: Console, folder: Path, state: str, why: str) -> None:
    """Print in one line why a run is not in a table."""
    line = f"{state}: {folder}: {why}" if str(folder) not in why else f"{state}: {why}"
    console.print(line, highlight=False, soft_wrap=True, style="red", markup=False)
