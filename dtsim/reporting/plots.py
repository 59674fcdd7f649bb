"""Figures from Python: each function returns a matplotlib figure, which a notebook shows and `savefig` writes.

`width` is "page", "column", or a length such as "88mm". `runs` are all that `dtsim.compare` takes.
"""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dtsim.core.notebook import show_figures
from dtsim.reporting import figures
from dtsim.reporting.along import Along
from dtsim.reporting.finished import RunResult, Runs, runs_of
from dtsim.reporting.lengths import inches
from dtsim.reporting.runs import ReportError
from dtsim.reporting.settings import Setting
from dtsim.reporting.statistics import unit
from dtsim.reporting.style import Drawing, aside, bars, canvas, heading, legend, line, look
from dtsim.reporting.tables import MEASURES

__all__ = [
    "accuracy_over_time",
    "cell_map",
    "comparison",
    "decomposition",
    "delay_against_accuracy",
    "learning_curves",
    "queues",
    "stale",
    "system_delay",
    "task_delay",
    "timeline",
]


def learning_curves(runs: Runs, *, width: str = "page") -> Figure:
    """Accuracy over the epochs and over the work of an update, and the work of a whole run: Fig. 2(a)."""
    return _of_schemes(figures.learning_curves, runs, None, width)


def accuracy_over_time(runs: Runs, *, width: str = "page") -> Figure:
    """Accuracy over slots and frames, and break-outs over frames: Fig. 2(b)."""
    return _of_schemes(figures.accuracy_over_time, runs, None, width)


def system_delay(runs: Runs, *, baseline: str | None = None, width: str = "page") -> Figure:
    """System delay over slots and over MUs, and its ratio to that of the scheme `baseline`: Fig. 2(c)."""
    return _of_schemes(figures.system_delay, runs, baseline, width)


def delay_against_accuracy(runs: Runs, *, width: str = "page") -> Figure:
    """Mean accuracy against mean system delay."""
    return _of_schemes(figures.delay_against_accuracy, runs, None, width)


def decomposition(runs: Runs, *, width: str = "page") -> Figure:
    """Where the delay of the slowest MU comes from."""
    return _of_schemes(figures.decomposition, runs, None, width)


def cell_map(run: RunResult | str | os.PathLike[str], *, width: str = "page") -> Figure:
    """The cell over the frames of one run: MUs, base stations, regions."""
    return _of_schemes(figures.cell_map, run, None, width)


def timeline(run: RunResult | str | os.PathLike[str], *, width: str = "page") -> Figure:
    """Delay, retraining and accuracy over the slots of one run."""
    return _of_schemes(figures.timeline, run, None, width)


def queues(runs: Runs, *, width: str = "page") -> Figure:
    """What waits over time, at the MUs, on the uplinks and at the base stations; of runs with `time=contiguous`."""
    return _of_schemes(figures.queues, runs, None, width, _PASSES)


def stale(run: RunResult | str | os.PathLike[str], *, width: str = "page") -> Figure:
    """The life of every update of one run with `time=contiguous`, from asking for it to its serving, and accuracy."""
    return _of_schemes(figures.stale, run, None, width, f"{_PASSES}, or ask for no update")


def task_delay(runs: Runs, *, width: str = "page") -> Figure:
    """The share of tasks that is not served within a time, and the deadline; of runs with `time=contiguous`."""
    return _of_schemes(figures.task_delay, runs, None, width, f"{_PASSES}, or have no task")


