"""A map of the cell: positions, serving BSs and regions of the MUs of one run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from dtsim.reporting.runs import columns_of
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import COLOURS, MARKERS, Drawing, below, grid, heading, is_narrow
from dtsim.results.names import SLOTS
from dtsim.results.seal import read_result

_MOST_FRAMES = 6
_MOST_NAMED = 6
"""Most base stations that the legend names one by one."""


def cell_map(setting: Setting, baseline: str | None, width_in: float) -> Drawing:
    """Small multiples over frames of one run."""
    run = setting.run
    result = read_result(Path(run["folder"]))
    columns = ["frame", "slot", "user", "station", "region", "x_m", "y_m", "retrain"]
    slots = columns_of(run, SLOTS, columns)
    starts = slots.groupby("frame")["slot"].min().to_numpy()
    shown = starts[np.unique(np.linspace(0, len(starts) - 1, min(_MOST_FRAMES, len(starts))).round().astype(int))]
    across = min(2 if is_narrow(width_in) or len(shown) == 4 else 3, len(shown))
    rows = math.ceil(len(shown) / across)
    x0, y0, x1, y1 = result["topology"]["area_m"]
    row_in = min(1.3, max(0.6, (y1 - y0) / (x1 - x0))) * min((width_in - 0.5) / across, 2.6) + 0.25
    figure, panels = grid(width_in, 0.6 + row_in * rows, rows, across, sharex=True, sharey=True)
    stations = np.array(result["topology"]["stations_m"])
    for panel, slot in zip(panels.ravel(), shown, strict=False):
        now = slots[slots["slot"] == slot]
        _regions(panel, result)
        _links(panel, now, stations)
        panel.set_title(f"frame {now['frame'].iloc[0]}", fontweight="normal")
    for panel in panels.ravel()[len(shown) :]:
        panel.set_axis_off()
    for panel in panels.ravel()[len(shown) - across : len(shown)]:  # those with nothing below
        panel.set_xlabel("x (m)")
        panel.tick_params(labelbottom=True)
    for panel in panels[:, 0]:
        panel.set_ylabel("y (m)")
    below(figure, _handles(len(stations)))
    heading(figure, f"{run['scheme']}, K = {setting.mu} MUs, seed {run['seed']} (n = 1 run)")
    return Drawing(
        "cell",
        "The cell over time",
        f"One run ({run['scheme']}, K = {setting.mu}, seed {run['seed']}) in the first slot of {len(shown)} frames: "
        "MUs, the base station that serves each (line, colour and marker; BSs are numbered), the regions with "
        "different data (tinted, numbered; H is the base model's home region), and the MUs whose models are "
        "retrained (ringed).",
        figure,
    )


def _regions(panel: Axes, result: dict[str, Any]) -> None:
    x0, y0, x1, y1 = result["topology"]["area_m"]
    drift = result["config"]["drift"]
    beyond = 0.04 * max(x1 - x0, y1 - y0)  # so that no mark at the border is cut
    panel.set(xlim=(x0 - beyond, x1 + beyond), ylim=(y0 - beyond, y1 + beyond), aspect="equal")
    panel.grid(visible=False)
    panel.add_patch(Rectangle((x0, y0), x1 - x0, y1 - y0, facecolor="none", edgecolor="0.4", linewidth=0.6, zorder=0.5))
    if drift.get("schedule") is not None or not {"rows", "columns", "home"} <= set(drift):
        return  # the regions do not form a grid
    wide, high = (x1 - x0) / drift["columns"], (y1 - y0) / drift["rows"]
    for region in range(drift["rows"] * drift["columns"]):
        row, column = divmod(region, drift["columns"])
        corner = (x0 + column * wide, y0 + row * high)
        home = region == drift["home"]
        shade = "white" if home else str(0.95 - 0.05 * ((row + column) % 2))
        panel.add_patch(Rectangle(corner, wide, high, facecolor=shade, edgecolor="0.6", linewidth=0.5, zorder=0))
        panel.text(corner[0] + 0.04 * wide, corner[1] + 0.04 * high, f"{region}{' H' * home}", color="0.4", fontsize=7)


def _links(panel: Axes, now: pd.DataFrame, stations: np.ndarray) -> None:
    for station, (x, y) in enumerate(stations):
        look = _look(station)
        mine = now[now["station"] == station]
        at_x, at_y = mine["x_m"].to_numpy(), mine["y_m"].to_numpy()
        to_x, to_y = np.full(len(mine), x), np.full(len(mine), y)
        panel.plot(np.vstack([at_x, to_x]), np.vstack([at_y, to_y]), color=look["color"], lw=0.5)
        panel.plot(at_x, at_y, **look, markersize=3.5, linestyle="")
        panel.plot(x, y, marker=(3, 0, 0), markersize=9, color=look["color"], markeredgecolor="black", linestyle="")
        said = panel.text(x, y, str(station), fontsize=6, ha="center", va="bottom", zorder=4)
        said.set_path_effects([withStroke(linewidth=1.5, foreground="white")])
    retrained = now[now["retrain"] == 1]
    ring: dict[str, Any] = {
        "markerfacecolor": "none",
        "markeredgecolor": "black",
        "markeredgewidth": 0.8,
        "linestyle": "",
    }
    panel.plot(retrained["x_m"].to_numpy(), retrained["y_m"].to_numpy(), "o", markersize=7.5, **ring)


def _look(station: int) -> dict[str, Any]:
    """Colour and marker of a base station's MUs; a repeated colour has another marker."""
    again, place = divmod(station, len(COLOURS))
    return {"color": COLOURS[place], "marker": MARKERS[(place + again) % len(MARKERS)]}


def _handles(stations: int) -> list[Line2D]:
    """Each BS where they are few, else one entry for all; the map numbers them."""
    if stations <= _MOST_NAMED:
        shown = [Line2D([], [], **_look(m), markersize=4, lw=0.5, label=f"MU of BS {m}") for m in range(stations)]
    else:
        said = f"MU, with colour and marker of its BS (0 to {stations - 1})"
        shown = [Line2D([], [], color="0.4", marker="o", markersize=4, lw=0.5, label=said)]
    own: dict[str, Any] = {"linestyle": "", "markeredgecolor": "black"}
    shown.append(Line2D([], [], marker=(3, 0, 0), markersize=8, color="0.8", label="base station", **own))
    shown.append(Line2D([], [], marker="o", markersize=7, markerfacecolor="none", label="retrained", **own))
    return shown
