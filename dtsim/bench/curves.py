"""A figure of learning curves: the gap of each agent to the optimum, and the training that it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from dtsim.core.rows import Value, number

_AXES = (("step", "training slots"), ("updates", "gradient updates"), ("seconds", "wall time (s)"))
_LEVELS = {"gap_equal": ("equal", ":"), "gap_proportional": ("proportional", "--")}


def figure(curves: Mapping[str, Sequence[Mapping[str, Value]]], path: Path) -> None:
    """Draw the mean gap on held-out slots against training slots, updates and seconds, and save it at `path`.

    `equal`, `proportional` and the optimum are lines. The gap's axis is logarithmic, but linear below 0.1 %, so that
    it includes the optimum at 0.

    Args:
        curves: rows by agent label, from the agent's `prepare` or from learning_curve.csv.
        path: of the file; its suffix selects the format (png, pdf, svg).

    Raises:
        ValueError: if there is no curve, or a curve has no rows of the metric `gap`.
    """
    from matplotlib.figure import Figure  # takes a second to import

    from dtsim.reporting.style import COLOURS, MARKERS

    if not curves:
        raise ValueError("curves: must hold one or more")
    drawing = Figure(figsize=(12, 4), layout="constrained")
    panels = drawing.subplots(1, len(_AXES), sharey=True)
    points = {agent: _points(agent, rows) for agent, rows in curves.items()}
    gaps = [number(row, "value") for rows in curves.values() for row in rows if row["metric"] in ("gap", *_LEVELS)]
    for panel, (against, label) in zip(panels, _AXES, strict=True):
        for place, (agent, measured) in enumerate(points.items()):
            panel.plot(
                [point[against] for point in measured],
                [100 * point["gap"] for point in measured],
                label=agent,
                color=COLOURS[place % len(COLOURS)],
                marker=MARKERS[place % len(MARKERS)],
                markersize=3,
            )
        for metric, (name, style) in _LEVELS.items():
            for value in _levels(curves, metric):
                panel.axhline(100 * value, color="black", linestyle=style, linewidth=1, label=name)
        panel.axhline(0.0, color="black", linewidth=1, label="optimum")
        panel.set_xlabel(label)
        panel.set_yscale("symlog", linthresh=0.1)
        panel.set_ylim(-0.01, 100 * 1.5 * max(gaps))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("mean gap to the optimum (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    once = dict(zip(labels, handles, strict=True))
    drawing.legend(once.values(), once.keys(), loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=150)


def _points(agent: str, rows: Sequence[Mapping[str, Value]]) -> list[dict[str, float]]:
    """One point for each measurement of the gap: step, updates, seconds and gap."""
    updates = {number(row, "step"): number(row, "value") for row in rows if row["metric"] == "updates"}
    points = [
        {
            "step": number(row, "step"),
            "updates": updates[number(row, "step")],
            "seconds": number(row, "seconds"),
            "gap": number(row, "value"),
        }
        for row in rows
        if row["phase"] == "allocator" and row["metric"] == "gap"
    ]
    if not points:
        raise ValueError(f"{agent}: has no rows of the metric gap")
    return points


def _levels(curves: Mapping[str, Sequence[Mapping[str, Value]]], metric: str) -> list[float]:
    """The distinct values of `metric` in all curves; agents trained on the same slots share them."""
    return sorted({number(row, "value") for rows in curves.values() for row in rows if row["metric"] == metric})
