"""The paper's claims: each is measured as a number per seed, from the files of several schemes' runs in one world.

All claims leave out the first frame, in which schemes that decide once a frame cannot have retrained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dtsim.reporting.runs import threshold_of
from dtsim.reporting.statistics import Interval
from dtsim.results.formats import read_table
from dtsim.results.names import FRAMES, LEARNING_CURVE, SLOTS

PROPOSED, WITHOUT_DT, WITHOUT_IL, SINGLE = "proposed", "without_dt", "without_il", "single_timescale"


@dataclass(frozen=True)
class Run:
    """A finished run; its files are read on first use."""

    row: Mapping[str, Any]

    @property
    def threshold(self) -> float:
        """A_th."""
        return threshold_of(self.row)

    @cached_property
    def updates(self) -> pd.DataFrame:
        """The last epoch of every update: columns `value` (accuracy on held-out images), `flop` (its training work)."""
        return self._measured.groupby(["slot", "user"]).last()

    @cached_property
    def _measured(self) -> pd.DataFrame:
        """Held-out accuracy after every epoch of every update, in the order of epochs; epoch 0 is before it."""
        curve = self._read(LEARNING_CURVE, ["phase", "user", "slot", "epoch", "flop", "metric", "value"])
        measured = curve[curve["phase"].isin(["incremental", "from_scratch"]) & (curve["metric"] == "accuracy")]
        return measured.sort_values("epoch")

    @cached_property
    def frames(self) -> pd.DataFrame:
        """MU-frames from the second frame on: in the first, schemes that decide once a frame have no data yet."""
        frames = self._read(FRAMES, ["frame", "user", "accuracy", "breakout"])
        return frames[frames["frame"] > 0]

    @cached_property
    def delays_s(self) -> pd.Series:
        """System delay of every slot from the second frame on, by slot, under the run's objective."""
        slots = self._read(SLOTS, ["frame", "slot", "station", "delay_s"])
        slowest = slots[slots["frame"] > 0].groupby(["slot", "station"])["delay_s"].max()
        per_slot = slowest.groupby("slot")
        return per_slot.max() if self.row["objective"] == "makespan" else per_slot.sum()

    @property
    def mean_delay_s(self) -> float:
        """System delay, mean over the slots from the second frame on."""
        return float(self.delays_s.mean())

    @property
    def accuracy(self) -> float:
        """Accuracy of MU-frames from the second frame on, mean over them."""
        return float(self.frames["accuracy"].mean())

    def accuracy_after(self, flop: float) -> float:
        """Accuracy after `flop` of training work in every update, mean over updates; an update may end with less.

        Between two measured epochs it is interpolated linearly. An epoch raises accuracy most at its start, so this
        understates an update whose epochs are long.
        """
        reached = [
            np.interp(flop, of["flop"].to_numpy(dtype=float), of["value"].to_numpy(dtype=float))
            for _, of in self._measured.groupby(["slot", "user"])
        ]
        return float(np.mean(reached)) if reached else math.nan

    @property
    def curve(self) -> pd.Series:
        """Accuracy of every frame from the second on, mean over MUs."""
        return self.frames.groupby("frame")["accuracy"].mean()

    @property
    def falls(self) -> float:
        """Fraction of MU-frames below the threshold among those that follow one at or above it."""
        below = self.frames.pivot(index="frame", columns="user", values="breakout").to_numpy()
        well = below[:-1] == 0
        return float(below[1:][well].mean()) if well.any() else math.nan

    def _read(self, file: str, columns: Sequence[str]) -> pd.DataFrame:
        return read_table(Path(self.row["folder"]) / file, columns)


@dataclass(frozen=True)
class Claim:
    """A statement of the paper, as a number for each seed and the required relation to a threshold."""

    figure: str
    says: str
    """The paper's claim."""
    measure: str
    """The measured quantity and its required relation to the threshold."""
    schemes: tuple[str, ...]
    """Schemes whose runs `value` takes, in this order."""
    value: Callable[..., float]
    relation: Literal[">", "<", "<="]
    threshold: float
    unit: Literal["points", "points/frame", "ratio"]
    """Unit of the value; ratios have their interval on the log scale."""
    every_mu: bool = False
    """Whether the claim is about every number of MUs, or only about the one in the figure."""
    interval: Interval = "t"
    """Kind of the interval over seeds: break-outs are far from normal, and take the bootstrap."""
    along: str = ""
    """A key whose values the claim interpolates over: `value` then takes the runs of a scheme at all of its values."""


def _ratio(one: float, other: float) -> float:
    return one / other if one > 0 and other > 0 else math.nan


def _gain_at_equal_work(one: Run, other: Run) -> float:
    flop = min(one.updates["flop"].mean(), other.updates["flop"].mean())
    return math.nan if math.isnan(flop) else one.accuracy_after(flop) - other.accuracy_after(flop)


