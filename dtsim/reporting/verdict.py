"""What the paper claims, each claim as something measured, and whether it holds.

Every claim is a number for each seed, from runs of several schemes on the same world. Rule: a claim holds where the
95 % interval of its mean over seeds (Student's t; on the log scale for ratios) lies on its side of the threshold, it
does not hold where the interval lies on the other side, and it is not decided where the threshold is inside or there
are fewer than three seeds. Intervals are not corrected for the number of claims.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from dtsim.reporting.statistics import mean_interval

Verdict = Literal["holds", "does not hold", "not decided"]

FILE = "verdict.csv"
"""Where a reproduction leaves what `evaluate` found."""

DEFAULT = "default"
"""The setting that the claims are about; others differ from it by what they are called."""
REFERENCE_MU = 20
"""Number of MUs of Figs. 2(a) and 2(b); where no run has it, the largest that one has."""

PROPOSED, WITHOUT_DT, WITHOUT_IL, SINGLE = "proposed", "without_dt", "without_il", "single_timescale"


@dataclass(frozen=True)
class Run:
    """A finished run, its files read when they are asked for."""

    row: Mapping[str, Any]

    @property
    def threshold(self) -> float:
        """A_th."""
        return float(self.row["config.accuracy_threshold"])

    @cached_property
    def updates(self) -> pd.DataFrame:
        """The last epoch of every update: columns `value` (accuracy on held-out images), `flop` (its training work)."""
        curve = self._read("learning_curve.csv", ["phase", "user", "slot", "epoch", "flop", "metric", "value"])
        measured = curve[curve["phase"].isin(["incremental", "from_scratch"]) & (curve["metric"] == "accuracy")]
        return measured.sort_values("epoch").groupby(["slot", "user"]).last()

    @cached_property
    def frames(self) -> pd.DataFrame:
        """MU-frames from the second frame on: in the first nobody who decides once a frame has data to train on."""
        frames = self._read("frames.csv", ["frame", "user", "accuracy", "breakout"])
        return frames[frames["frame"] > 0]

    @cached_property
    def delays_s(self) -> pd.Series:
        """System delay of every slot from the second frame on, by slot, under the run's objective."""
        slots = self._read("slots.csv", ["frame", "slot", "station", "delay_s"])
        slowest = slots[slots["frame"] > 0].groupby(["slot", "station"])["delay_s"].max()
        per_slot = slowest.groupby("slot")
        return per_slot.max() if self.row["objective"] == "makespan" else per_slot.sum()

    @property
    def curve(self) -> pd.Series:
        """Accuracy of every frame from the second on, mean over MUs."""
        return self.frames.groupby("frame")["accuracy"].mean()

    @property
    def falls(self) -> float:
        """Share of MU-frames below the threshold among those that follow one at or above it."""
        below = self.frames.pivot(index="frame", columns="user", values="breakout").to_numpy()
        well = below[:-1] == 0
        return float(below[1:][well].mean()) if well.any() else math.nan

    def _read(self, file: str, columns: Sequence[str]) -> pd.DataFrame:
        return pd.read_csv(Path(self.row["folder"]) / file, usecols=list(columns))


@dataclass(frozen=True)
class Claim:
    """Something that the paper says, as a number for each seed and what it must be."""

    figure: str
    says: str
    """The paper's claim."""
    measure: str
    """What is measured, and how it is to compare with the threshold."""
    schemes: tuple[str, ...]
    """Whose runs `value` takes, in its order."""
    value: Callable[..., float]
    relation: Literal[">", "<", "<="]
    threshold: float
    unit: Literal["points", "points/frame", "ratio"]
    """Ratios have their interval on the log scale."""
    every_mu: bool = False
    """Whether the claim is about every number of MUs, or about that of the figure."""


def _ratio(one: float, other: float) -> float:
    return one / other if one > 0 and other > 0 else math.nan


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
        "without the twin's data accuracy is still higher than without incremental learning",
        "the same: without_dt - without_il > 0",
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
        ">", 0.0, "points",
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
        "<=", 0.0, "points",
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
        lambda proposed, single: _ratio(proposed.row["system_delay_mean_s"], single.row["system_delay_mean_s"]),
        "<", 0.4, "ratio", True,
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

COLUMNS = (
    *("figure", "claim", "measure", "setting", "mu", "n", "value", "low", "high"),
    *("relation", "threshold", "unit", "verdict"),
)


def judge(low: float, high: float, relation: str, threshold: float) -> Verdict:
    """The rule of this module, for an interval; NaN where there is none."""
    if math.isnan(low) or math.isnan(high):
        return "not decided"
    true = {">": operator.gt, "<": operator.lt, "<=": operator.le}[relation]
    sides = {bool(true(low, threshold)), bool(true(high, threshold))}
    return "not decided" if len(sides) == 2 else "holds" if sides == {True} else "does not hold"


