"""The tables of a report: groups of runs, choices against a baseline, break-outs. Page and terminal show the same."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.reporting.along import SCHEME, Along
from dtsim.reporting.folding import folded
from dtsim.reporting.passing import passing
from dtsim.reporting.statistics import GROUP, Interval, aggregate, breakouts, paired


@dataclass(frozen=True)
class Measure:
    """A metric and its display."""

    name: str
    """Column in run.csv."""
    header: str
    """Header with the displayed unit, at most two lines."""
    scale: float = 1.0
    """Factor from the SI value to the displayed value."""
    where: Callable[[pd.DataFrame], pd.DataFrame] = lambda runs: runs
    """The runs that it says something about."""


def _apart(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs whose slots are priced one by one."""
    return runs.drop(passing(runs).index)


DELAY = Measure("system_delay_mean_s", "system\ndelay, ms", 1e3)
ACCURACY = Measure("accuracy_mean", "accuracy\n%", 100)
FRAME_BREAKOUTS = Measure("frame_breakout_rate", "frame\nbreak-outs, %", 100)
LATE = Measure("deadline_miss_rate", "missed\ndeadline, %", 100, where=passing)
MEASURES = (
    DELAY,
    Measure("system_delay_p95_s", "p95 delay\nms", 1e3),
    Measure("user_delay_mean_s", "task\ndelay, ms", 1e3, where=passing),
    Measure("user_delay_p95_s", "p95 task\ndelay, ms", 1e3, where=passing),
    LATE,
    Measure("tasks_waiting", "tasks\nwaiting", where=passing),
    Measure("tasks_dropped", "tasks\ndropped", where=passing),
    ACCURACY,
    FRAME_BREAKOUTS,
    Measure("retrains", "re-\ntrainings"),
    Measure("jobs", "updates\nasked for", where=passing),
    Measure("jobs_done", "updates\ndone", where=passing),
    Measure("jobs_stopped", "updates\nstopped", where=passing),
    Measure("stale_mean_s", "stale\ns", where=passing),
    Measure("retrain_flop", "retraining\nGFLOP", 1e-9),
    Measure("energy_per_task_j", "energy a\ntask, mJ", 1e3, where=passing),
    Measure("handovers", "hand-\novers", where=passing),
    Measure("allocator_gap_mean", "allocation\ngap, %", 100, where=_apart),
)
COMPARED = (DELAY, LATE, ACCURACY, FRAME_BREAKOUTS)


def measures(runs: pd.DataFrame) -> list[Measure]:
    """Those of `MEASURES` that say something about at least one of `runs`."""
    return [measure for measure in MEASURES if len(measure.where(runs))]


def _compared(runs: pd.DataFrame) -> list[Measure]:
    return [measure for measure in COMPARED if len(measure.where(runs))]


RESAMPLED = (
    "95 % bootstrap intervals over seeds, since the MU-slots of a seed are not independent; none where all seeds agree"
)


@dataclass(frozen=True)
class Column:
    """A column of a table of groups."""

    header: str
    """At most two lines."""
    cell: Callable[[dict[str, Any]], str]
    """Text of the cell for a row."""
    justify: Literal["left", "right"] = "right"
    names: bool = False
    """Whether it tells the row apart from others."""


@dataclass(frozen=True)
class Groups:
    """A table with a row for each group of runs."""

    title: str
    about: str
    """How it was made; continues the title."""
    columns: Sequence[Column]
    """Those that name a row first."""
    rows: Sequence[dict[str, Any]]
    note: str = ""
    """What stands below it."""


def spread(mean: float, low: float, high: float, *, sign: bool = False, even: bool = True) -> str:
    """A mean and its interval with two digits of the half-width: `118 ± 12`, or `118 [98, 131]` where not `even`."""
    if math.isnan(mean):
        return "–"
    half = (high - low) / 2
    plus = "+" if sign else ""
    if math.isnan(half):
        return f"{mean:{plus}z,.{_decimals(mean, 4)}f}"
    digits = _decimals(half, 2)
    if even:
        return f"{mean:{plus}z,.{digits}f} ± {half:,.{digits}f}"
    return f"{mean:{plus}z,.{digits}f} [{low:z,.{digits}f}, {high:z,.{digits}f}]"


