"""Figure 2(a): benefit and cost of an epoch of retraining."""

from __future__ import annotations

from dtsim.reporting.settings import Setting
from dtsim.reporting.style import (
    Drawing,
    aside,
    bars,
    canvas,
    heading,
    legend,
    line,
    logarithmic,
    marked_below,
    points,
    whole,
)


def learning_curves(setting: Setting, baseline: str | None, width_in: float) -> Drawing | None:
    """Accuracy on held-out images over the epochs and over the work of an update, and the work of a whole run."""
    epochs = setting.epochs
    if epochs.empty:
        return None
    figure, (over_epochs, over_work, of_run) = canvas(width_in, 2.7, 1, 3, width_ratios=[1.3, 1.3, 0.8])
    accuracy = setting.over_seeds(epochs, "epoch", "accuracy")
    work = setting.over_seeds(epochs, "epoch", "flop")
    schemes = list(accuracy)
    for scheme, found in accuracy.items():
        style, percent = line(scheme, schemes), [100 * found[name] for name in ("mean", "low", "high")]
        beside = found.index + aside(schemes, scheme, 0.6 / max(6, len(schemes)))
        bars(over_epochs, beside, *percent, within=(0, 100), **style)
        gflop = work[scheme]["mean"].reindex(found.index) / 1e9
        gflop = gflop.where(gflop > 0, aside(schemes, scheme, 0.09))  # all begin at zero
        bars(over_work, gflop, *percent, within=(0, 100), **style)
    over_epochs.set(xlabel="epoch of an update", ylabel="accuracy (%)", title="accuracy over epochs")
    whole(over_epochs.xaxis)
    over_work.set(xlabel="work of the update (GFLOP)", ylabel="accuracy (%)", title="accuracy over work")
    over_work.set_xscale("symlog", linthresh=1.0, linscale=0.4)  # work differs tenfold, and begins at zero
    over_work.set_xlim(-0.3, None)
    logarithmic(over_work.xaxis, from_zero=1.0)
    totals = setting.whole_runs("retrain_flop")
    points(of_run, {scheme: totals[scheme] for scheme in schemes}, schemes, 1e-9)
    of_run.set(yscale="log", ylabel="retraining (GFLOP)", title="work of a run")
    logarithmic(of_run.yaxis)
    marked = marked_below(of_run)
    legend(figure, schemes)
    heading(figure, setting.said)
    return Drawing(
        "fig2a",
        "Accuracy over training epochs",
        "Accuracy on held-out images of the MU's region before an update (epoch 0) and after each of its epochs, mean "
        "over all updates of a run and over seeds; points of one epoch stand side by side. Then the same over the "
        "update's training work, and the retraining work charged in a whole run"
        + ("; an arrowhead: the interval reaches below the axis" * marked)
        + f". {setting.said}.",
        figure,
    )
