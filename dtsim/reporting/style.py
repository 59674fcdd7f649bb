"""One style for all figures, for print, greyscale and any colour vision."""

from __future__ import annotations

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
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from numpy.typing import NDArray

from dtsim.reporting.runs import SCHEMES

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
HATCHES = ("", "////", "....", "xxxx")

WIDTH_IN = 7.2
"""Width of a figure across two columns of a page, in inch."""

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


def canvas(height_in: float, rows: int = 1, columns: int = 1, **keywords: Any) -> tuple[Figure, NDArray[Any]]:
    """A figure of the page's width and its panels [rows, columns]."""
    figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, **keywords)


def line(scheme: str, schemes: Sequence[str], *, marker: bool = True) -> dict[str, Any]:
    """Colour, line and marker of a scheme among `schemes`; each known scheme always has the same."""
    others = [name for name in schemes if name not in SCHEMES]
    place = SCHEMES.index(scheme) if scheme in SCHEMES else len(SCHEMES) + others.index(scheme)
    again, place = divmod(place, len(COLOURS))  # a repeated colour has another marker and line
    style = {"color": COLOURS[place], "linestyle": LINES[(place + again) % len(LINES)]}
    return {**style, "marker": MARKERS[(place + again) % len(MARKERS)]} if marker else style


def band(axes: Axes, x: Any, low: Any, high: Any, scheme: str, schemes: Sequence[str]) -> None:
    """An interval around a line."""
    axes.fill_between(x, low, high, color=line(scheme, schemes)["color"], alpha=0.1, linewidth=0)


def bars(axes: Axes, x: Any, mean: Any, low: Any, high: Any, **keywords: Any) -> None:
    """Points with their intervals; NaN intervals are not drawn."""
    mean, low, high = np.asarray(mean), np.asarray(low), np.asarray(high)
    error = np.nan_to_num(np.vstack([mean - low, high - mean])).clip(min=0)
    axes.errorbar(x, mean, yerr=error, capsize=2, elinewidth=0.8, **keywords)


def points(axes: Axes, totals: Mapping[str, Any], schemes: Sequence[str], scale: float = 1.0) -> None:
    """One point with its interval for each scheme, side by side. `totals`: frames of one row, `mean, low, high`."""
    for place, (scheme, total) in enumerate(totals.items()):
        style = {**line(scheme, schemes), "linestyle": ""}
        bars(axes, [place], *(scale * total[name] for name in ("mean", "low", "high")), **style)
    axes.set_xticks(range(len(totals)), list(totals), rotation=35, ha="right")
    axes.grid(axis="x", visible=False)


def logarithmic(axis: Axis) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5 of each decade (only at 1 if there are many)."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())


def legend(figure: Figure, schemes: Sequence[str], *, marker: bool = True, extra: Sequence[Line2D] = ()) -> None:
    """The schemes' legend, once, below all panels."""
    handles = [Line2D([], [], label=scheme, **line(scheme, schemes, marker=marker)) for scheme in schemes]
    figure.legend(handles=[*handles, *extra], loc="outside lower center", ncols=_columns(len(handles) + len(extra)))


def _columns(entries: int) -> int:
    return entries if entries <= 6 else -(-entries // 2)


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
