"""The terminal's tables: groups of runs, schemes against a baseline, break-outs."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.reporting.run_table import fitting
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
    rank: int = 0
    """Order of omission in a narrow terminal: the highest rank is left out first."""


DELAY = Measure("system_delay_mean_s", "system\ndelay, ms", 1e3)
ACCURACY = Measure("accuracy_mean", "accuracy\n%", 100)
FRAME_BREAKOUTS = Measure("frame_breakout_rate", "frame\nbreak-outs, %", 100)
MEASURES = (
    DELAY,
    Measure("system_delay_p95_s", "p95 delay\nms", 1e3, rank=2),
    ACCURACY,
    FRAME_BREAKOUTS,
    Measure("retrains", "re-\ntrainings", rank=3),
    Measure("retrain_flop", "retraining\nGFLOP", 1e-9, rank=1),
    Measure("allocator_gap_mean", "allocation\ngap, %", 100, rank=4),
)
COMPARED = (DELAY, ACCURACY, FRAME_BREAKOUTS)

NOT_INDEPENDENT = (
    "exact binomial 95 % intervals over all seeds; they assume independent MU-slots, but an MU's neighbouring slots "
    "share its model, so they are too narrow: trust the intervals over seeds instead"
)


@dataclass(frozen=True)
class Column:
    """A column of a table of groups."""

    header: str
    cell: Callable[[dict[str, Any]], str]
    """Text of the cell for a row."""
    rank: int = 0
    justify: Literal["left", "right"] = "right"


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


def place() -> list[Column]:
    """The columns that identify the group of a row within a variant."""
    mu = Column("MUs", lambda row: str(row["mu"]))
    return [mu, Column("scheme", lambda row: str(row["scheme"]), justify="left")]


def groups(runs: pd.DataFrame, interval: Interval) -> tuple[list[Column], list[dict[str, Any]]]:
    """Columns and rows of the means over seeds."""
    rows = wide(aggregate(runs, [measure.name for measure in MEASURES], interval=interval))
    counts = runs.groupby([*GROUP, "scheme"])["seed"].nunique()
    columns = [*place(), Column("n", lambda row: str(counts[row["variant"], row["mu"], row["scheme"]]))]
    columns += [Column(m.header, _spread_of(m, "mean", "low", "high", interval), m.rank) for m in MEASURES]
    return columns, rows


def comparisons(runs: pd.DataFrame, baseline: str, interval: Interval) -> tuple[list[Column], list[dict[str, Any]]]:
    """Columns and rows of the paired comparisons of the schemes with the baseline."""
    rows = wide(paired(runs, [measure.name for measure in COMPARED], baseline=baseline, interval=interval))
    columns = [*place(), Column("n", lambda row: str(row[DELAY.name]["n"]), rank=2)]
    columns.append(Column("delay over\nbaseline's", _ratio))
    columns.append(Column("p\n(Holm)", lambda row: probability(row[DELAY.name]["p_holm"])))
    for measure in COMPARED[1:]:
        difference = _spread_of(measure, "difference", "difference_low", "difference_high", interval, sign=True)
        columns.append(Column("Δ " + measure.header, difference, rank=measure is FRAME_BREAKOUTS))
        columns.append(Column("p\n(Holm)", _p_of(measure), rank=1 + (measure is FRAME_BREAKOUTS)))
    return columns, rows


def counted(runs: pd.DataFrame) -> tuple[list[Column], list[dict[str, Any]]]:
    """Columns and rows of the break-outs."""
    rows = wide(breakouts(runs), "of")

    def share(of: str) -> Callable[[dict[str, Any]], str]:
        def said(row: dict[str, Any]) -> str:
            share, low, high = (100 * row[of][key] for key in ("share", "low", "high"))
            return f"{share:.1f}" + ("" if math.isnan(low) else f" [{low:.1f}, {high:.1f}]")

        return said

    def count(of: str) -> Callable[[dict[str, Any]], str]:
        return lambda row: f"{row[of]['breakouts']:,} of {row[of]['total']:,}"

    columns = place()
    for of in ("MU-slot", "MU-frame"):
        columns += [Column(f"{of}s\nbroken out", count(of), rank=1), Column(f"share of\n{of}s, %", share(of))]
    return columns, rows


def wide(table: pd.DataFrame, by: str = "metric") -> list[dict[str, Any]]:
    """One row per group, with the group's rows of `table` keyed by their value of `by`."""
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in table.to_dict("records"):
        place = {name: row[name] for name in (*GROUP, "scheme")}
        rows.setdefault(tuple(place.values()), place)[row[by]] = row
    return list(rows.values())


def show(runs: pd.DataFrame, console: Console, *, baseline: str | None, interval: Interval) -> None:
    """Print the statistics of `runs`."""
    title = "mean over seeds and 95 % interval" + (" (BCa bootstrap)" if interval == "bootstrap" else " (Student t)")
    _print(console, title, *groups(runs, interval))
    if baseline is not None:
        columns, rows = comparisons(runs, baseline, interval)
        if rows:
            _print(console, f"against {baseline}, seed by seed on the same worlds", columns, rows)
    _print(console, "break-outs over all seeds", *counted(runs))
    console.print(NOT_INDEPENDENT, style="dim", highlight=False)


def _print(console: Console, title: str, columns: Sequence[Column], rows: Sequence[dict[str, Any]]) -> None:
    for variant, part in itertools.groupby(rows, lambda row: str(row["variant"])):
        whole = list(part)

        def table(kept: list[Column], whole: list[dict[str, Any]] = whole, variant: str = variant) -> Table:
            heading = f"{variant}: {title}" if variant else title
            title_text = Text(heading, style="bold")  # Text, since Rich would interpret brackets in names
            made = Table(title=title_text, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
            for column in kept:
                made.add_column(column.header, justify=column.justify, no_wrap=True)
            for place, row in enumerate(whole):
                ends = place + 1 < len(whole) and whole[place + 1]["mu"] != row["mu"]
                made.add_row(*(Text(column.cell(row)) for column in kept), end_section=ends)
            return made

        console.print(fitting(console, columns, table))


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
