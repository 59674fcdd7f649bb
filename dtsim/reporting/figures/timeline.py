"""The timeline of a run: its delays, its retraining and the accuracy of every MU, on one axis of slots."""

from __future__ import annotations

from typing import Any

from matplotlib.lines import Line2D

from dtsim.reporting.passing import time_passes
from dtsim.reporting.runs import columns_of
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import (
    BORDER,
    COLOURS,
    LINES,
    Drawing,
    below,
    border_mark,
    canvas,
    heading,
    logarithmic,
    whole,
)
from dtsim.results.names import SLOTS

_OF_TASKS = " of the tasks captured in the slot, of those that wait or were dropped the age"
_OF_SERVED = " in what was served in it (white: nothing was)"


def timeline(setting: Setting, baseline: str | None, width_in: float) -> Drawing:
    """System delay with its optimum, and the accuracy of each MU in each slot with the updates marked."""
    run = setting.run
    passes = time_passes(run)
    columns = ["slot", "user", "delay_s", "accuracy", "retrain", "objective_optimum_s"]
    slots = columns_of(run, SLOTS, columns)
    mine = setting.slots[(setting.slots["scheme"] == run["scheme"]) & (setting.slots["seed"] == run["seed"])]
    users = slots["user"].nunique()
    height_in, ratios = min(8.0, 3.2 + 0.11 * users), [1, max(0.8, 0.06 * users)]
    figure, (delays, accuracies) = canvas(width_in, height_in, 2, 1, sharex=True, height_ratios=ratios)
    optimum = 1e3 * slots.groupby("slot")["objective_optimum_s"].first()
    lines = {
        "system delay": 1e3 * mine.set_index("slot")["system_delay_s"],
        "its optimum": optimum,
        "median MU": 1e3 * slots.groupby("slot")["delay_s"].median(),
    }
    for place, (name, values) in enumerate(lines.items()):
        if values.isna().all():  # where time passes, a slot has no optimum of its own
            continue
        delays.step(values.index, values, where="mid", color=COLOURS[place], linestyle=LINES[place], label=name)
    delays.set(yscale="log", ylabel="delay (ms)")
    logarithmic(delays.yaxis)
    grid = slots.pivot(index="user", columns="slot", values="accuracy")
    edges = (-0.5, grid.shape[1] - 0.5, users - 0.5, -0.5)
    image = accuracies.imshow(
        100 * grid, aspect="auto", cmap="cividis", vmin=40, vmax=100, extent=edges, interpolation="none"
    )
    size = int(run["config.slots_per_frame"])
    starts = slots["slot"] % size == 0  # first slot of a retraining window
    updates = slots[(slots["retrain"] == 1) & (starts | (run["config.scheme.retrain"] == "slot"))]
    for place in range(size, grid.shape[1], size):
        for panel in (delays, accuracies):
            panel.axvline(place - 0.5, **BORDER)
    mark: dict[str, Any] = {
        "marker": ">",
        "linestyle": "",
        "color": "white",
        "markeredgecolor": "black",
        "markeredgewidth": 0.5,
    }
    accuracies.plot(updates["slot"].to_numpy(), updates["user"].to_numpy(), markersize=3.5, **mark)
    accuracies.set(xlabel="slot", ylabel="MU")
    whole(accuracies.xaxis)
    whole(accuracies.yaxis)
    for panel in (delays, accuracies):
        panel.grid(visible=False, axis="x")
    accuracies.grid(visible=False)
    figure.colorbar(image, ax=accuracies, label="accuracy (%)", extend="min", location="bottom", aspect=60)
    handles, _ = delays.get_legend_handles_labels()
    retrained = Line2D([], [], markersize=5, label=f"the MU's model is {'to be ' * passes}retrained", **mark)
    below(figure, [*handles, retrained, border_mark()])
    heading(figure, f"{run['scheme']}, K = {setting.mu} MUs, seed {run['seed']} (n = 1 run)")
    return Drawing(
        "timeline",
        "A run's timeline",
        f"One run ({run['scheme']}, K = {setting.mu}, seed {run['seed']}): system delay, "
        + ("the exact optimum of each slot " if optimum.notna().any() else "")
        + f"and the median MU's delay{_OF_TASKS * passes}; below, the accuracy of every MU in every slot"
        + f"{_OF_SERVED * passes}, with a triangle where its model was retrained"
        + f"{' (asked for)' * passes}. Dotted lines are the borders of frames.",
        figure,
    )
