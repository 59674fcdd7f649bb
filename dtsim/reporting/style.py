"""One style for all figures, for print, greyscale and any colour vision."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, SymmetricalLogLocator
from numpy.typing import NDArray

from dtsim.reporting.labels import SCHEMES

# Okabe and Ito's colours (2008), distinct for any colour vision, with grey instead of the pale yellow.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#000000", "#56B4E9", "#7F7F7F")
# Line styles and markers, since colours are lost in greyscale.
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
LINES: tuple[Any, ...] = (
    "-",
    "--",
    "-.",
    (0, (1, 1)),
    (0, (5, 1, 1, 1, 1, 1)),
    (0, (4, 2)),
    (0, (7, 2)),
    (0, (7, 2, 2, 2)),
)
BORDER: dict[str, Any] = {"color": "black", "linewidth": 0.6, "linestyle": (0, (1, 2))}
"""The line at the border of two frames."""
HATCHES = ("", "////", "....", "xxxx")

_SIDE_BY_SIDE_IN = 5.0
"""A figure that is narrower has its panels below each other."""
_STACKED = 0.78
"""Height of a panel that stands alone in its row, over that of one beside others."""
_LETTER_IN = 0.056
"""Usual width of a letter at the size of legends."""
_MOST_DECADES = 0.62
"""A horizontal logarithmic axis of more in an inch has no room for 2 and 5 of each."""
_HANDLE_IN = 0.5
"""Width of what stands before a name in a legend, and of the space behind it."""

_LOOK: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "hatch.linewidth": 0.5,
    "text.parse_math": False,  # a scheme's name may contain two dollar signs
    "pdf.fonttype": 42,  # searchable and editable text
    "svg.hashsalt": "dtsim",  # equal figures give equal bytes
}


@dataclass(frozen=True)
class Drawing:
    """A drawn figure with its name, title and caption."""

    name: str
    """Base name of its files."""
    title: str
    caption: str
    """What is shown, from how many runs, with which intervals; also the alternative text of the image."""
    figure: Figure


@contextmanager
def look() -> Iterator[None]:
    """Draw with this style; global settings are not changed."""
    with mpl.rc_context(_LOOK):
        yield


def is_narrow(width_in: float) -> bool:
    """Whether panels stand below each other in a figure of that width."""
    return width_in < _SIDE_BY_SIDE_IN


def canvas(
    width_in: float, height_in: float, rows: int = 1, columns: int = 1, **keywords: Any
) -> tuple[Figure, NDArray[Any]]:
    """A figure and its panels in reading order; in a narrow figure each has a row of its own.

    Args:
        width_in: its width, in inch.
        height_in: its height if the panels stand side by side.
        rows: of panels.
        columns: of panels.
        keywords: of `Figure.subplots`, for panels that stand side by side.
    """
    if stacked := is_narrow(width_in) and columns > 1:
        height_in = 0.5 + (height_in - 0.5) / rows * rows * columns * _STACKED
        rows, columns = rows * columns, 1
    figure, panels = grid(width_in, height_in, rows, columns, **({} if stacked else keywords))
    return figure, panels.ravel()


def grid(width_in: float, height_in: float, rows: int, columns: int, **keywords: Any) -> tuple[Figure, NDArray[Any]]:
    """A figure and its panels [rows, columns], whatever its width."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def heading(figure: Figure, said: str) -> None:
    """What is shown, above all panels; it wraps where there is no room."""
    letters = int(figure.get_figwidth() / _LETTER_IN)
    figure.suptitle(textwrap.fill(said, letters), fontsize=7.5)


def line(scheme: str, schemes: Sequence[str], *, marker: bool = True) -> dict[str, Any]:
    """Colour, line and marker of a scheme among `schemes`; each known scheme always has the same."""
    others = [name for name in schemes if name not in SCHEMES]
    place = SCHEMES.index(scheme) if scheme in SCHEMES else len(SCHEMES) + others.index(scheme)
    again, place = divmod(place, len(COLOURS))  # a repeated colour has another marker and line
    style = {"color": COLOURS[place], "linestyle": LINES[(place + again) % len(LINES)]}
    return {**style, "marker": MARKERS[(place + again) % len(MARKERS)]} if marker else style


def bars(
    axes: Axes, x: Any, mean: Any, low: Any, high: Any, *, within: tuple[float, float] | None = None, **keywords: Any
) -> None:
    """Points with their intervals, cut at `within`; NaN intervals are not drawn."""
    mean, low, high = (np.asarray(values, dtype=float) for values in (mean, low, high))
    if within is not None:
        low, high = np.clip(low, *within), np.clip(high, *within)
    error = np.nan_to_num(np.vstack([mean - low, high - mean])).clip(min=0)
    axes.errorbar(x, mean, yerr=error, capsize=2, elinewidth=0.8, **keywords)


