"""The map of settings as tiles: colour is the ratio of delays, text says it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm
from matplotlib.patches import Rectangle

from dtsim.reporting.lengths import PAGE_IN
from dtsim.reporting.style import Drawing, grid, look
from dtsim.reporting.tiles import AXES, BASELINES, SAID, percent

_COLOURS = "RdBu_r"
"""Blue where the proposed scheme is faster, red where it is slower: told apart by any colour vision."""
_NORM = LogNorm(1 / 16, 16)


def tiles(table: pd.DataFrame) -> list[Drawing]:
    """A figure for each baseline and each kind of updates: drift against amount and images, charge against effect.

    Args:
        table: as `dtsim.reporting.tiles.compare` gives it.
    """
    drawings = []
    for trainable in table["trainable"].unique():
        for baseline in BASELINES:
            of = table[(table["trainable"] == trainable) & (table["baseline"] == baseline)]
            if len(of):
                drawings.append(_drawing(of, str(trainable), baseline))
    return drawings


def _drawing(table: pd.DataFrame, trainable: str, baseline: str) -> Drawing:
    counts = sorted(int(mu) for mu in table["mu"].unique())
    whose = SAID.get(trainable, trainable)
    with look():
        figure, panels = grid(PAGE_IN, 4.4 * len(counts), 2 * len(counts), 1)
        for place, mu in enumerate(counts):
            of = table[table["mu"] == mu]
            usual = of[(of["charge"] == "all") & (of["effect"] == "at_once")]
            plain = of[(of["drift"] == AXES["drift"][0]) & (of["images"] == AXES["images"][0])]
            columns = [(amount, images) for amount in AXES["amount"] for images in AXES["images"]]
            above, below = panels[2 * place, 0], panels[2 * place + 1, 0]
            _panel(above, usual, "drift", AXES["drift"], ("amount", "images"), columns)
            above.set_title(f"K = {mu}: drift × data of an update × images of an MU in a slot")
            columns = [(amount, effect) for amount in AXES["amount"] for effect in AXES["effect"]]
            _panel(below, plain, "charge", AXES["charge"], ("amount", "effect"), columns)
            below.set_title(f"K = {mu}: who is charged × data of an update × when it serves")
        bar = figure.colorbar(ScalarMappable(_NORM, _COLOURS), ax=panels.ravel().tolist(), aspect=50, shrink=0.6)
        bar.set_ticks([1 / 16, 1 / 4, 1, 4, 16], labels=["1/16", "1/4", "1", "4", "16"])
        bar.minorticks_off()
        bar.set_label(f"system delay of proposed over {baseline}'s")
    seeds = table["n"].min()
    return Drawing(
        f"map-{trainable}-{baseline}",
        f"Where the proposed scheme wins against {baseline} (updates train {whose})",
        f"Mean system delay of proposed against {baseline}, in per cent above or below, geometric mean over at least "
        f"{seeds} seeds on the same worlds, first frame left out; below it the 95 % interval. Framed: the interval "
        "leaves zero out. *: more than 60 % below, as the paper claims. Blue: proposed is faster; red: slower; empty: "
        "not run.",
        figure,
    )


def _panel(
    axes: Axes,
    table: pd.DataFrame,
    by: str,
    rows: Sequence[str],
    names: tuple[str, str],
    columns: Sequence[tuple[str, str]],
) -> None:
    """Tiles of `table`: a row for each of `rows` of the column `by`, a column for each pair of values of `names`."""
    axes.set_xlim(0, len(columns))
    axes.set_ylim(len(rows), 0)
    axes.grid(visible=False)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_xticks([place + 0.5 for place in range(len(columns))], [f"{one}\n{two}" for one, two in columns])
    axes.set_yticks([place + 0.5 for place in range(len(rows))], rows)
    axes.tick_params(length=0)
    colours = ScalarMappable(_NORM, _COLOURS)
    for row, value in enumerate(rows):
        for column, pair in enumerate(columns):
            chosen = (table[by] == value) & (table[names[0]] == pair[0]) & (table[names[1]] == pair[1])
            found: list[dict[Any, Any]] = table[chosen].to_dict("records")
            for cell in found[:1]:
                _tile(axes, column, row, cell, colours)


def _tile(axes: Axes, x: float, y: float, cell: dict[Any, Any], colours: ScalarMappable) -> None:
    ratio, low, high = (float(cell[name]) for name in ("ratio", "ratio_low", "ratio_high"))
    colour: tuple[float, ...] = tuple(colours.to_rgba(np.clip(ratio, 1 / 16, 16)))
    decided = cell["faster"] != "neither"
    axes.add_patch(
        Rectangle(
            (x + 0.03, y + 0.05), 0.94, 0.9, facecolor=colour, edgecolor="black" if decided else "none", linewidth=0.9
        )
    )
    shade = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    ink = "white" if shade < 0.5 else "black"
    star = " *" if cell["claim"] == "holds" else ""
    axes.text(x + 0.5, y + 0.36, percent(ratio) + star, ha="center", va="center", color=ink, fontsize=8)
    if not math.isnan(low):
        said = f"[{100 * (low - 1):+.0f}, {100 * (high - 1):+.0f}]"
        axes.text(x + 0.5, y + 0.7, said, ha="center", va="center", color=ink, fontsize=6)