def evaluate(runs: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Every claim in every setting and at every number of MUs, as far as there are runs.

    Args:
        runs: as `dtsim.reporting.runs.load` gives them, with one more column, `setting`: what differs from the
            defaults, such as "channel=umi", or `DEFAULT`.
        claims: what to judge.

    Returns:
        Columns `COLUMNS`; n counts the seeds that all schemes of the claim have.
    """
    rows = []
    for place, group in runs.groupby(["setting", "mu"], sort=False):
        by_seed = [
            {str(row["config.scheme.name"]): Run(row) for row in _records(part)} for _, part in group.groupby("seed")
        ]
        for claim in claims:
            values = [
                claim.value(*(of[scheme] for scheme in claim.schemes))
                for of in by_seed
                if of.keys() >= set(claim.schemes)
            ]
            values = [value for value in values if not math.isnan(value)]
            if values:
                rows.append(_row(claim, place[0], place[1], values))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _row(claim: Claim, setting: Any, mu: Any, values: list[float]) -> dict[str, Any]:
    if claim.unit == "ratio":
        mean, low, high = (math.exp(value) for value in mean_interval(np.log(values)))
    else:
        mean, low, high = mean_interval(values)
    return {
        "figure": claim.figure,
        "claim": claim.says,
        "measure": claim.measure,
        "setting": setting,
        "mu": mu,
        "n": len(values),
        "value": mean,
        "low": low,
        "high": high,
        "relation": claim.relation,
        "threshold": claim.threshold,
        "unit": claim.unit,
        "verdict": judge(low, high, claim.relation, claim.threshold),
    }


@dataclass(frozen=True)
class Line:
    """A line of the verdict table."""

    figure: str
    claim: str
    mu: str
    measured: str
    verdict: Verdict
    depends: str
    """Settings, and numbers of MUs, under which the verdict is another one."""


def lines(findings: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> Iterator[Line]:
    """The verdict table: each claim where the paper makes it, and where else it comes out differently.

    A claim about every number of MUs has a line for each, and one over all: it holds where all hold, and does not
    where one does not.
    """
    for claim in claims:
        of = findings[findings["claim"] == claim.says]
        usual = of[of["setting"] == DEFAULT].sort_values("mu")
        if usual.empty:
            continue
        others = of[of["setting"] != DEFAULT]
        if claim.every_mu:
            verdicts = set(usual["verdict"])
            overall: Verdict = (
                "does not hold" if "does not hold" in verdicts else "holds" if verdicts == {"holds"} else "not decided"
            )
            ends = (_number(usual["value"].agg(end), claim.unit) for end in ("min", "max"))
            span = f"{' to '.join(ends)} {_UNITS[claim.unit]}"
            depends = _differing(others, overall)
            yield Line(claim.figure, claim.says, "each", span, overall, depends)
            for finding in _records(usual):
                yield Line("", "", str(finding["mu"]), measured(finding), finding["verdict"], "")
        else:
            known = usual["mu"].tolist()
            mu = REFERENCE_MU if REFERENCE_MU in known else max(known)
            (finding,) = _records(usual[usual["mu"] == mu])
            depends = _differing(pd.concat([usual[usual["mu"] != mu], others]), finding["verdict"])
            yield Line(claim.figure, claim.says, str(mu), measured(finding), finding["verdict"], depends)


def _differing(others: pd.DataFrame, verdict: Verdict) -> str:
    """The findings of `others` with another verdict, in words."""
    found = others[others["verdict"] != verdict]
    if found.empty:
        return ""
    parts = [
        f"{'' if row['setting'] == DEFAULT else row['setting'] + ', '}mu={row['mu']}: {row['verdict']}, {measured(row)}"
        for row in _records(found)
    ]
    return "; ".join(parts)


def measured(finding: Mapping[str, Any]) -> str:
    """Value, interval and number of seeds of a finding."""
    value, low, high = (_number(finding[name], finding["unit"]) for name in ("value", "low", "high"))
    interval = f" [{low}, {high}]" if not math.isnan(finding["low"]) else ""
    return f"{value}{interval} {_UNITS[finding['unit']]}, n={finding['n']}"


_UNITS = {"ratio": "%", "points": "points", "points/frame": "points/frame"}


def _number(value: float, unit: str) -> str:
    """For people: a ratio as the percentage above or below 1, a share or an accuracy in points (hundredths)."""
    return f"{100 * (value - 1):+.0f}" if unit == "ratio" else f"{100 * value:+.2f}"


def markdown(findings: pd.DataFrame) -> str:
    """The verdict table in Markdown."""
    head = "| figure | claim | MUs | measured, 95 % interval | verdict | otherwise |\n" + "| --- " * 6 + "|\n"
    rows = (
        f"| {line.figure} | {line.claim} | {line.mu} | {line.measured} | {line.verdict} | {line.depends} |\n"
        for line in lines(findings)
    )
    return head + "".join(rows)
