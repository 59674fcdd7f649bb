"""The life of every update: asked for, begun, done, serving; and how accurate the MUs are meanwhile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dtsim.reporting.passing import frame_starts_s, jobs_of, length_s, served_accuracy
from dtsim.reporting.runs import threshold_of
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import BORDER, COLOURS, Drawing, below, border_mark, canvas, heading, whole

_NOTHING_SERVED = "white"
_WAITS: dict[str, Any] = {"facecolor": "white", "edgecolor": "black", "linewidth": 0.5}
_TRAINS: dict[str, Any] = {"facecolor": COLOURS[3], "edgecolor": "black", "linewidth": 0.5}
_SERVES: dict[str, Any] = {"marker": "|", "color": "black", "linestyle": "", "markeredgewidth": 1.6}
_STOPPED: dict[str, Any] = {"marker": "X", "color": "black", "linestyle": "", "markeredgecolor": "white", "mew": 0.4}


def stale(setting: Setting, baseline: str | None, width_in: float) -> Drawing | None:
    """Updates over the time of one run: of how many MUs one is under way, and each on a row of its MU."""
    run, jobs = _run_with_updates(setting)
    if run is None:
        return None
    accuracy, end_s = served_accuracy(run), length_s(run)
    users = len(accuracy)
    height_in, ratios = min(8.5, 2.9 + 0.16 * users), [1, max(0.9, 0.11 * users)]
    figure, (shares, lives) = canvas(width_in, height_in, 2, 1, sharex=True, height_ratios=ratios)
    _shares(shares, accuracy, jobs, end_s, 100 * threshold_of(run))
    colours = _lives(lives, accuracy, jobs, end_s)
    borders = frame_starts_s(run)
    for panel in (shares, lives):
        panel.grid(visible=False, axis="x")
        for border in borders:
            panel.axvline(border, **BORDER)
    label = "accuracy of what was served (%)"
    figure.colorbar(colours, ax=lives, label=label, extend="min", location="bottom", aspect=60)
    marks: list[Any] = [*shares.get_legend_handles_labels()[0], Patch(label="an update is trained", **_TRAINS)]
    if (jobs["started_s"].fillna(end_s) > jobs["asked_s"]).any():
        marks.append(Patch(label="it waits to begin", **_WAITS))
    if jobs["station_from_s"].notna().any():
        marks.append(Line2D([], [], label="it serves", markersize=7, **_SERVES))
    if (jobs["outcome"] == "stopped").any():
        marks.append(Line2D([], [], label="it is stopped", markersize=5, **_STOPPED))
    below(figure, [*marks, *([border_mark()] if borders else [])])
    done = jobs[jobs["outcome"] == "done"]
    counts = f"{len(jobs)} updates, {len(done)} done, {(jobs['outcome'] == 'stopped').sum()} stopped"
    mean = f", {(done['station_from_s'] - done['asked_s']).mean():.3g} s from asking to serving" * bool(len(done))
    name = f"{run['scheme']}, K = {setting.mu} MUs, seed {run['seed']}"
    heading(figure, f"{name} (n = 1 run): {counts}{mean}")
    return Drawing(
        "stale",
        "How long updates take to serve",
        f"One run ({name}): above, the share of MUs whose update is under way, that is asked for and not serving yet, "
        "and the accuracy of what was served, mean over MUs; the line at its threshold. Below, a row for each MU: its "
        "accuracy as colour (white: nothing was served), and each of its updates as a bar that begins when it is asked "
        "for, is filled while it is trained, and ends with a mark where it serves at the BS; a bar without a mark is "
        f"under way at the run's end. {counts}{mean}.",
        figure,
    )


def _run_with_updates(setting: Setting) -> tuple[pd.Series | None, pd.DataFrame]:
    """The first seed of the first scheme that asked for updates, with its updates; None if none did."""
    runs = [run for _, run in setting.passing.iterrows()]
    for run in sorted(runs, key=lambda run: (setting.schemes.index(run["scheme"]), run["seed"])):
        jobs = jobs_of(run)
        jobs = jobs[jobs["kind"] == "update"]
        if len(jobs):
            return run, jobs
    return None, pd.DataFrame()


def under_way(jobs: pd.DataFrame, users: int) -> pd.Series:
    """Share of MUs with a job asked for and not over, from each time on when it changes, s."""
    steps = pd.concat([pd.Series(1.0, index=jobs["asked_s"]), pd.Series(-1.0, index=jobs["over_s"])])
    return steps.groupby(level=0).sum().sort_index().cumsum() / users


def _shares(panel: Axes, accuracy: pd.DataFrame, jobs: pd.DataFrame, end_s: float, threshold: float) -> None:
    found = under_way(jobs, len(accuracy))
    times = [0.0, *found.index, end_s]
    shares = np.array([0.0, *found, found.iloc[-1]])
    panel.fill_between(times, 100 * shares, step="post", color=COLOURS[3], alpha=0.35, lw=0, label="MUs with an update")
    mean = 100 * accuracy.mean()
    panel.step([*mean.index, end_s], [*mean, mean.iloc[-1]], where="post", color=COLOURS[0], label="mean accuracy")
    panel.axhline(threshold, color="black", linewidth=0.8, linestyle="--", label=f"threshold {threshold:.3g} %")
    panel.set(ylabel="share (%)", ylim=(0, 103), xlim=(0, end_s))


def _lives(panel: Axes, accuracy: pd.DataFrame, jobs: pd.DataFrame, end_s: float) -> ScalarMappable:
    """Accuracy as colour, a row for each MU, and its updates as bars in it; returns the colours."""
    users = len(accuracy)
    edges = [*accuracy.columns, end_s]
    panel.set_facecolor(_NOTHING_SERVED)
    grid = np.ma.masked_invalid(100 * accuracy.to_numpy(dtype=float))
    mesh = panel.pcolormesh(edges, np.arange(users + 1) - 0.5, grid, cmap="cividis", vmin=40, vmax=100, rasterized=True)
    began = jobs["started_s"].fillna(jobs["over_s"])
    trained = jobs["done_s"].fillna(jobs["over_s"])
    height = 0.34
    panel.barh(jobs["user"], jobs["over_s"] - jobs["asked_s"], height, jobs["asked_s"], **_WAITS)
    panel.barh(jobs["user"], trained - began, height, began, **_TRAINS)
    size = float(np.clip(120 / users, 3, 8))
    serving, stopped = jobs[jobs["station_from_s"].notna()], jobs[jobs["outcome"] == "stopped"]
    panel.plot(serving["station_from_s"].to_numpy(), serving["user"].to_numpy(), markersize=size, **_SERVES)
    panel.plot(stopped["over_s"].to_numpy(), stopped["user"].to_numpy(), markersize=0.7 * size, **_STOPPED)
    panel.set(xlabel="time (s)", ylabel="MU", ylim=(users - 0.5, -0.5))
    whole(panel.yaxis)
    panel.grid(visible=False)
    return mesh
