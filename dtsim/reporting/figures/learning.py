"""Figure 2(a): benefit and cost of an epoch of retraining."""

from __future__ import annotations

from dtsim.reporting.settings import Setting
from dtsim.reporting.style import Drawing, band, canvas, legend, line, logarithmic, points


def learning_curves(setting: Setting, baseline: str | None) -> Drawing | None:
    """Accuracy on held-out images over the epochs and over the work of an update, and the work of a whole run."""
    epochs = setting.epochs
    if epochs.empty:
        return None
    figure, ((over_epochs, over_work, whole),) = canvas(2.7, 1, 3, width_ratios=[1.2, 1.2, 1])
    accuracy = setting.over_seeds(epochs, "epoch", "accuracy")
    work = setting.over_seeds(epochs, "epoch", "flop")
    schemes = list(accuracy)
    for scheme, found in accuracy.items():
        style = line(scheme, schemes)
        over_epochs.plot(found.index, 100 * found["mean"], **style)
        band(over_epochs, found.index, 100 * found["low"], 100 * found["high"], scheme, schemes)
        gflop = work[scheme]["mean"].reindex(found.index) / 1e9
        over_work.plot(gflop, 100 * found["mean"], **style)
        band(over_work, gflop, 100 * found["low"], 100 * found["high"], scheme, schemes)
    over_epochs.set(xlabel="epoch of an update", ylabel="accuracy (%)", title="accuracy over epochs")
    over_epochs.xaxis.get_major_locator().set_params(integer=True)
    over_work.set(xlabel="work of the update (GFLOP)", ylabel="accuracy (%)", title="accuracy over work")
    totals = setting.whole_runs("retrain_flop")
    points(whole, {scheme: totals[scheme] for scheme in schemes}, schemes, 1e-9)
    whole.set(yscale="log", ylabel="retraining (GFLOP)", title="work of a run")
    logarithmic(whole.yaxis)
    legend(figure, schemes)
    figure.suptitle(setting.said, fontsize=7.5)
    return Drawing(
        "fig2a",
        "Accuracy over training epochs",
        "Left: accuracy on held-out images of the MU's region before an update (epoch 0) and after each of its epochs, "
        "mean over all updates of a run and over seeds. Middle: the same over the update's training work. Right: "
        f"retraining work charged in a whole run. {setting.said}.",
        figure,
    )
