"""Where the delay comes from: the parts of the slowest MU's work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from dtsim.reporting.settings import HALVES, Setting
from dtsim.reporting.style import COLOURS, HATCHES, MARKERS, Drawing, below, canvas, heading, is_narrow, logarithmic

_COLOURS = (COLOURS[6], COLOURS[0], COLOURS[3], COLOURS[1])
_NAMES = ("upload", "compute at the BS", "retraining at the BS", "compute at the MU, at the same time")
_READABLE_PERCENT = 9
"""A part of a bar that is smaller has no number in it."""
_SMALLEST = 1e-3
"""Parts below this share of the longest delay are not on the logarithmic axis."""


def decomposition(setting: Setting, baseline: str | None, width_in: float) -> Drawing | None:
    """The parts of the slowest MU's delay in a slot, mean over slots and seeds, in time and as shares."""
    slots = setting.slots.dropna(subset=["system_delay_s"])
    known = slots.dropna(subset=HALVES)  # where time passes, a task that is never served has no parts
    if known.empty:
        return None
    left_out = 1 - len(known) / len(slots)
    schemes = [scheme for scheme in setting.schemes_at_mu if scheme in set(known["scheme"])]
    per_run = known.groupby(["scheme", "seed"])[["system_delay_s", *HALVES]].mean()
    average = per_run.groupby("scheme").mean().loc[schemes]
    trains = bool((average["retrain_delay_s"] > 0).any()) or setting.passing.empty
    kept = [place for place, name in enumerate(HALVES) if trains or name != "retrain_delay_s"]
    delays = setting.over_seeds(per_run["system_delay_s"].reset_index().assign(all=0), "all", "system_delay_s")
    row_in = 0.36 if is_narrow(width_in) else 0.45
    figure, (times, shares) = canvas(width_in, 1.3 + row_in * max(2, len(schemes)), 1, 2, sharey=True)
    _times(times, average, delays)
    _shares(shares, average)
    for panel in (times, shares):
        panel.set_yticks(range(len(schemes)), schemes)
        panel.set_ylim(len(schemes) - 0.4, -0.6)
        panel.grid(axis="y", visible=False)
    if not is_narrow(width_in):
        shares.tick_params(labelleft=False)
    own: dict[str, Any] = {"linestyle": "", "color": "black"}
    marks: list[Any] = [
        (Patch(facecolor=colour, hatch=hatch, edgecolor="white"), Line2D([], [], marker=marker, markersize=5, **own))
        for colour, hatch, marker in [(_COLOURS[place], HATCHES[place], MARKERS[place]) for place in kept]
    ]
    total = Line2D([], [], marker="|", markersize=10, **own)
    below(figure, [*marks, total], [*(_NAMES[place] for place in kept), "system delay"])
    without = f", without {100 * left_out:.2g} % of slots, whose slowest task was not served" if left_out else ""
    heading(figure, setting.said + without)
    at_station = ", compute and retraining at the BS in sequence" if trains else " and compute at the BS in sequence"
    waits = ", both with the time that work waits behind other work" * (not setting.passing.empty)
    return Drawing(
        "decomposition",
        "Where the delay comes from",
        f"The two parts of the slowest MU's work in a slot, mean over slots and seeds: upload{at_station}, and at the "
        f"same time its own compute{waits}. The system delay of a slot is the longer part. "
        "First in time, on a logarithmic axis, with the mean system delay and its interval; then as shares of the "
        f"scheme's own system delay, the BS's part above the MU's. {setting.said}{without}.",
        figure,
    )


def _times(panel: Axes, average: pd.DataFrame, delays: dict[str, pd.DataFrame]) -> None:
    """A mark for each part on a logarithmic axis, where a part of a hundredth can be read as well as the longest."""
    least = _SMALLEST * average["system_delay_s"].max()
    for row, scheme in enumerate(average.index):
        parts = average.loc[scheme, HALVES]
        for part, colour, marker in zip(parts, _COLOURS, MARKERS, strict=False):
            if part > least:
                panel.plot(1e3 * part, row, marker, color=colour, markersize=5, markeredgecolor="black", mew=0.4)
        panel.axhline(row, color="0.85", linewidth=0.6, zorder=0)
        found = 1e3 * delays[scheme].iloc[0]
        low = max(found["low"], 1e3 * least) if found["low"] == found["low"] else found["mean"]
        error = np.nan_to_num([[found["mean"] - low], [found["high"] - found["mean"]]])
        style: dict[str, Any] = {"fmt": "|", "color": "black", "markersize": 13, "zorder": 1.5}
        panel.errorbar(found["mean"], row, xerr=error, capsize=2, elinewidth=0.8, **style)
    panel.set(xscale="log", xlabel="delay of the slowest MU (ms)", title="in time")
    logarithmic(panel.xaxis)


def _shares(panel: Axes, average: pd.DataFrame) -> None:
    """Bars of the parts as shares of the system delay, with the number in each that has room for it."""
    rows = np.arange(len(average))
    percent = 100 * average[HALVES].div(average["system_delay_s"], axis=0)
    left = np.zeros(len(average))
    for place, name in enumerate(HALVES):
        at_station = name != HALVES[-1]
        where = rows - 0.19 if at_station else rows + 0.19
        begin = left if at_station else np.zeros(len(average))
        width = percent[name].to_numpy()
        # No edge: a white one would hide a part of one percent.
        panel.barh(where, width, 0.36, begin, color=_COLOURS[place], hatch=HATCHES[place], edgecolor="white", lw=0)
        for at, start, share in zip(where, begin, width, strict=True):
            if share >= _READABLE_PERCENT:
                box = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
                panel.text(start + share / 2, at, f"{share:.0f}", ha="center", va="center", fontsize=6.5, bbox=box)
        left = left + width if at_station else left
    panel.set(xlabel="share of the system delay (%)", title="as shares", xlim=(0, 103))
