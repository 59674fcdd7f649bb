"""A figure of solvers: their gap to the best bound against the CPU time that they took."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from dtsim.core.rows import Value, number

# The gap of what is proven optimal is 0; below this percentage the axis is linear.
_LINEAR_PERCENT = 0.1


def figure(rows: Sequence[Mapping[str, Value]], path: Path) -> None:
    """Draw a panel for each size: a small mark for each instance, a large one for each solver's median.

    Args:
        rows: of association.csv.
        path: of the file; its suffix selects the format (png, pdf, svg).

    Raises:
        ValueError: if there are no rows.
    """
    from matplotlib.figure import Figure  # takes a second to import

    from dtsim.reporting.style import COLOURS, MARKERS

    if not rows:
        raise ValueError("rows: must hold one or more")
    sizes = list(dict.fromkeys((row["users"], row["stations"]) for row in rows))
    solvers = list(dict.fromkeys(str(row["solver"]) for row in rows))
    drawing = Figure(figsize=(1 + 2.8 * len(sizes), 3.4), layout="constrained")
    panels = drawing.subplots(1, len(sizes), sharex=True, sharey=True, squeeze=False)[0]
    for panel, size in zip(panels, sizes, strict=True):
        for place, solver in enumerate(solvers):
            own = [row for row in rows if (row["users"], row["stations"]) == size and row["solver"] == solver]
            if not own:
                continue
            cpu_s = [max(number(row, "cpu_s"), 1e-6) for row in own]
            gap = [100 * number(row, "gap_to_best_bound") for row in own]
            style = {"color": COLOURS[place % len(COLOURS)], "marker": MARKERS[place % len(MARKERS)]}
            panel.scatter(cpu_s, gap, s=6, alpha=0.35, linewidths=0, **style)
            panel.scatter([median(cpu_s)], [median(gap)], s=50, label=solver, **style)
        panel.set_xscale("log")
        panel.set_yscale("symlog", linthresh=_LINEAR_PERCENT)
        panel.set_ylim(-0.02, 150 * max(_LINEAR_PERCENT, *(number(row, "gap_to_best_bound") for row in rows)))
        panel.set_title(f"{size[0]} users, {size[1]} stations")
        panel.set_xlabel("CPU time (s)")
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("gap to the best bound (%)")
    labelled = {name: mark for panel in panels for mark, name in zip(*panel.get_legend_handles_labels(), strict=True)}
    drawing.legend(labelled.values(), labelled.keys(), loc="outside right center")
    path.parent.mkdir(parents=True, exist_ok=True)
    drawing.savefig(path, dpi=150)
