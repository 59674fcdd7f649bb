"""What many runs say together: means with intervals, paired comparisons of schemes, break-outs.

All functions take runs as `runs.load` gives them. Runs of one seed share their world under every scheme, so schemes
are compared seed by seed; runs are grouped by `variant` (keys that differ) and `mu`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from dtsim.reporting.runs import ReportError

Interval = Literal["t", "bootstrap"]

GROUP = ["variant", "mu"]
"""Runs that differ in these are never averaged or compared."""

FEWEST_SEEDS = 3
"""With fewer there is no interval and no test."""
FEW_SEEDS = 5
"""With fewer an interval is wide, and hardly a test can reject."""
_WILCOXON_FROM = 6  # with fewer pairs its exact two-sided p cannot fall below 0.05
_RESAMPLES = 9999


def unit(metric: str) -> str:
    """The unit that a column's name ends with; a share, a ratio or a count has "1"."""
    endings = {"_s": "s", "_flop": "FLOP", "_bytes": "byte", "_m": "m", "_db": "dB", "_bps": "bit/s", "_nat": "nat"}
    return next((name for ending, name in endings.items() if metric.endswith(ending)), "1")


def metrics(runs: pd.DataFrame) -> list[str]:
    """The columns of `runs` that are measured numbers."""
    numbers = runs.select_dtypes("number").columns
    return [name for name in numbers if name not in ("mu", "seed") and not name.startswith(("config.", "versions."))]


def mean_interval(values: ArrayLike, interval: Interval = "t", confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean of `values` and its interval (low, high); both NaN with fewer than `FEWEST_SEEDS` values.

    `t`: Student's t with n - 1 degrees of freedom. `bootstrap`: bias-corrected and accelerated (BCa, Efron 1987), 9,999
    resamples, always with the same random numbers.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) == 0:
        return math.nan, math.nan, math.nan
    mean = float(sample.mean())
    if len(sample) < FEWEST_SEEDS:
        return mean, math.nan, math.nan
    if np.ptp(sample) == 0:
        return mean, mean, mean
    if interval == "t":
        low, high = stats.t.interval(confidence, len(sample) - 1, loc=mean, scale=stats.sem(sample))
    else:
        found = stats.bootstrap(
            (sample,),
            np.mean,
            confidence_level=confidence,
            n_resamples=_RESAMPLES,
            method="BCa",
            rng=np.random.default_rng(0),
        )
        low, high = found.confidence_interval
    return mean, float(low), float(high)


def aggregate(
    runs: pd.DataFrame, names: Sequence[str] | None = None, *, interval: Interval = "t", confidence: float = 0.95
) -> pd.DataFrame:
    """Mean over seeds with its interval, tidy: one row for each variant, mu, scheme and metric.

    Args:
        runs: as `runs.load` gives them.
        names: columns of `runs`; all measured ones where none are given.
        interval: see `mean_interval`.
        confidence: of the interval.

    Returns:
        Columns `variant, mu, scheme, metric, unit, n, mean, low, high, interval`; n counts the seeds where the metric
        was measured (a scheme that predicts nothing has no prediction error).
    """
    rows = []
    for (variant, mu, scheme), group in runs.groupby([*GROUP, "scheme"], sort=False):
        for name in names or metrics(runs):
            values = group[name].dropna()
            mean, low, high = mean_interval(values, interval, confidence)
            rows.append((variant, mu, scheme, name, unit(name), len(values), mean, low, high, interval))
    columns = [*GROUP, "scheme", "metric", "unit", "n", "mean", "low", "high", "interval"]
    return pd.DataFrame(rows, columns=columns)


