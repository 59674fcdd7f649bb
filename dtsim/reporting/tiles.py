"""Where the proposed scheme wins: it against baselines that decide every slot, in every cell of a map of settings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from dtsim.reporting.claims import PROPOSED, SINGLE, Run
from dtsim.reporting.statistics import mean_interval
from dtsim.reporting.verdict import judge

BASELINES = (SINGLE, "every_slot_windowed")
"""Schemes that decide every slot: on that slot's measured accuracy, and on that of the last τ slots."""
CLAIMED = 0.4
"""The paper claims that the proposed scheme's delay is less than this share of a single timescale's."""

CELL = ("trainable", "amount", "images", "drift", "charge", "effect")
"""The choices of a cell: what updates train, the amount of generated data, images of an MU in a slot, drift, whose
samples eq. (10) prices, and when an update serves."""

AXES: Mapping[str, tuple[str, ...]] = {
    "amount": ("fill", "kl"),
    "images": ("10-30", "100-300", "1000"),
    "drift": ("unseen_classes", "regions_differ", "rotation", "label_shift"),
    "charge": ("all", "real", "generated", "none"),
    "effect": ("at_once", "when_done"),
}
"""The values of each choice on the map, the default first."""

SAID = {
    "head": "heads, at their own price",
    "head_at_model_price": "heads, at the price of whole models",
    "all": "whole models",
}
"""What updates train, and what they are charged."""

Winner = Literal["proposed", "baseline", "neither"]

_MEASURES: Mapping[str, Callable[[Run], float]] = {
    "accuracy": lambda run: run.accuracy,
    "frame_breakouts": lambda run: float(run.frames["breakout"].mean()),
}
COLUMNS = (
    *CELL,
    *("mu", "baseline", "n", "delay_s", "baseline_delay_s", "ratio", "ratio_low", "ratio_high", "faster", "claim"),
    *(
        f"{prefix}{name}{suffix}"
        for name in _MEASURES
        for prefix, suffix in (("", ""), ("baseline_", ""), ("", "_difference"), ("", "_low"), ("", "_high"))
    ),
)


def compare(runs: pd.DataFrame) -> pd.DataFrame:
    """The proposed scheme against each baseline, in every cell and at every number of MUs, paired by seed.

    All measures leave out the first frame. The ratio of mean system delays is geometric over seeds, its 95 % interval
    (Student's t) on the log scale. Differences are of the accuracy of MU-frames, and of the share of MU-frames below
    the threshold, whose interval is a bootstrap over seeds.

    Args:
        runs: as `dtsim.reporting.runs.load` gives them, with the columns `CELL`.

    Returns:
        Columns `COLUMNS`. `faster`: whose delay is less, by the interval of the ratio; `claim`: the verdict on a ratio
        below `CLAIMED`.
    """
    rows = []
    for place, group in runs.astype({"mu": int}).groupby([*CELL, "mu"], sort=False):
        of: dict[str, dict[int, Run]] = {}
        for row in group.to_dict("records"):
            run = Run({str(name): value for name, value in row.items()})
            of.setdefault(str(row["config.scheme.name"]), {})[int(row["seed"])] = run
        for baseline in BASELINES:
            seeds = sorted(of.get(PROPOSED, {}).keys() & of.get(baseline, {}).keys())
            if seeds:
                ours, theirs = ([of[name][seed] for seed in seeds] for name in (PROPOSED, baseline))
                rows.append(
                    {**dict(zip((*CELL, "mu"), place, strict=True)), "baseline": baseline, **_row(ours, theirs)}
                )
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _row(ours: Sequence[Run], theirs: Sequence[Run]) -> dict[str, Any]:
    """The measured columns, from runs of equal seeds."""
    one, two = (np.array([run.mean_delay_s for run in some]) for some in (ours, theirs))
    ratio, low, high = (math.exp(value) for value in mean_interval(np.log(one / two)))
    row: dict[str, Any] = {
        "n": len(one),
        "delay_s": one.mean(),
        "baseline_delay_s": two.mean(),
        "ratio": ratio,
        "ratio_low": low,
        "ratio_high": high,
        "faster": faster(low, high),
        "claim": judge(low, high, "<", CLAIMED),
    }
    for name, of in _MEASURES.items():
        mine, their = (np.array([of(run) for run in some]) for some in (ours, theirs))
        difference, below, above = mean_interval(mine - their, "t" if name == "accuracy" else "bootstrap")
        row |= {name: mine.mean(), f"baseline_{name}": their.mean(), f"{name}_difference": difference}
        row |= {f"{name}_low": below, f"{name}_high": above}
    return row