def marked_below(axes: Axes) -> bool:
    """Put an arrowhead on the lower end of each logarithmic axis for each interval that reaches beyond it.

    Call it when the limits of the axes are final. Returns whether there is one.
    """
    found = False
    ends = {1: (axes.get_yscale(), axes.get_ylim()[0], "v"), 0: (axes.get_xscale(), axes.get_xlim()[0], "<")}
    for container in [one for one in axes.containers if isinstance(one, ErrorbarContainer)]:
        for lines in container.lines[2]:
            colour = np.atleast_2d(lines.get_color())[0]
            for segment in filter(len, lines.get_segments()):
                along = 1 if segment[0, 0] == segment[1, 0] else 0
                scale, end, marker = ends[along]
                if scale == "log" and segment[:, along].min() < end:
                    place = (segment[0, 0], end) if along else (end, segment[0, 1])
                    axes.plot(*place, marker, color=colour, markersize=3.5, clip_on=False, zorder=5)
                    found = True
    return found


def aside(schemes: Sequence[str], scheme: str, step: float) -> float:
    """Horizontal offset of a scheme's points, so that those at one place stand side by side; `step`: between two."""
    return step * (list(schemes).index(scheme) - (len(schemes) - 1) / 2)


def points(
    axes: Axes,
    totals: Mapping[str, Any],
    schemes: Sequence[str],
    scale: float = 1.0,
    within: tuple[float, float] | None = None,
) -> None:
    """One point with its interval for each scheme, side by side; the legend of the figure names them.

    `totals`: frames of one row, `mean, low, high`. `within`: as in `bars`.
    """
    for place, (scheme, total) in enumerate(totals.items()):
        mean, low, high = (scale * total[name] for name in ("mean", "low", "high"))
        bars(axes, [place], mean, low, high, within=within, **{**line(scheme, schemes), "linestyle": ""})
    axes.set_xticks([])
    axes.set_xlim(-0.7, len(totals) - 0.3)
    axes.grid(axis="x", visible=False)


def whole(axis: Axis) -> None:
    """Tick an axis at whole numbers only."""
    axis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10], nbins=8))


def logarithmic(axis: Axis, *, from_zero: float = 0.0) -> None:
    """Tick a logarithmic axis with plain numbers at 1, 2 and 5 of each decade (only at 1 if there are many).

    `from_zero`: where given, the axis is "symlog", linear below that value, and begins at zero, which is ticked too.
    """
    if from_zero:
        axis.set_major_locator(SymmetricalLogLocator(base=10, linthresh=from_zero))
        axis.set_minor_locator(SymmetricalLogLocator(base=10, linthresh=from_zero, subs=list(range(2, 10))))
    else:
        low, high = axis.get_view_interval()
        room_in = axis.axes.get_position().width * axis.axes.figure.get_figwidth()  # type: ignore[union-attr]
        crowded = axis is axis.axes.xaxis and math.log10(high / low) > _MOST_DECADES * room_in
        axis.set_major_locator(LogLocator(subs=(1.0,) if crowded else (1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def plain(axis: Axis) -> None:
    """Plain numbers at the ticks of an axis, in place of powers of ten."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))


def border_mark() -> Line2D:
    """The border of a frame in a legend."""
    return Line2D([], [], label="a frame begins", **BORDER)


def legend(figure: Figure, schemes: Sequence[str], *, marker: bool = True, extra: Sequence[Any] = ()) -> None:
    """The schemes' legend, once, below all panels."""
    handles = [Line2D([], [], label=scheme, **line(scheme, schemes, marker=marker)) for scheme in schemes]
    below(figure, [*handles, *extra])


def below(figure: Figure, handles: Sequence[Any], labels: Sequence[str] | None = None, **keywords: Any) -> None:
    """A legend below all panels, in as many columns as the width allows, of equal rows."""
    names = [str(handle.get_label()) for handle in handles] if labels is None else list(labels)
    rows = next(
        rows
        for rows in range(1, len(names) + 1)
        if rows == len(names) or _width_in(names, rows) <= figure.get_figwidth()
    )
    columns = math.ceil(len(names) / rows)
    figure.legend(handles=list(handles), labels=names, loc="outside lower center", ncols=columns, **keywords)


def _width_in(names: Sequence[str], rows: int) -> float:
    """Width of a legend with that many rows, in inch."""
    columns = (names[first : first + rows] for first in range(0, len(names), rows))
    return sum(_HANDLE_IN + _LETTER_IN * max(map(len, column)) for column in columns)


def save(drawings: Sequence[Drawing], folder: Path) -> list[Path]:
    """Write each drawing as PNG (200 dots per inch) and PDF; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    with look():
        for drawing in drawings:
            for ending, keywords in _FORMATS.items():
                file = folder / f"{drawing.name}.{ending}"
                drawing.figure.savefig(file, **keywords)
                files.append(file)
    return files


_FORMATS: dict[str, dict[str, Any]] = {"png": {"dpi": 200}, "pdf": {"metadata": {"CreationDate": None}}}
