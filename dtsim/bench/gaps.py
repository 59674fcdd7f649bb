"""A figure of solvers: their gap to the best bound against the CPU time that they took."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from dtsim.core.rows import Value, number
from dtsim.reporting.lengths import PAGE_IN

# The gap of what is proven optimal is 0; below this percentage the axis is linear.
_LINEAR_PERCENT = 0.1
_ACROSS = 3
"""Most panels beside each other."""


def figure(rows: Sequence[Mapping[str, Value]], path: Path) -> None:
    """Draw a panel for each size: a small mark for each instance, a large one for each solver's median.

    Args:
        rows: of association.csv.
        path: of the file; its suffix selects the format (png, pdf, svg).

    Raises:
        ValueError: if there are no rows.
    """
    from matplotlib.lines import Line2D  # matplotlib takes a second to import

    from dtsim.reporting import style

    if not rows:
        raise ValueError("rows: must hold one or more")
    sizes = list(dict.fromkeys((row["users"], row["stations"]) for row in rows))
    solvers = list(dict.fromkeys(str(row["solver"]) for row in rows))
    across = min(_ACROSS, len(sizes))
    down = math.ceil(len(sizes) / across)
    with style.look():
        drawing, panels = style.grid(PAGE_IN, 0.6 + 2.1 * down, down, across, sharex=True, sharey=True)
        for panel, size in zip(panels.ravel(), sizes, strict=False):
            for solver in solvers:
                own = [row for row in rows if (row["users"], row["stations"]) == size and row["solver"] == solver]
                if not own:
                    continue
                cpu_s = [max(number(row, "cpu_s"), 1e-6) for row in own]
                gap = [100 * number(row, "gap_to_best_bound") for row in own]
                look = style.line(solver, solvers)
                mark = {"color": look["color"], "marker": look["marker"]}
                panel.scatter(cpu_s, gap, s=6, alpha=0.35, linewidths=0, **mark)
                panel.scatter([median(cpu_s)], [median(gap)], s=36, linewidths=0.5, edgecolors="black", **mark)
            panel.set_xscale("log")
            panel.set_yscale("symlog", linthresh=_LINEAR_PERCENT)
            highest = max(_LINEAR_PERCENT / 100, *(number(row, "gap_to_best_bound") for row in rows))
            panel.set(ylim=(-0.02, 150 * highest), title=f"{size[0]} users, {size[1]} stations")
            style.plain(panel.yaxis)
            style.logarithmic(panel.xaxis)
        for panel in panels.ravel()[len(sizes) :]:
            panel.set_axis_off()
        for panel in panels.ravel()[len(sizes) - across : len(sizes)]:  # those with nothing below
            panel.set_xlabel("CPU time (s)")
            panel.tick_params(labelbottom=True)
        for panel in panels[:, 0]:
            panel.set_ylabel("gap to the best bound (%)")
        marks = [Line2D([], [], **{**style.line(solver, solvers), "linestyle": ""}, label=solver) for solver in solvers]
        style.below(drawing, marks)
        path.parent.mkdir(parents=True, exist_ok=True)
        drawing.savefig(path, dpi=200)
