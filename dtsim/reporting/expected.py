"""Expected results from earlier runs, and the comparison of new results with them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pandas as pd

from dtsim.reporting.statistics import FEWEST_SEEDS, mean_interval

KEY = ["setting", "scheme", "mu", "seed"]
"""Columns that identify a run, whatever keys its configuration has gained since."""

MEASURED = [
    *("system_delay_mean_s", "system_delay_p95_s", "makespan_mean_s", "sum_delay_mean_s"),
    *("user_delay_mean_s", "user_delay_p95_s", "accuracy_mean", "breakout_rate", "frame_breakout_rate"),
    *("retrains", "retrain_flop", "allocator_gap_mean"),
]
"""Columns that are compared; identical for identical versions and CPU."""

TOLERANCE = 1e-9
"""Largest relative difference between runs with the same versions on the same kind of CPU."""


def table(runs: pd.DataFrame) -> pd.DataFrame:
    """A row for each run, `KEY` and `MEASURED`, sorted: equal results give equal bytes.

    Args:
        runs: as `dtsim.reporting.runs.load` gives them, with one more column, `setting`.
    """
    named = runs.assign(scheme=runs["config.scheme.name"])
    return named[[*KEY, *MEASURED]].sort_values(KEY, ignore_index=True)


def versions(runs: pd.DataFrame) -> dict[str, str]:
    """Package versions of the runs; several versions are separated by commas."""
    columns = [str(column) for column in runs if str(column).startswith("versions.")]
    return {
        column.removeprefix("versions."): ", ".join(sorted(runs[column].dropna().astype(str).unique()))
        for column in columns
    }


def seconds_per_mu(runs: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Wall time of a run in seconds per MU, with other runs in parallel: the median by setting and scheme."""
    each = runs["wall_time_s"] / runs["mu"]
    medians: dict[str, dict[str, float]] = {}
    for (setting, scheme), of in each.groupby([runs["setting"], runs["config.scheme.name"]]):
        medians.setdefault(str(setting), {})[str(scheme)] = round(float(of.median()), 4)
    return medians


@dataclass(frozen=True)
class Agreement:
    """The result of comparing new results with the expected ones."""

    compared: int
    """Number of runs in both tables."""
    off: list[str]
    """A line for each value, or group, that does not agree."""
    exactly: bool
    """Whether runs were compared one by one (same versions), or as groups by their intervals."""

    def __str__(self) -> str:
        how = f"to {TOLERANCE:g}" if self.exactly else "within the 95 % intervals (other versions or CPU)"
        verdict = f"{len(self.off)} values do not" if self.off else "all do"
        return f"{self.compared} runs should agree with those expected {how}: {verdict}"


def compare(found: pd.DataFrame, expected: pd.DataFrame, *, same_versions: bool) -> Agreement:
    """Compare the runs that both tables contain.

    With the same versions and CPU every value must agree to `TOLERANCE`. Otherwise arithmetic may differ in the last
    bits, and training amplifies such differences: then the mean over the seeds of every setting, scheme and mu must lie
    in the expected 95 % interval; groups of fewer than three seeds have no interval and are not judged.
    """
    both = found.merge(expected, on=KEY, suffixes=("", "_expected"))
    off = _runs_off(both) if same_versions else _groups_off(both)
    return Agreement(len(both), off, same_versions)


def _runs_off(both: pd.DataFrame) -> list[str]:
    lines = []
    for name in MEASURED:
        one, other = both[name].astype(float), both[f"{name}_expected"].astype(float)
        largest = pd.concat([one.abs(), other.abs()], axis=1).max(axis=1)
        agree = ((one - other).abs() <= TOLERANCE * largest) | (one.isna() & other.isna())
        for place in both.index[~agree]:
            row = both.loc[place]
            is_, was = float(one.loc[place]), float(other.loc[place])
            lines.append(f"{_named(row)} seed={row['seed']}: {name} is {is_!r}, expected {was!r}")
    return lines


def _groups_off(both: pd.DataFrame) -> list[str]:
    lines = []
    for _, group in both.groupby(KEY[:-1], sort=False):
        if len(group) < FEWEST_SEEDS:
            continue
        for name in MEASURED:
            mean = group[name].mean()
            expected, low, high = mean_interval(group[f"{name}_expected"])
            slack = TOLERANCE * abs(expected)  # if all seeds are equal, the interval has zero width
            if math.isnan(mean) != math.isnan(expected) or mean < low - slack or mean > high + slack:
                lines.append(f"{_named(group.iloc[0])}: {name} is {mean:.6g}, expected {low:.6g} to {high:.6g}")
    return lines


def _named(row: pd.Series) -> str:
    return f"{row['setting']}: {row['scheme']} mu={row['mu']}"
