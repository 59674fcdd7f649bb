"""Figure 2(b): accuracy over time, and its break-outs."""

from __future__ import annotations

from typing import Any

from matplotlib.lines import Line2D

from dtsim.reporting.runs import threshold_of
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import Drawing, aside, bars, canvas, heading, legend, line, points, whole

_SHARE = (0.0, 100.0)


def accuracy_over_time(setting: Setting, baseline: str | None, width_in: float) -> Drawing:
    """Mean accuracy over slots and frames, MU-frames below the threshold over frames, and both of the whole run."""
    threshold = threshold_of(setting.at_mu.iloc[0])
    figure, panels = canvas(width_in, 4.4, 2, 2, width_ratios=[2.6, 1])
    over_slots, whole_accuracy, over_frames, whole_breakouts = panels
    schemes = setting.schemes_at_mu
    for scheme, found in setting.over_seeds(setting.slots, "slot", "accuracy").items():
        style = {**line(scheme, schemes, marker=False), "linewidth": 0.6, "alpha": 0.45}
        over_slots.plot(found.index, 100 * found["mean"], **style)
    for scheme, found in setting.over_frames("accuracy").items():
        beside = found.index + aside(schemes, scheme, 0.7 * setting.slots_per_frame / max(4, len(schemes)))
        percent = [100 * found[name] for name in ("mean", "low", "high")]
        bars(over_slots, beside, *percent, within=_SHARE, **{**line(scheme, schemes), "linestyle": ""})
    for scheme, found in setting.over_seeds(setting.frames, "frame", "breakout").items():
        beside = found.index + aside(schemes, scheme, 0.7 / max(4, len(schemes)))
        percent = [100 * found[name] for name in ("mean", "low", "high")]
        bars(over_frames, beside, *percent, within=_SHARE, **{**line(scheme, schemes), "linewidth": 0.7})
    points(whole_accuracy, setting.whole_runs("accuracy_mean"), schemes, 100, within=_SHARE)
    points(whole_breakouts, setting.whole_runs("frame_breakout_rate"), schemes, 100, within=_SHARE)
    dotted: dict[str, Any] = {"color": "black", "linewidth": 0.8, "linestyle": (0, (1, 2))}
    for panel in (over_slots, whole_accuracy):
        panel.axhline(100 * threshold, **dotted)
        panel.set_ylabel("accuracy (%)")
        panel.set_ylim(max(0, panel.get_ylim()[0]), min(101, panel.get_ylim()[1]))
    for panel in (over_frames, whole_breakouts):
        panel.set(ylabel="broken out (%)")
        panel.set_ylim(-3, 103)  # so that marks at 0 and 100 % are not cut
    over_slots.set(xlabel="slot", title="accuracy over slots, and of each frame")
    over_frames.set(xlabel="frame", title="MU-frames broken out, over frames")
    for panel in (over_slots, over_frames):
        whole(panel.xaxis)
    whole_accuracy.set_title("accuracy, whole run")
    whole_breakouts.set_title("broken out, whole run")
    limit = Line2D([], [], **dotted, label=f"threshold {100 * threshold:.3g} %")
    legend(figure, schemes, extra=[limit])
    heading(figure, setting.said)
    return Drawing(
        "fig2b",
        "Accuracy over time and break-outs",
        "Share of images inferred correctly, mean over MUs and seeds: per slot (lines), per frame and over the whole "
        f"run (points with intervals); the dotted line is the threshold of {100 * threshold:.3g} %. Then the share of "
        "MU-frames whose accuracy is below it. Points of one frame stand side by side. "
        f"{setting.said}; the intervals of a share are cut at 0 and 100 %.",
        figure,
    )