def faster(low: float, high: float) -> Winner:
    """Who has the lower delay, by the interval of the ratio of the proposed scheme's to the baseline's."""
    return "proposed" if high < 1 else "baseline" if low > 1 else "neither"


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """In how many cells who is faster, and where the claim holds; a row for each `trainable`, `mu` and `baseline`."""
    marks = table[["trainable", "mu", "baseline"]].assign(cells=1)
    for name in _WINNERS:
        marks[f"{name} faster"] = (table["faster"] == name).astype(int)
    marks["claim holds"] = (table["claim"] == "holds").astype(int)
    return marks.groupby(["trainable", "mu", "baseline"], sort=False).sum().reset_index()


_WINNERS: tuple[Winner, ...] = ("proposed", "baseline", "neither")


def flips(table: pd.DataFrame) -> pd.DataFrame:
    """What flips who is faster: pairs of cells that differ in one choice alone, and of these, pairs with both winners.

    Returns:
        A row for each choice and `baseline`: `choice, baseline, pairs, decided` (both cells have a winner)`, flipped,
        factor` (by which the ratio of delays changes, geometric mean over pairs, the larger over the smaller).
    """
    rows = []
    for choice in (*CELL, "mu"):
        others = [name for name in (*CELL, "mu") if name != choice]
        for baseline, of in table.groupby("baseline", sort=False):
            pairs = list(_pairs(of, others))
            if not pairs:
                continue
            decided = [
                {one["faster"], two["faster"]} for one, two in pairs if "neither" not in (one["faster"], two["faster"])
            ]
            factor = np.mean([abs(math.log(one["ratio"] / two["ratio"])) for one, two in pairs])
            flipped = sum(len(winners) == 2 for winners in decided)
            rows.append((choice, baseline, len(pairs), len(decided), flipped, math.exp(factor)))
    return pd.DataFrame(rows, columns=["choice", "baseline", "pairs", "decided", "flipped", "factor"])


def _pairs(table: pd.DataFrame, same: list[str]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """All pairs of rows that agree in the columns `same`."""
    for _, group in table.groupby(same, sort=False):
        cells = [{str(name): value for name, value in row.items()} for row in group.to_dict("records")]
        yield from ((one, two) for place, one in enumerate(cells) for two in cells[place + 1 :])


def overview(table: pd.DataFrame) -> str:
    """In how many cells who is faster, as a Markdown table; a row for each `trainable`, `mu` and `baseline`."""
    head = (
        "updates train",
        "K",
        "against",
        "cells",
        "faster",
        "slower",
        "not decided",
        "> 60 % below",
        "delay, from … to",
    )
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    ends = table.groupby(["trainable", "mu", "baseline"], sort=False)["ratio"].agg(["min", "max"])
    for row, low, high in zip(counts(table).itertuples(index=False), ends["min"], ends["max"], strict=True):
        trainable, mu, baseline, *numbers = map(str, row)
        cells = [SAID.get(trainable, trainable), mu, f"`{baseline}`", *numbers, f"{percent(low)} … {percent(high)}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def markdown(table: pd.DataFrame) -> str:
    """The whole map as a Markdown table; ratios as percentages above or below the baseline."""
    head = (
        *("updates", "data", "images", "drift", "charge", "effect", "MUs", "against", "n", "delay, 95 % interval"),
        *("faster", "> 60 % below", "accuracy, points", "frame break-outs, points"),
    )
    lines = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for row in table.to_dict("records"):
        cells = [*(str(row[name]) for name in (*CELL, "mu", "baseline", "n"))]
        cells += [percent(row["ratio"]) + _interval(row, "ratio", percent), row["faster"], row["claim"]]
        cells += [_points(row[f"{n}_difference"]) + _interval(row, n, _points) for n in _MEASURES]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _interval(row: Mapping[Any, Any], name: str, text: Callable[[float], str]) -> str:
    low, high = row[f"{name}_low"], row[f"{name}_high"]
    return "" if math.isnan(low) else f" [{text(low)}, {text(high)}]"


def percent(ratio: float) -> str:
    """A ratio as a percentage above or below 1."""
    return f"{100 * (ratio - 1):+.0f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:+.1f}"
