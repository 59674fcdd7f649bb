"""Verdicts on the paper's claims.

Rule: a claim holds if the 95 % interval of its mean over seeds (Student's t; on the log scale for ratios) lies on the
claimed side of the threshold. It does not hold if the interval lies on the other side. It is not decided if the
interval contains the threshold or there are fewer than three seeds. Break-outs have a bootstrap over seeds instead.

Many claims are judged at once, so a second verdict corrects for their number: p is of the one-sample t-test of the
seeds' values against the threshold, and where p, corrected by Holm over all rows of the table, is above 0.05, the claim
is not decided.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd

from dtsim.reporting.claims import CLAIMS, Claim, Run
from dtsim.reporting.statistics import holm, mean_interval, threshold_p

Verdict = Literal["holds", "does not hold", "not decided"]

FILE = "verdict.csv"
"""File in which a reproduction stores the result of `evaluate`."""

DEFAULT = "default"
"""The setting of the claims; other settings are named by what differs from it."""
REFERENCE_MU = 20
"""Number of MUs of Figs. 2(a) and 2(b); if no run has it, the largest available one is used."""

COLUMNS = (
    *("figure", "claim", "measure", "setting", "mu", "n", "value", "low", "high"),
    *("relation", "threshold", "unit", "verdict", "p", "p_holm", "verdict_holm"),
)

_LEVEL = 0.05


def judge(low: float, high: float, relation: str, threshold: float) -> Verdict:
    """The verdict for an interval by the rule of this module; NaN means that there is no interval."""
    if math.isnan(low) or math.isnan(high):
        return "not decided"
    true = {">": operator.gt, "<": operator.lt, "<=": operator.le}[relation]
    sides = {bool(true(low, threshold)), bool(true(high, threshold))}
    return "not decided" if len(sides) == 2 else "holds" if sides == {True} else "does not hold"


def evaluate(runs: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> pd.DataFrame:
    """Evaluate every claim in every setting and at every number of MUs for which there are runs.

    Args:
        runs: as returned by `dtsim.reporting.runs.load`, with one more column, `setting`: the differences from the
            defaults, such as "channel=umi", or `DEFAULT`.
        claims: the claims to judge.

    Returns:
        Columns `COLUMNS`; n is the number of seeds that all schemes of the claim have.
    """
    rows: list[dict[str, Any]] = []
    for (setting, count), group in runs.groupby(["setting", "mu"], sort=False):
        by_seed = [
            {str(row["config.scheme.name"]): Run(row) for row in _records(part)} for _, part in group.groupby("seed")
        ]
        rows += _rows([claim for claim in claims if not claim.along], (setting, count), by_seed)
    for key in dict.fromkeys(claim.along for claim in claims if claim.along):
        varied = runs[(runs["setting"] == DEFAULT) | runs["setting"].str.fullmatch(rf"{re.escape(key)}=\S+")]
        for mu, group in varied.groupby("mu", sort=False):
            lists = [
                {str(scheme): [Run(row) for row in _records(of)] for scheme, of in part.groupby("config.scheme.name")}
                for _, part in group.groupby("seed")
            ]
            rows += _rows([claim for claim in claims if claim.along == key], (DEFAULT, mu), lists)
    found = pd.DataFrame(rows, columns=list(COLUMNS[:-2]))
    corrected = holm(found["p"])
    decided = np.isnan(corrected) | (corrected <= _LEVEL)  # values that are all alike have no test
    return found.assign(p_holm=corrected, verdict_holm=found["verdict"].where(decided, "not decided"))


def _rows(
    claims: Sequence[Claim], place: tuple[Any, Any], by_seed: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """A row for each claim that some seed has a value of; `by_seed` holds what the claims take, by scheme."""
    for claim in claims:
        values = [
            claim.value(*(of[scheme] for scheme in claim.schemes)) for of in by_seed if of.keys() >= set(claim.schemes)
        ]
        values = [value for value in values if not math.isnan(value)]
        if values:
            yield _row(claim, *place, values)


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _row(claim: Claim, setting: Any, mu: Any, values: list[float]) -> dict[str, Any]:
    if claim.unit == "ratio":
        mean, low, high = (math.exp(value) for value in mean_interval(np.log(values), claim.interval))
        p = threshold_p(np.log(values), math.log(claim.threshold))
    else:
        mean, low, high = mean_interval(values, claim.interval)
        p = threshold_p(values, claim.threshold)
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
        "p": p,
    }


@dataclass(frozen=True)
class Line:
    """A line of the verdict table."""

    figure: str
    claim: str
    mu: str
    measured: str
    verdict: Verdict
    corrected: Verdict
    """The verdict that is corrected for the number of claims."""
    depends: str
    """Settings and numbers of MUs with a different verdict: a line for each such verdict."""


def lines(findings: pd.DataFrame, claims: Sequence[Claim] = CLAIMS) -> Iterator[Line]:
    """The verdict table: each claim where the paper makes it, and the settings with a different verdict.

    A claim about every number of MUs has a line for each number and one for all: that one holds if all hold, and does
    not hold if one does not.
    """
    for claim in claims:
        of = findings[findings["claim"] == claim.says]
        usual = of[of["setting"] == DEFAULT].sort_values("mu")
        if usual.empty:
            continue
        others = of[of["setting"] != DEFAULT]
        if claim.every_mu:
            overall, corrected = _of_all(usual["verdict"]), _of_all(usual["verdict_holm"])
            ends = (_number(usual["value"].agg(end), claim.unit) for end in ("min", "max"))
            span = f"{' to '.join(ends)} {_UNITS[claim.unit]}"
            depends = _differing(others, overall)
            yield Line(claim.figure, claim.says, "each", span, overall, corrected, depends)
            for finding in _records(usual):
                verdicts = (finding["verdict"], finding["verdict_holm"])
                yield Line("", "", str(finding["mu"]), measured(finding), *verdicts, "")
        else:
            known = usual["mu"].tolist()
            mu = REFERENCE_MU if REFERENCE_MU in known else max(known)
            (finding,) = _records(usual[usual["mu"] == mu])
            depends = _differing(pd.concat([usual[usual["mu"] != mu], others]), finding["verdict"])
            verdicts = (finding["verdict"], finding["verdict_holm"])
            yield Line(claim.figure, claim.says, str(mu), measured(finding), *verdicts, depends)


def _of_all(verdicts: pd.Series) -> Verdict:
    """The verdict on a claim about all of several numbers of MUs, each with its own verdict."""
    found = set(verdicts)
    return "does not hold" if "does not hold" in found else "holds" if found == {"holds"} else "not decided"


def _differing(others: pd.DataFrame, verdict: Verdict) -> str:
    """The findings of `others` with a different verdict, a line for each such verdict; with values if decided."""
    lines = []
    for other in get_args(Verdict):
        found = others[others["verdict"] == other]
        if other == verdict or found.empty:
            continue
        places = []
        for setting, group in found.groupby("setting", sort=False):
            said = [
                str(row["mu"]) if other == "not decided" else f"{row['mu']} ({measured(row)})"
                for row in _records(group)
            ]
            places.append(("" if setting == DEFAULT else f"{setting}, ") + f"mu={', '.join(said)}")
        lines.append(f"{other}: {'; '.join(places)}")
    return "\n".join(lines)


def measured(finding: Mapping[str, Any]) -> str:
    """Value, interval and number of seeds of a finding."""
    value, low, high = (_number(finding[name], finding["unit"]) for name in ("value", "low", "high"))
    interval = f" [{low}, {high}]" if not math.isnan(finding["low"]) else ""
    return f"{value}{interval} {_UNITS[finding['unit']]}, n={finding['n']}"


_UNITS = {"ratio": "%", "points": "points", "points/frame": "points/frame"}


def _number(value: float, unit: str) -> str:
    """A value as text: a ratio as percentage above or below 1, a share or an accuracy in points (hundredths)."""
    return f"{100 * (value - 1):+.0f}" if unit == "ratio" else f"{100 * value:+.2f}"


def markdown(findings: pd.DataFrame) -> str:
    """The verdict table in Markdown."""
    head = (
        "| figure | claim | MUs | measured, 95 % interval | verdict | corrected (Holm) | otherwise |\n"
        + "| --- " * 7
        + "|\n"
    )
    rows = (
        f"| {line.figure} | {line.claim} | {line.mu} | {line.measured} | {line.verdict} "
        f"| {line.corrected} | {'<br>'.join(line.depends.splitlines())} |\n"
        for line in lines(findings)
    )
    return head + "".join(rows)