def comparison(of: Along, metric: str = "system_delay_mean_s", *, width: str = "page") -> Figure:
    """A metric of every choice, and beside it the ratio to the baseline's, or the difference for shares.

    Over the number of MUs if there are several, else a point for each choice.

    Args:
        of: from `dtsim.compare`.
        metric: a column of run.csv.
        width: of the figure.

    Raises:
        ReportError: if the metric was not measured.
    """
    if metric not in of.runs or metric.startswith(("config.", "choice.", "by.")):
        raise ReportError(f"metric={metric!r}: must be a column of run.csv, such as system_delay_mean_s")
    table = of.table([metric])
    table["_choice"] = table[list(of.keys)].astype(str).agg(", ".join, axis=1)
    scale, said, as_ratio = _display(metric)
    paired = of.baseline is not None and table["pairs"].notna().any()
    over_users = not of.along_mu and table["mu"].nunique() > 1
    with look():
        figure, panels = canvas(inches(width), 2.9, 1, 2 if paired else 1)
        _draw(panels[0], table, of, scale, ("mean", "low", "high"), over_users)
        panels[0].set_ylabel(said)
        if paired:
            name, factor = ("ratio", 1.0) if as_ratio else ("difference", scale)
            _draw(panels[1], table, of, factor, (name, f"{name}_low", f"{name}_high"), over_users)
            panels[1].axhline(1.0 if as_ratio else 0.0, color="black", linewidth=0.8)
            panels[1].set_ylabel(f"over {of.baseline}'s" if as_ratio else f"minus {of.baseline}'s")
        if over_users:
            legend(figure, of.choices)
        count = " to ".join(map(str, sorted({table["n"].min(), table["n"].max()})))
        each = f", each {' and '.join(of.others)} apart" * bool(of.others)
        heading(figure, f"{metric} by {' and '.join(of.keys)}, n = {count} seeds, 95 % intervals{each}")
    return _shown(figure)


def _draw(
    panel: Axes, table: pd.DataFrame, of: Along, scale: float, names: tuple[str, str, str], over_users: bool
) -> None:
    """The values of each choice over the number of MUs, or at a place of its own; those of other keys apart."""
    groups = list(table.groupby(list(of.others), sort=False)) if of.others else [((), table)]
    for number, (_, group) in enumerate(groups):
        for place, choice in enumerate(of.choices):
            own = group[(group["_choice"] == choice) & group[names[0]].notna()]
            style = line(choice, of.choices)
            x = np.full(len(own), place + 0.12 * (number - (len(groups) - 1) / 2))
            if over_users:
                own = own.sort_values("mu")
                x = own["mu"].to_numpy() + aside(of.choices, choice, 0.012 * (table["mu"].max() - table["mu"].min()))
            else:
                style["linestyle"] = ""
            bars(panel, x, *(scale * own[name].to_numpy(dtype=float) for name in names), **style)
    if over_users:
        panel.set(xlabel="mobile users K", xticks=sorted(table["mu"].unique()))
    else:
        turned: dict[str, Any] = {"rotation": 30, "ha": "right"} if sum(map(len, of.choices)) > 28 else {}
        panel.set_xticks(range(len(of.choices)), of.choices, **turned)
        panel.set_xlim(-0.6, len(of.choices) - 0.4)
        panel.grid(visible=False, axis="x")


def _display(metric: str) -> tuple[float, str, bool]:
    """Factor, axis label, and whether values are compared as ratios."""
    known = {measure.name: measure.scale for measure in MEASURES}
    name = metric.replace("_", " ")
    if (of := unit(metric)) == "s":
        seconds = known.get(metric) == 1
        return (1.0 if seconds else 1e3), f"{name.removesuffix(' s')} ({'s' if seconds else 'ms'})", True
    if of == "J":
        small = known.get(metric) == 1e3
        return (1e3 if small else 1.0), f"{name.removesuffix(' j')} ({'mJ' if small else 'J'})", True
    if of == "FLOP":
        return 1e-9, f"{name.removesuffix(' flop')} (GFLOP)", True
    if known.get(metric) == 100 or metric.endswith(("_rate", "_mean", "_mae", "_error")):
        return 100.0, f"{name} (%)", False
    return 1.0, name if of == "1" else f"{name} ({of})", False


_CURVES = "have no learning curves of updates, an older version wrote them"
_PASSES = "are not of time=contiguous"


class _Figure(Protocol):
    def __call__(self, setting: Setting, baseline: str | None, width_in: float) -> Drawing | None: ...


def _of_schemes(draw: _Figure, given: Runs, baseline: str | None, width: str, without: str = _CURVES) -> Figure:
    """The figure; `without`: why there is none, if there is none."""
    runs = runs_of(given)
    if (variants := list(runs["variant"].unique()))[1:]:
        both = f"{variants[0]!r} and {variants[1]!r}"
        raise ReportError(f"runs: differ in more than scheme, mu and seed, such as in {both}: select some")
    with look():
        drawing = draw(Setting(runs), baseline, inches(width))
    if drawing is None:
        raise ReportError(f"runs: {without}")
    return _shown(drawing.figure)


def _shown(figure: Figure) -> Figure:
    show_figures()
    return figure