def _decimals(value: float, significant: int) -> int:
    """Number of decimals, at most four, that shows `significant` significant digits of `value`."""
    shown = round(abs(value), 4)
    return min(4, max(0, significant - 1 - math.floor(math.log10(shown)))) if shown else 0


def probability(p: float) -> str:
    """A p-value as text."""
    return "–" if math.isnan(p) else "<0.001" if p < 0.001 else f"{p:.3f}"


def place(of: Along) -> list[Column]:
    """The columns that name the group of a row: further keys, the number of MUs, what is compared."""

    def value(key: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: of.named(row["variant"], row["scheme"])[key]

    def column(key: str) -> Column:
        return Column(key, value(key), "left", names=True)

    mu = [] if of.along_mu else [Column("MUs", lambda row: str(row["mu"]), names=True)]
    own = [Column("scheme", lambda row: str(row["scheme"]), "left", names=True)]
    return [*map(column, of.telling), *mu, *(own if of.keys == SCHEME else map(column, of.keys))]


def report(of: Along) -> Iterator[Groups]:
    """The tables of a report on schemes: means, comparisons with the baseline if there is one, break-outs."""
    yield means(of)
    if of.baseline is not None and (rows := comparisons(of)).rows:
        yield rows
    yield counted(of)


def side_by_side(of: Along) -> Groups:
    """One table with a row for each choice: its means, and how they differ from the baseline's."""
    shown, compared = measures(of.runs), _compared(of.runs)
    rows = wide(aggregate(of.runs, [measure.name for measure in shown], interval=of.interval))
    columns = [*place(of), _seeds(of)]
    baseline = of.baseline
    if baseline is None:
        columns += [Column(m.header, _spread_of(m, "mean", "low", "high", of.interval)) for m in shown]
        return Groups(f"by {of.title}", _means_title(of.interval), columns, rows)
    pairs = wide(paired(of.runs, [measure.name for measure in compared], baseline=baseline, interval=of.interval))
    versus = {(row["variant"], row["mu"], row["scheme"]): row for row in pairs}

    def beside(cell: Callable[[dict[str, Any]], str]) -> Callable[[dict[str, Any]], str]:
        def of_pair(row: dict[str, Any]) -> str:
            pair = versus.get((row["variant"], row["mu"], row["scheme"]))
            return cell(pair) if pair else "baseline" if row["scheme"] == baseline else "–"

        return of_pair

    for measure in (*compared, *(measure for measure in shown if measure not in compared)):
        columns.append(Column(measure.header, _spread_of(measure, "mean", "low", "high", of.interval)))
        if measure == DELAY:
            columns.append(Column("over\nbaseline's", beside(_ratio)))
        elif measure in compared:
            difference = _spread_of(measure, "difference", "difference_low", "difference_high", of.interval, sign=True)
            columns.append(Column("Δ, points", beside(difference)))
        if measure in compared:
            columns.append(Column("p\n(Holm)", beside(_p_of(measure))))
    return Groups(f"by {of.title}", f"on the same worlds, {_means_title(of.interval)}", columns, rows)


def means(of: Along) -> Groups:
    """The means over seeds."""
    shown = measures(of.runs)
    rows = wide(aggregate(of.runs, [measure.name for measure in shown], interval=of.interval))
    columns = [*place(of), _seeds(of)]
    columns += [Column(m.header, _spread_of(m, "mean", "low", "high", of.interval)) for m in shown]
    return Groups("schemes", _means_title(of.interval), columns, rows)


def comparisons(of: Along) -> Groups:
    """The paired comparisons with the baseline, which there must be."""
    assert of.baseline is not None
    compared = _compared(of.runs)
    names = [measure.name for measure in compared]
    rows = wide(paired(of.runs, names, baseline=of.baseline, interval=of.interval))
    columns = [*place(of), Column("n", lambda row: str(row[DELAY.name]["n"]))]
    columns += [Column("delay over\nbaseline's", _ratio), Column("p\n(Holm)", _p_of(DELAY))]
    for measure in compared[1:]:
        difference = _spread_of(measure, "difference", "difference_low", "difference_high", of.interval, sign=True)
        columns += [Column("Δ " + measure.header, difference), Column("p\n(Holm)", _p_of(measure))]
    return Groups(f"against {of.baseline}", "seed by seed on the same worlds", columns, rows)


def counted(of: Along) -> Groups:
    """The break-outs over all seeds."""
    rows = wide(breakouts(of.runs), "of")

    def share(of: str) -> Callable[[dict[str, Any]], str]:
        def said(row: dict[str, Any]) -> str:
            share, low, high = (100 * row[of][key] for key in ("share", "low", "high"))
            return f"{share:.1f}" + ("" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]")

        return said

    def count(of: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: f"{row[of]['breakouts']:,} of {row[of]['total']:,}"

    columns = place(of)
    for what in ("MU-slot", "MU-frame"):
        columns += [Column(f"{what}s\nbroken out", count(what)), Column(f"share of\n{what}s, %", share(what))]
    return Groups("break-outs", "over all seeds", columns, rows, RESAMPLED)


def wide(table: pd.DataFrame, by: str = "metric") -> list[dict[str, Any]]:
    """One row per group, with the group's rows of `table` keyed by their value of `by`."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in table.to_dict("records"):
        group = {name: row[name] for name in (*GROUP, "scheme")}
        rows.setdefault(tuple(group.values()), group)[row[by]] = row
    return list(rows.values())


def show(groups: Groups, console: Console) -> None:
    """Print a table; one that is wider than the console goes on below."""
    title = Text(f"{groups.title}: {groups.about}", style="bold")  # Text, since Rich would interpret brackets in names

    def table(columns: list[Column]) -> Table:
        made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for column in columns:
            made.add_column(column.header, justify=column.justify, no_wrap=not column.names, overflow="fold")
        for number, row in enumerate(groups.rows):
            later = groups.rows[number + 1] if number + 1 < len(groups.rows) else row
            ends = (later["variant"], later["mu"]) != (row["variant"], row["mu"])
            made.add_row(*(Text(column.cell(row)) for column in columns), end_section=ends)
        return made

    naming = [column for column in groups.columns if column.names]
    for number, part in enumerate(
        folded(console, naming, [column for column in groups.columns if not column.names], table)
    ):
        part.title = title if number == 0 else None
        console.print(part)
    if groups.note:
        console.print(groups.note, style="dim", highlight=False)


def _means_title(interval: Interval) -> str:
    return f"mean over seeds and 95 % interval ({'BCa bootstrap' if interval == 'bootstrap' else 'Student t'})"


def _seeds(of: Along) -> Column:
    counts = of.runs.groupby([*GROUP, "scheme"])["seed"].nunique()
    return Column("n", lambda row: str(counts[row["variant"], row["mu"], row["scheme"]]))


def _spread_of(
    measure: Measure, mean: str, low: str, high: str, interval: Interval, *, sign: bool = False
) -> Callable[[dict[str, Any]], str]:
    def cell(row: dict[str, Any]) -> str:
        values = (measure.scale * row[measure.name][key] for key in (mean, low, high))
        return spread(*values, sign=sign, even=interval == "t")

    return cell


def _p_of(measure: Measure) -> Callable[[dict[str, Any]], str]:
    return lambda row: probability(row[measure.name]["p_holm"])


def _ratio(row: dict[str, Any]) -> str:
    found = row[DELAY.name]
    if math.isnan(found["ratio"]):
        return "–"
    if math.isnan(found["ratio_low"]):
        return f"{found['ratio']:.3g}"
    return "{ratio:.3f} [{ratio_low:.3f}, {ratio_high:.3f}]".format(**found)