def paired(
    runs: pd.DataFrame,
    names: Sequence[str] | None = None,
    *,
    baseline: str,
    interval: Interval = "t",
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Every scheme against `baseline`, seed by seed on the same worlds: a row for each variant, mu, scheme and metric.

    Differences are scheme - baseline, ratios scheme / baseline: the geometric mean over seeds, with the interval taken
    on the log scale (NaN unless every value is > 0). p-values are of the paired t-test on the differences, and from six
    pairs on of Wilcoxon's signed-rank test; `p_holm` and `p_wilcoxon_holm` are corrected by Holm's step-down over all
    comparisons of that metric in the table.

    Args:
        runs: as `runs.load` gives them.
        names: columns of `runs`; all measured ones where none are given.
        baseline: a value of the column `scheme`.
        interval: see `mean_interval`.
        confidence: of the intervals.

    Returns:
        Columns `variant, mu, scheme, baseline, metric, unit, n` (pairs)`, unpaired` (seeds that only one has)`, mean,
        baseline_mean` (over the pairs)`, difference, difference_low, difference_high, ratio, ratio_low, ratio_high,
        p, p_holm, p_wilcoxon, p_wilcoxon_holm, interval`.

    Raises:
        ReportError: where no run is of `baseline`.
    """
    known = sorted(runs["scheme"].unique())
    if baseline not in known:
        raise ReportError(f"baseline={baseline!r}: must be one of {', '.join(known)}")
    rows = []
    for place, group in runs.groupby(GROUP, sort=False):
        by_scheme = {scheme: part.set_index("seed") for scheme, part in group.groupby("scheme", sort=False)}
        base = by_scheme.pop(baseline, None)
        if base is None:
            continue
        for scheme, other in by_scheme.items():
            for name in names or metrics(runs):
                two = pd.DataFrame({"scheme": other[name], "baseline": base[name]}).dropna(how="all")  # by seed
                both = two.dropna()
                row = _compared(both["scheme"].to_numpy(), both["baseline"].to_numpy(), interval, confidence)
                row |= dict(
                    zip([*GROUP, "scheme", "baseline", "metric"], (*place, scheme, baseline, name), strict=True)
                )
                row |= {"unit": unit(name), "n": len(both), "unpaired": len(two) - len(both), "interval": interval}
                rows.append(row | both.mean().rename({"scheme": "mean", "baseline": "baseline_mean"}).to_dict())
    table = pd.DataFrame(rows, columns=_PAIRED)
    for p in ("p", "p_wilcoxon"):
        table[f"{p}_holm"] = table.groupby("metric")[p].transform(lambda values: holm(values.to_numpy()))
    return table


_PAIRED = [
    *("variant", "mu", "scheme", "baseline", "metric", "unit", "n", "unpaired", "mean", "baseline_mean"),
    *("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high"),
    *("p", "p_holm", "p_wilcoxon", "p_wilcoxon_holm", "interval"),
]


def _compared(
    scheme: NDArray[np.float64], baseline: NDArray[np.float64], interval: Interval, confidence: float
) -> dict[str, Any]:
    differences = scheme - baseline
    ratio = (math.nan,) * 3
    if len(scheme) and (scheme > 0).all() and (baseline > 0).all():
        logs = mean_interval(np.log(scheme / baseline), interval, confidence)
        ratio = (math.exp(logs[0]), math.exp(logs[1]), math.exp(logs[2]))
    p = p_wilcoxon = math.nan
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # differences that are all the same: p is NaN or 0, as it should
        if len(differences) >= FEWEST_SEEDS:
            p = float(stats.ttest_rel(scheme, baseline).pvalue)
        if len(differences) >= _WILCOXON_FROM and differences.any():
            p_wilcoxon = float(stats.wilcoxon(differences).pvalue)
    columns = zip(("", "_low", "_high"), mean_interval(differences, interval, confidence), ratio, strict=True)
    found = {}
    for end, difference, quotient in columns:
        found[f"difference{end}"], found[f"ratio{end}"] = difference, quotient
    return {**found, "p": p, "p_wilcoxon": p_wilcoxon}


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p-values [n] corrected for their number by Holm's step-down procedure (1979); NaN are no test and stay NaN."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sort last
    corrected = np.full_like(p, np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def breakouts(runs: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Break-outs counted over all seeds, with exact binomial (Clopper-Pearson) intervals.

    The interval takes MU-slots (or MU-frames) for independent. They are not: an MU's neighbouring slots share a model
    and a region, so it is narrower than it should be. The mean over seeds in `aggregate` does not assume that.

    Returns:
        Columns `variant, mu, scheme, of` ("MU-slot", "MU-frame")`, breakouts, total, share, low, high`.
    """
    rows = []
    for (variant, mu, scheme), group in runs.groupby([*GROUP, "scheme"], sort=False):
        frames = group["mu"] * group["config.frames"]
        totals = {
            "MU-slot": ("breakout_rate", frames * group["config.slots_per_frame"]),
            "MU-frame": ("frame_breakout_rate", frames),
        }
        for of, (name, total) in totals.items():
            count, whole = int((group[name] * total).round().sum()), int(total.sum())
            low, high = stats.binomtest(count, whole).proportion_ci(confidence, method="exact")
            rows.append((variant, mu, scheme, of, count, whole, count / whole, float(low), float(high)))
    return pd.DataFrame(rows, columns=[*GROUP, "scheme", "of", "breakouts", "total", "share", "low", "high"])


def doubts(runs: pd.DataFrame, baseline: str | None) -> list[str]:
    """What a reader of the statistics of `runs` must know: too few seeds, pairs that are missing. A line each."""
    seeds = runs.groupby([*GROUP, "scheme"])["seed"].nunique()
    lines = []
    if (few := (seeds < FEWEST_SEEDS).sum()) > 0:
        lines.append(f"{few} of {len(seeds)} groups have fewer than {FEWEST_SEEDS} seeds: no interval, no test")
    if (few := ((seeds >= FEWEST_SEEDS) & (seeds < FEW_SEEDS)).sum()) > 0:
        lines.append(f"{few} of {len(seeds)} groups have fewer than {FEW_SEEDS} seeds: wide intervals, weak tests")
    if baseline is None:
        return lines
    alone, missing = 0, 0
    for _, group in runs.groupby(GROUP):
        of = {scheme: set(part["seed"]) for scheme, part in group.groupby("scheme")}
        base = of.pop(baseline, None)
        alone += base is None
        missing += sum(len(base ^ other) for other in of.values()) if base is not None else 0
    if alone:
        lines.append(f"{alone} of {runs.groupby(GROUP).ngroups} settings have no run of {baseline}: nothing to compare")
    if missing:
        lines.append(f"{missing} pairs with {baseline} are missing: seeds that only one of both has are left out")
    return lines
