"""The figures: one function each, from a setting to a drawing, or to None if the runs lack its data."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import chain, count

from dtsim.reporting.figures.accuracy import accuracy_over_time as accuracy_over_time
from dtsim.reporting.figures.cell import cell_map as cell_map
from dtsim.reporting.figures.decomposition import decomposition as decomposition
from dtsim.reporting.figures.delay import delay_against_accuracy as delay_against_accuracy
from dtsim.reporting.figures.delay import system_delay as system_delay
from dtsim.reporting.figures.learning import learning_curves as learning_curves
from dtsim.reporting.figures.stale import stale as stale
from dtsim.reporting.figures.task_delay import task_delay as task_delay
from dtsim.reporting.figures.timeline import timeline as timeline
from dtsim.reporting.figures.waiting import queues as queues
from dtsim.reporting.lengths import PAGE_IN
from dtsim.reporting.settings import Setting
from dtsim.reporting.style import Drawing, look

ALL = (
    learning_curves,
    accuracy_over_time,
    system_delay,
    delay_against_accuracy,
    decomposition,
    cell_map,
    timeline,
    queues,
    stale,
    task_delay,
)

_LONGEST = 80
"""Letters of a variant in the name of a file, which may be no longer than 255 in all."""


def draw(settings: Sequence[Setting], baseline: str | None, width_in: float = PAGE_IN) -> list[Drawing]:
    """Every figure of every setting, of that width; with several settings, names and titles contain the variant."""
    drawings: list[Drawing] = []
    with look():
        for setting in settings:
            for figure in ALL:
                drawing = figure(setting, baseline, width_in)
                if drawing is not None and len(settings) > 1:
                    name = f"{drawing.name}-{re.sub('[^A-Za-z0-9.]+', '-', setting.variant)[:_LONGEST].strip('-.')}"
                    name = _unused(name, {other.name for other in drawings})
                    drawing = replace(drawing, name=name, title=f"{drawing.title}, {setting.variant}")
                if drawing is not None:
                    drawings.append(drawing)
    return drawings


def _unused(name: str, used: Collection[str]) -> str:
    """`name`, with a number if another figure has it: settings can differ only in characters that names omit."""
    return next(one for one in chain([name], (f"{name}-{number}" for number in count(2))) if one not in used)
