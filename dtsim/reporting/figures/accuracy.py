"""Figure 2(b): accuracy over time, and its break-outs."""

from __future__ import annotations

from matplotlib.lines import Line2D

from dtsim.reporting.runs import threshold_of
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import Drawing, band, canvas, legend, line, points


def accuracy_over_time(setting: Setting, baseline: str | None) -> Drawing:
    """Mean accuracy over slots, MU-frames below the threshold over frames, and their share of the whole run."""
    threshold = threshold_of(setting.at_mu.iloc[0])
    figure, panels = canvas(4.6, 2, 2, width_ratios=[2.2, 1])
    over_slots, whole_accuracy, over_frames, whole = panels.ravel()
    schemes = setting.schemes_at_mu
    by_slot = setting.over_seeds(setting.slots, "slot", "accuracy")
    by_frame = setting.over_seeds(setting.frames, "frame", "breakout")
    for scheme, found in by_slot.items():
        every = max(1, len(found) // 10)
        over_slots.plot(found.index, 100 * found["mean"], markevery=(every // 2, every), **line(scheme, schemes))
        band(over_slots, found.index, 100 * found["low"], 100 * found["high"], scheme, schemes)
    for scheme, found in by_frame.items():
        over_frames.plot(found.index, 100 * found["mean"], **line(scheme, schemes))
        band(over_frames, found.index, 100 * found["low"], 100 * found["high"], scheme, schemes)
    points(whole_accuracy, setting.whole_runs("accuracy_mean"), schemes, 100)
    points(whole, setting.whole_runs("frame_breakout_rate"), schemes, 100)
    whole_accuracy.tick_params(labelbottom=False)
    for panel in (over_slots, whole_accuracy):
        panel.axhline(100 * threshold, color="black", linewidth=0.8, linestyle=(0, (1, 2)))
        panel.set_ylabel("mean accuracy (%)")
    lowest = min(found["mean"].min() for found in by_slot.values())
    over_slots.set_ylim(max(0, 100 * lowest - 10), 101)  # a slot has few images, so intervals may reach far below
    for panel in (over_frames, whole):
        panel.set(ylabel="MU-frames broken out (%)")
        panel.set_ylim(-3, 103)  # so that marks at 0 and 100 % are not cut
    over_slots.set(xlabel="slot", title="accuracy over slots")
    over_frames.set(xlabel="frame", title="break-outs over frames")
    over_frames.xaxis.get_major_locator().set_params(integer=True)
    whole_accuracy.set_title("whole run")
    whole.set_title("whole run")
    limit = Line2D(
        [], [], color="black", linewidth=0.8, linestyle=(0, (1, 2)), label=f"threshold {100 * threshold:.3g} %"
    )
    legend(figure, schemes, extra=[limit])
    figure.suptitle(setting.said, fontsize=7.5)
    return Drawing(
        "fig2b",
        "Accuracy over time and break-outs",
        "Above: share of images inferred correctly, mean over MUs and seeds, per slot and over the whole run; the "
        f"dotted line is the threshold of {100 * threshold:.3g} %. Below: share of MU-frames whose accuracy is below "
        f"it. {setting.said}; the intervals of a share are cut at 0 and 100 %.",
        figure,
    )