def _delay_at_equal_accuracy(ones: Sequence[Run], others: Sequence[Run]) -> float:
    """Ratio of delays in the middle of the accuracies that both reach, interpolated along each one's threshold.

    NaN where the accuracies have no common range.
    """
    curves = [sorted((run.accuracy, math.log(run.mean_delay_s)) for run in runs) for runs in (ones, others)]
    low, high = max(curve[0][0] for curve in curves), min(curve[-1][0] for curve in curves)
    if min(len(curve) for curve in curves) < 2 or low > high:
        return math.nan
    middle = (low + high) / 2
    mine, theirs = (float(np.interp(middle, *np.array(curve).T)) for curve in curves)
    return math.exp(mine - theirs)


def _slope(curve: pd.Series) -> float:
    return float(np.polyfit(curve.index.to_numpy(dtype=float), curve.to_numpy(), 1)[0]) if len(curve) > 1 else math.nan


def _late_over_early(run: Run) -> float:
    half = len(run.delays_s) // 2
    return _ratio(run.delays_s.iloc[-half:].mean(), run.delays_s.iloc[:half].mean()) if half else math.nan


CLAIMS = (
    Claim(
        "2(a)",
        "the proposed scheme trains to a higher accuracy than without the twin's data",
        "accuracy after an update's last epoch, held-out images, mean over updates: proposed - without_dt > 0",
        (PROPOSED, WITHOUT_DT),
        lambda proposed, other: proposed.updates["value"].mean() - other.updates["value"].mean(),
        ">", 0.0, "points",
    ),
    Claim(
        "2(a)",
        "it does so at equal training work",
        "as above, after as much work as an update of the scheme with the smaller ones: proposed - without_dt > 0",
        (PROPOSED, WITHOUT_DT),
        _gain_at_equal_work,
        ">", 0.0, "points",
    ),
    Claim(
        "2(a)",
        "without the twin's data accuracy is still higher than without incremental learning",
        "accuracy after an update's last epoch, held-out images, mean over updates: without_dt - without_il > 0",
        (WITHOUT_DT, WITHOUT_IL),
        lambda one, other: one.updates["value"].mean() - other.updates["value"].mean(),
        ">", 0.0, "points",
    ),
    Claim(
        "2(a)",
        "the twin's data cost extra training work",
        "FLOP of an update, mean over updates: proposed / without_dt > 1",
        (PROPOSED, WITHOUT_DT),
        lambda proposed, other: _ratio(proposed.updates["flop"].mean(), other.updates["flop"].mean()),
        ">", 1.0, "ratio",
    ),
    Claim(
        "2(b)",
        "a single timescale breaks out abruptly, more than the proposed scheme",
        "share of MU-frames below the threshold after one that was not: single_timescale - proposed > 0",
        (SINGLE, PROPOSED),
        lambda single, proposed: single.falls - proposed.falls,
        ">", 0.0, "points", False, "bootstrap",
    ),
    Claim(
        "2(b)",
        "a single timescale's accuracy falls below the threshold",
        "lowest frame accuracy, mean over MUs: single_timescale - threshold < 0",
        (SINGLE,),
        lambda single: single.curve.min() - single.threshold,
        "<", 0.0, "points",
    ),
    Claim(
        "2(b)",
        "the proposed scheme's accuracy stays above the threshold",
        "lowest frame accuracy, mean over MUs: proposed - threshold > 0",
        (PROPOSED,),
        lambda proposed: proposed.curve.min() - proposed.threshold,
        ">", 0.0, "points",
    ),
    Claim(
        "2(b)",
        "no MU of the proposed scheme breaks out",
        "share of MU-frames below the threshold: proposed <= 0",
        (PROPOSED,),
        lambda proposed: proposed.frames["breakout"].mean(),
        "<=", 0.0, "points", False, "bootstrap",
    ),
    Claim(
        "2(b)",
        "without the twin accuracy declines over time",
        "slope of the frame accuracy, mean over MUs, over frames: without_dt < 0",
        (WITHOUT_DT,),
        lambda run: _slope(run.curve),
        "<", 0.0, "points/frame",
    ),
    Claim(
        "2(c)",
        "the proposed scheme's system delay is more than 60 % below a single timescale's",
        "mean system delay: proposed / single_timescale < 0.4",
        (PROPOSED, SINGLE),
        lambda proposed, single: _ratio(proposed.mean_delay_s, single.mean_delay_s),
        "<", 0.4, "ratio", True,
    ),
    Claim(
        "2(c)",
        "so it is at equal accuracy",
        "as above, each interpolated along its accuracy threshold, in the middle of the accuracies that both reach",
        (PROPOSED, SINGLE),
        _delay_at_equal_accuracy,
        "<", 0.4, "ratio", False, "t", "accuracy_threshold",
    ),
    Claim(
        "2(c)",
        "without incremental learning the delay is not adjusted: it does not come down",
        "mean system delay of the later half of the slots / of the earlier half: without_il > 1",
        (WITHOUT_IL,),
        _late_over_early,
        ">", 1.0, "ratio",
    ),
)  # fmt: skip
