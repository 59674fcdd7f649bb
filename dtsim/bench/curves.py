"""A figure of learning curves: the gap of each agent to the optimum, and the training that it took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dtsim.core.rows import Value, number
from dtsim.reporting.lengths import PAGE_IN

_AXES = (("step", "training slots"), ("updates", "gradient updates"), ("seconds", "wall time (s)"))
_LEVEL: dict[str, Any] = {"color": "black", "linewidth": 0.8}
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
    from dtsim.reporting import style  # matplotlib takes a second to import

    if not curves:
        raise ValueError("curves: must hold one or more")
    measured = {agent: _points(agent, rows) for agent, rows in curves.items()}
    gaps = [number(row, "value") for rows in curves.values() for row in rows if row["metric"] in ("gap", *_LEVELS)]
    with style.look():
        drawing, panels = style.canvas(PAGE_IN, 2.9, 1, len(_AXES), sharey=True)
        for panel, (against, label) in zip(panels, _AXES, strict=True):
            for agent, points in measured.items():
                x, y = [point[against] for point in points], [100 * point["gap"] for point in points]
                panel.plot(x, y, **style.line(agent, list(measured)), markevery=max(1, len(points) // 8))
            for metric, (name, kind) in _LEVELS.items():
                for value in _levels(curves, metric):
                    panel.axhline(100 * value, **_LEVEL, linestyle=kind, label=name)
            panel.axhline(0.0, **_LEVEL, label="optimum")
            panel.set(xlabel=label, ylim=(-0.01, 100 * 1.5 * max(gaps)))
            panel.set_yscale("symlog", linthresh=0.1)
            style.plain(panel.yaxis)
            style.plain(panel.xaxis)
        panels[0].set_ylabel("mean gap to the optimum (%)")
        handles, labels = panels[0].get_legend_handles_labels()
        levels = dict(zip(labels, handles, strict=True))  # each once
        style.legend(drawing, list(measured), extra=list(levels.values()))
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=200)


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
