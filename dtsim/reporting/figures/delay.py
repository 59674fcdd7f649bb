"""Figure 2(c) and its background: system delay over slots and MUs, against accuracy, and its components."""

from __future__ import annotations

import numpy as np
from matplotlib.patches import Patch

from dtsim.reporting.runs import threshold_of
from dtsim.reporting.settings import HALVES, Setting
from dtsim.reporting.statistics import aggregate, paired
from dtsim.reporting.style import HATCHES, Drawing, band, bars, canvas, legend, line, logarithmic

_DELAY = "system_delay_mean_s"
_CLAIM = 0.4  # "more than 60 % below single timescale"


def system_delay(setting: Setting, baseline: str | None) -> Drawing:
    """System delay over slots; its mean for each number of MUs; its ratio to the baseline's for each seed."""
    schemes = setting.schemes
    ratios = None
    if baseline in schemes and len(schemes) > 1:
        ratios = paired(setting.runs, [_DELAY], baseline=baseline, interval=setting.interval)
    figure, panels = canvas(2.9, 1, 2 if ratios is None else 3)
    over_slots, over_users = panels[0, :2]
    lowest = []
    for scheme, found in setting.over_seeds(setting.slots, "slot", "system_delay_s").items():
        every = max(1, len(found) // 5)
        over_slots.plot(found.index, 1e3 * found["mean"], markevery=(every // 2, every), **line(scheme, schemes))
        low = found["low"].where(found["low"] > 0, found["mean"] / 10)  # a log axis has no zero
        band(over_slots, found.index, 1e3 * low, 1e3 * found["high"], scheme, schemes)
        lowest.append(1e3 * found["mean"].min())
    over_slots.set(
        yscale="log",
        ylim=(min(lowest) / 2, None),
        xlabel="slot",
        ylabel="system delay (ms)",
        title=f"over slots, K = {setting.mu}",
    )
    means = aggregate(setting.runs, [_DELAY], interval=setting.interval)
    for scheme in schemes:
        own = means[means["scheme"] == scheme].sort_values("mu")
        beside = own["mu"] + _aside(setting, scheme)
        bars(over_users, beside, *(1e3 * own[name] for name in ("mean", "low", "high")), **line(scheme, schemes))
    over_users.set(yscale="log", ylabel="mean system delay (ms)", title="over MUs")
    if ratios is not None:
        panel = panels[0, 2]
        for scheme in ratios["scheme"].unique():
            own = ratios[ratios["scheme"] == scheme].sort_values("mu")
            bars(
                panel,
                own["mu"] + _aside(setting, scheme),
                own["ratio"],
                own["ratio_low"],
                own["ratio_high"],
                **line(scheme, schemes),
            )
        panel.axhline(1.0, color="black", linewidth=0.8)
        panel.axhline(_CLAIM, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
        panel.annotate("60 % below", (0.98, _CLAIM), xycoords=("axes fraction", "data"), ha="right", va="bottom")
        panel.set(yscale="log", ylabel=f"delay over {baseline}'s", title="ratio, seed by seed")
    for panel in panels[0, 1:]:
        panel.set(xlabel="mobile users K", xticks=sorted(setting.runs["mu"].unique()))
    for panel in panels[0]:
        logarithmic(panel.yaxis)
    legend(figure, schemes)
    said = setting.seeds(setting.runs)
    figure.suptitle(said, fontsize=7.5)
    return Drawing(
        "fig2c",
        "System delay",
        f"System delay slot by slot at K = {setting.mu}, its mean over a run for each number of MUs"
        + (
            f", and its ratio to {baseline}'s on the same worlds (geometric mean); the dotted line is 60 % below"
            * (ratios is not None)
        )
        + f". {said}.",
        figure,
    )


def _aside(setting: Setting, scheme: str) -> float:
    """Horizontal offset of a scheme's points at the same number of MUs, so that intervals do not overlap."""
    users = setting.runs["mu"]
    step = 0.012 * (users.max() - users.min()) or 0.15
    return float(step * (setting.schemes.index(scheme) - (len(setting.schemes) - 1) / 2))


def delay_against_accuracy(setting: Setting, baseline: str | None) -> Drawing:
    """Mean accuracy against mean system delay, since the lowest delay alone is reached by never retraining."""
    schemes = setting.schemes
    figure, ((panel,),) = canvas(3.4)
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
    logarithmic(panel.xaxis)
    legend(figure, schemes)
    said = setting.seeds(setting.runs) + ", numbers: fewest and most MUs" * several
    figure.suptitle(said, fontsize=7.5)
    return Drawing(
        "delay_accuracy",
        "Delay against accuracy",
        f"Mean accuracy against mean system delay of each scheme; up and left is better. {said}.",
        figure,
    )


def decomposition(setting: Setting, baseline: str | None) -> Drawing:
    """Components of the slowest MU's delay: the BS's part, stacked, and beside it the MU's own part."""
    schemes = setting.schemes_at_mu
    means = setting.slots.groupby(["scheme", "seed"])[[*HALVES, "system_delay_s"]].mean()
    average = means.groupby("scheme").mean().reindex(schemes)
    figure, ((absolute, shares),) = canvas(3.0, 1, 2, sharey=True)
    greys = ("#56B4E9", "#0072B2", "#D55E00", "#E69F00")
    rows = np.arange(len(schemes))
    total = setting.over_seeds(means["system_delay_s"].reset_index().assign(all=0), "all", "system_delay_s")
    for panel, scale in (
        (absolute, np.full(len(schemes), 1e3)),
        (shares, (100 / average["system_delay_s"]).to_numpy()),
    ):
        left = np.zeros(len(schemes))
        for half, name in enumerate(HALVES[:3]):
            width = average[name].to_numpy() * scale
            panel.barh(rows - 0.2, width, 0.36, left, color=greys[half], hatch=HATCHES[half], edgecolor="white")
            left += width
        own = average["local_delay_s"].to_numpy() * scale
        panel.barh(rows + 0.2, own, 0.36, color=greys[3], hatch=HATCHES[3], edgecolor="white")
        panel.grid(axis="y", visible=False)
    for row, scheme in enumerate(schemes):
        found = 1e3 * total[scheme].iloc[0]
        error = np.nan_to_num([[found["mean"] - found["low"]], [found["high"] - found["mean"]]])
        absolute.errorbar(
            found["mean"], row, xerr=error, fmt="|", color="black", markersize=16, capsize=2, elinewidth=0.8
        )
    absolute.set_yticks(rows, schemes)
    absolute.invert_yaxis()
    absolute.set(xlim=(0, None), xlabel="delay of the slowest MU (ms)", title="absolute; |: system delay")
    shares.set(xlabel="share of the system delay (%)", title="relative to the scheme's own")
    names = ("upload", "compute at the BS", "retraining at the BS", "compute at the MU (at the same time)")
    handles = [
        Patch(facecolor=greys[half], hatch=HATCHES[half], edgecolor="white", label=name)
        for half, name in enumerate(names)
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4)
    figure.suptitle(setting.said, fontsize=7.5)
    return Drawing(
        "decomposition",
        "Where the delay comes from",
        "The two parts of the slowest MU's work in a slot, mean over slots and seeds: upload, compute and retraining "
        "at the BS in sequence, and beside them its own compute, in parallel. The system delay is the "
        f"longer part; the left panel marks its mean and interval. {setting.said}.",
        figure,
    )
