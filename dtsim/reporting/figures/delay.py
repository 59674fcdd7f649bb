"""Figure 2(c) and its background: system delay over slots and MUs, and against accuracy."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.axes import Axes

from dtsim.reporting.along import USUAL_BASELINE
from dtsim.reporting.runs import threshold_of
from dtsim.reporting.settings import Setting
from dtsim.reporting.statistics import aggregate, paired
from dtsim.reporting.style import Drawing, aside, bars, canvas, heading, legend, line, logarithmic, marked_below, whole

_DELAY = "system_delay_mean_s"
_CLAIM = 0.4  # "more than 60 % below single timescale"


def system_delay(setting: Setting, baseline: str | None, width_in: float) -> Drawing:
    """System delay over slots; its mean for each number of MUs; its ratio to the baseline's for each seed."""
    schemes = setting.schemes
    ratios = None
    if baseline in schemes and len(schemes) > 1:
        ratios = paired(setting.runs, [_DELAY], baseline=baseline, interval=setting.interval)
    figure, panels = canvas(width_in, 2.9, 1, 2 if ratios is None else 3)
    over_slots, over_users = panels[:2]
    _over_slots(over_slots, setting)
    means = aggregate(setting.runs, [_DELAY], interval=setting.interval)
    for scheme in schemes:
        own = means[means["scheme"] == scheme].sort_values("mu")
        beside = own["mu"] + aside(schemes, scheme, _step(setting))
        bars(over_users, beside, *(1e3 * own[name] for name in ("mean", "low", "high")), **line(scheme, schemes))
    _floored(over_users, 1e3 * means["mean"].min())
    over_users.set(ylabel="mean system delay (ms)", title="over MUs")
    claimed = ratios is not None and baseline == USUAL_BASELINE
    if ratios is not None:
        panel = panels[2]
        for scheme in ratios["scheme"].unique():
            own = ratios[ratios["scheme"] == scheme].sort_values("mu")
            beside = own["mu"] + aside(schemes, scheme, _step(setting))
            bars(panel, beside, *(own[name] for name in ("ratio", "ratio_low", "ratio_high")), **line(scheme, schemes))
        panel.axhline(1.0, color="black", linewidth=0.8)
        if claimed:
            panel.axhline(_CLAIM, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
            at = ("axes fraction", "data")
            panel.annotate("60 % below", (0.98, _CLAIM), xycoords=at, ha="right", va="bottom", fontsize=7)
        panel.set(yscale="log", ylabel=f"delay over {baseline}'s", title="ratio, seed by seed")
    for panel in panels[1:]:
        panel.set(xlabel="mobile users K", xticks=sorted(setting.runs["mu"].unique()))
        if setting.runs["mu"].nunique() == 1:
            panel.set_xlim(setting.mu - 1, setting.mu + 1)
    for panel in panels:
        logarithmic(panel.yaxis)
    marked = max(list(map(marked_below, panels)))
    legend(figure, schemes)
    said = setting.seeds(setting.runs)
    heading(figure, said)
    ratio = f", and its ratio to {baseline}'s on the same worlds (geometric mean)" * (ratios is not None)
    return Drawing(
        "fig2c",
        "System delay",
        f"System delay at K = {setting.mu} slot by slot (lines) and of each frame (points with intervals), its mean "
        f"over a run for each number of MUs{ratio}"
        + ("; the dotted line is 60 % below" * claimed)
        + ("; an arrowhead: the interval reaches below the axis" * marked)
        + f". {said}.",
        figure,
    )


def _over_slots(panel: Axes, setting: Setting) -> None:
    schemes = setting.schemes
    means = []
    for scheme, found in setting.over_seeds(setting.slots, "slot", "system_delay_s").items():
        style = {**line(scheme, schemes, marker=False), "linewidth": 0.6, "alpha": 0.45}
        panel.plot(found.index, 1e3 * found["mean"], **style)
        means.append(found["mean"].min())
    for scheme, found in setting.over_frames("system_delay_s").items():
        beside = found.index + aside(schemes, scheme, 0.7 * setting.slots_per_frame / max(4, len(schemes)))
        values = [1e3 * found[name] for name in ("mean", "low", "high")]
        bars(panel, beside, *values, **{**line(scheme, schemes), "linestyle": ""})
    _floored(panel, 1e3 * min(means))
    panel.set(xlabel="slot", ylabel="system delay (ms)", title=f"over slots, K = {setting.mu}")
    whole(panel.xaxis)


def _floored(panel: Axes, smallest: float) -> None:
    """A logarithmic axis that ends below the smallest mean: an interval may reach down to zero, which it has not."""
    panel.set_yscale("log")
    panel.set_ylim(smallest / 2, None)


def _step(setting: Setting) -> float:
    """Distance of two schemes' points at the same number of MUs."""
    users = sorted(setting.runs["mu"].unique())
    nearest = min((later - one for one, later in itertools.pairwise(users)), default=1)
    return float(min(0.012 * (users[-1] - users[0]) or 0.15, 0.7 * nearest / len(setting.schemes)))


def delay_against_accuracy(setting: Setting, baseline: str | None, width_in: float) -> Drawing:
    """Mean accuracy against mean system delay, since the lowest delay alone is reached by never retraining."""
    schemes = setting.schemes
    figure, (panel,) = canvas(width_in, min(3.4, 0.8 * width_in))
    table = aggregate(setting.runs, [_DELAY, "accuracy_mean"], interval=setting.interval)
    several = setting.runs["mu"].nunique() > 1
    for scheme in schemes:
        own = table[table["scheme"] == scheme].sort_values("mu")
        delay, accuracy = (own[own["metric"] == name].set_index("mu") for name in (_DELAY, "accuracy_mean"))
        x = 1e3 * delay["mean"]
        bars(panel, x, *(100 * accuracy[name] for name in ("mean", "low", "high")), **line(scheme, schemes))
        spread = np.vstack([delay["mean"] - delay["low"], delay["high"] - delay["mean"]])
        style = {"fmt": "none", "ecolor": line(scheme, schemes)["color"], "elinewidth": 0.8, "capsize": 2}
        panel.errorbar(x, 100 * accuracy["mean"], xerr=1e3 * np.nan_to_num(spread), **style)
        for mu in {min(delay.index), max(delay.index)} if several else ():  # labels at all points would overlap
            at = (1e3 * delay["mean"][mu], 100 * accuracy["mean"][mu])
            panel.annotate(str(mu), at, xytext=(3, 3), textcoords="offset points", fontsize=6.5)
    threshold = 100 * threshold_of(setting.runs.iloc[0])
    panel.axhline(threshold, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
    panel.annotate(
        f"threshold {threshold:.3g} %", (0.01, threshold), xycoords=("axes fraction", "data"), ha="left", va="bottom"
    )
    panel.set(xscale="log", xlabel="mean system delay (ms)", ylabel="mean accuracy (%)")
    panel.set_xlim(1e3 * table[table["metric"] == _DELAY]["mean"].min() / 2, None)
    logarithmic(panel.xaxis)
    marked = marked_below(panel)
    legend(figure, schemes)
    said = setting.seeds(setting.runs) + ", numbers: fewest and most MUs" * several
    heading(figure, said)
    return Drawing(
        "delay_accuracy",
        "Delay against accuracy",
        "Mean accuracy against mean system delay of each scheme; up and left is better"
        + ("; an arrowhead: the interval reaches beyond the axis" * marked)
        + f". {said}.",
        figure,
    )
