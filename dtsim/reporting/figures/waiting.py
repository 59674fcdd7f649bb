"""What waits where, over time: at the MUs, on the uplinks, at the base stations, and of training."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from dtsim.reporting.passing import frame_starts_s, waiting_s
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import BORDER, Drawing, aside, bars, border_mark, canvas, heading, legend, line, logarithmic

_PANELS = {
    "local_s": "inference at the MU",
    "uplink_s": "uplink",
    "station_s": "inference at the BSs",
    "training_s": "training at the BSs",
}
_SMALLEST_S = 1e-3
"""Below it the axis is linear, and begins at 0."""
_MOST_BORDERS = 40


def queues(setting: Setting, baseline: str | None, width_in: float) -> Drawing | None:
    """The time that servers need for what waits at the end of each slot, of every scheme."""
    runs = setting.passing
    if runs.empty:
        return None
    waits = pd.concat(
        [waiting_s(run).assign(scheme=run["scheme"], seed=run["seed"]) for _, run in runs.iterrows()], ignore_index=True
    )
    schemes = [scheme for scheme in setting.schemes if scheme in set(runs["scheme"])]
    borders = frame_starts_s(runs.iloc[0])
    figure, panels = canvas(width_in, 4.2, 2, 2, sharex=True, sharey=True)
    for panel, (name, title) in zip(panels, _PANELS.items(), strict=True):
        _waits(panel, setting, waits, name, schemes, borders)
        panel.set_title(title)
    for panel in panels[-2:] if panels[0].get_subplotspec().get_gridspec().ncols > 1 else panels[-1:]:
        panel.set_xlabel("time (s)")
    shown = len(borders) <= _MOST_BORDERS
    for panel in panels:
        panel.set_ylabel("work waiting (s)")
        panel.set_yscale("symlog", linthresh=_SMALLEST_S, linscale=0.4)
        panel.set_ylim(-_SMALLEST_S / 3, 1.3 * max(_SMALLEST_S, waits[list(_PANELS)].max().max()))
        panel.set_xlim(0, waits["time_s"].max())
        panel.grid(visible=False, axis="x")
        logarithmic(panel.yaxis, from_zero=_SMALLEST_S)
        for border in borders if shown else ():
            panel.axvline(border, **BORDER)
    legend(figure, schemes, extra=[border_mark()] * (shown and bool(borders)))
    said = f"K = {setting.mu} MUs, {setting.seeds(runs)}"
    heading(figure, said)
    return Drawing(
        "queues",
        "What waits, over time",
        "Work that waits at the end of each slot, as the time that its servers need for it if nothing more comes "
        "(lines: mean over seeds; points: mean over a frame, with intervals): inference at the MU and data on its "
        "uplink, mean over MUs, the uplink at the MU's mean rate; inference and training of all MUs at the compute of "
        "all base stations. The axis is linear below 1 ms. Dotted lines are the borders of frames. "
        f"{said}.",
        figure,
    )


def _waits(
    panel: Axes, setting: Setting, waits: pd.DataFrame, name: str, schemes: list[str], borders: list[float]
) -> None:
    """One kind of work of every scheme: a line over slots, and a point for each frame."""
    frame_s = borders[0] if borders else waits["time_s"].max()
    slot_s = waits["time_s"].min()
    middle = ((waits["time_s"] - slot_s / 2) // frame_s + 0.5) * frame_s
    by_frame = waits.assign(middle=middle).groupby(["scheme", "seed", "middle"])[name].mean().reset_index()
    for scheme in schemes:
        mean = waits[waits["scheme"] == scheme].groupby("time_s")[name].mean()
        style = {**line(scheme, schemes, marker=False), "linewidth": 0.7, "alpha": 0.6}
        panel.plot(mean.index, mean, **style)
    for scheme, found in setting.over_seeds(by_frame, "middle", name).items():
        beside = found.index + aside(schemes, scheme, 0.6 * frame_s / max(4, len(schemes)))
        values = [found[which] for which in ("mean", "low", "high")]
        bars(panel, beside, *values, within=(0, float("inf")), **{**line(scheme, schemes), "linestyle": ""})
