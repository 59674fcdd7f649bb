"""How long tasks took: the share that is not served within a time, against the deadline."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from dtsim.reporting.passing import tasks_of, unserved
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import Drawing, below, canvas, heading, line, logarithmic

_MOST_MARKS = 12
"""Marks of tasks that wait, on one curve."""


def task_delay(setting: Setting, baseline: str | None, width_in: float) -> Drawing | None:
    """The complementary distribution of task delay of every scheme, over all tasks of all seeds."""
    runs = setting.passing
    if runs.empty:
        return None
    schemes = [scheme for scheme in setting.schemes if scheme in set(runs["scheme"])]
    tasks = {
        scheme: pd.concat([tasks_of(run) for _, run in runs[runs["scheme"] == scheme].iterrows()]) for scheme in schemes
    }
    tasks = {scheme: own for scheme, own in tasks.items() if len(own)}
    if not tasks:
        return None
    figure, (panel,) = canvas(width_in, min(3.8, 0.85 * width_in))
    deadline_s = float(runs["deadline_s"].iloc[0])
    waits, dropped = (any((own["outcome"] == what).any() for own in tasks.values()) for what in ("waiting", "dropped"))
    end_s = (2.0 if dropped else 1.2) * max(deadline_s, *(own["delay_s"].max() for own in tasks.values()))
    styles = {scheme: line(scheme, schemes, marker=False) for scheme in tasks}
    least_share = min(_curve(panel, own, styles[scheme], end_s) for scheme, own in tasks.items())
    panel.axvline(1e3 * deadline_s, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
    at = ("data", "axes fraction")
    panel.annotate(
        f" deadline {1e3 * deadline_s:g} ms", (1e3 * deadline_s, 1.01), xycoords=at, ha="left", va="bottom", fontsize=7
    )
    least = min(float(own["delay_s"][own["delay_s"] > 0].min()) for own in tasks.values())
    panel.set(xscale="log", yscale="log", xlabel="task delay (ms)", ylabel="not served within it (%)")
    panel.set_xlim(1e3 * min(least, deadline_s) / 1.2, 1e3 * end_s)
    panel.set_ylim(100 * least_share / 2, 140)
    logarithmic(panel.xaxis)
    logarithmic(panel.yaxis)
    handles = [Line2D([], [], label=_said(scheme, own), **styles[scheme]) for scheme, own in tasks.items()]
    marks = {"|": ("waits at the end, at its age", waits), ">": ("dropped: never served", dropped)}
    for marker, (label, there) in marks.items():
        if there:
            handles.append(Line2D([], [], marker=marker, color="black", linestyle="", label=label))
    below(figure, handles)
    said = f"K = {setting.mu} MUs, all tasks of {setting.seeds(runs).split(',')[0].removeprefix('n = ')}"
    heading(figure, f"{said} (n = {sum(map(len, tasks.values())):,} tasks)")
    return Drawing(
        "task_delay",
        "How long tasks take",
        "Share of tasks that is not served within a time after their arrival; below and left is better, and the dotted "
        "line is the deadline. Of a task that waits at the run's end it is only known that it takes longer than its "
        "age (a bar across the curve; Kaplan and Meier's estimate); dropped tasks are never served, and a curve with "
        f"such ends level, at an arrowhead. {said}.",
        figure,
    )


def _curve(panel: Axes, tasks: pd.DataFrame, style: dict[str, Any], end_s: float) -> float:
    """One scheme's curve up to the longest delay or age, or to `end_s` and level where tasks were dropped.

    Returns:
        The smallest share on it, above 0.
    """
    times, shares = unserved(tasks)
    dropped = (tasks["outcome"] == "dropped").any()
    last = end_s if dropped else float(tasks["delay_s"].max())
    x = np.array([1e-9, *times, last])
    y = np.array([1.0, *shares, shares[-1] if len(shares) else 1.0])
    panel.step(1e3 * x, 100 * np.where(y > 0, y, np.nan), where="post", **style)
    waiting = np.sort(tasks["delay_s"][tasks["outcome"] == "waiting"].to_numpy(dtype=float))
    if len(waiting):
        some = waiting[np.unique(np.linspace(0, len(waiting) - 1, _MOST_MARKS).round().astype(int))]
        height = y[np.searchsorted(x, some, side="right") - 1]
        panel.plot(1e3 * some, 100 * height, "|", color=style["color"], markersize=7, markeredgewidth=1.2)
    if dropped:
        panel.plot([1e3 * last], [100 * y[-1]], ">", color=style["color"], clip_on=False, zorder=5)
    return float(y[y > 0].min())


def _said(scheme: str, tasks: pd.DataFrame) -> str:
    """A scheme with the share of its tasks that missed the deadline, and what became of those not served."""
    counts = {"wait": (tasks["outcome"] == "waiting").sum(), "dropped": (tasks["outcome"] == "dropped").sum()}
    rest = "".join(f", {count:,} {what}" for what, count in counts.items() if count)
    return f"{scheme}: {100 * tasks['missed'].mean():.3g} % late{rest}"
