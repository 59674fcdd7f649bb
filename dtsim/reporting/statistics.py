"""What many runs say together: means with intervals, paired comparisons of schemes, break-outs.

All functions take runs as `runs.load` gives them. Runs of one seed share their world under every scheme, so schemes
are compared seed by seed; runs are grouped by `variant` (keys that differ) and `mu`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from functools import cache
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
    endings = {
        "_s": "s",
        "_flop": "FLOP",
        "_bytes": "byte",
        "_m": "m",
        "_db": "dB",
        "_bps": "bit/s",
        "_nat": "nat",
        "_j": "J",
    }
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
        half = _t_quantile((1 + confidence) / 2, len(sample) - 1) * float(sample.std(ddof=1)) / math.sqrt(len(sample))
        low, high = mean - half, mean + half
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


def threshold_p(values: ArrayLike, threshold: float) -> float:
    """Two-sided p of the one-sample t-test of the mean of `values` [n] against `threshold`.

    It is below 0.05 just where the 95 % interval of `mean_interval` leaves the threshold out. NaN with fewer than
    `FEWEST_SEEDS` values, or where all are alike.
    """
    sample = np.asarray(values, dtype=float)
    if len(sample) < FEWEST_SEEDS or np.ptp(sample) == 0:
        return math.nan
    return float(stats.ttest_1samp(sample, threshold).pvalue)


@cache
def _t_quantile(probability: float, degrees: int) -> float:
    return float(stats.t.ppf(probability, degrees))


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
    names = list(names or metrics(runs))
    measured = runs[names].to_numpy(dtype=float)  # [runs, metrics]
    rows = []
    for place, where in _groups(runs, [*GROUP, "scheme"]):
        for name, values in zip(names, measured[where].T, strict=True):
            values = values[~np.isnan(values)]
            rows.append((*place, name, unit(name), len(values), *mean_interval(values, interval, confidence), interval))
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
        t, p_wilcoxon, interval, p, p_holm, p_wilcoxon_holm`.

    Raises:
        ReportError: where no run is of `baseline`.
    """
    known = sorted(runs["scheme"].unique())
    if baseline not in known:
        raise ReportError(f"baseline={baseline!r}: must be one of {', '.join(known)}")
    names = list(names or metrics(runs))
    measured = runs[names].to_numpy(dtype=float)  # [runs, metrics]
    seeds, schemes = runs["seed"].to_numpy(), runs["scheme"].to_numpy()
    rows = []
    for place, where in _groups(runs, GROUP):
        by_scheme = {scheme: where[schemes[where] == scheme] for scheme in dict.fromkeys(schemes[where])}
        base = by_scheme.pop(baseline, None)
        if base is None:
            continue
        for scheme, other in by_scheme.items():
            _, mine, its = np.intersect1d(seeds[other], seeds[base], return_indices=True)
            alone = len(other) + len(base) - 2 * len(mine)
            ones, twos = measured[other[mine]], measured[base[its]]  # [pairs, metrics]
            tests = _paired_t(ones, twos)
            for name, one, two, (t, p) in zip(names, ones.T, twos.T, tests, strict=True):
                both = ~(np.isnan(one) | np.isnan(two))
                half = int(np.sum(np.isnan(one) ^ np.isnan(two)))
                *found, p_wilcoxon = _compared(one[both], two[both], interval, confidence)
                where_from = (*place, scheme, baseline, name, unit(name), int(both.sum()), alone + half)
                rows.append((*where_from, *found, t, p_wilcoxon, interval, p))
    table = pd.DataFrame(rows, columns=_PAIRED).astype({"t": float, "p": float})  # also where there is no pair
    for p in ("p", "p_wilcoxon"):
        table[f"{p}_holm"] = table.groupby("metric")[p].transform(lambda values: holm(values.to_numpy()))
    return table


_PAIRED = [
    *("variant", "mu", "scheme", "baseline", "metric", "unit", "n", "unpaired", "mean", "baseline_mean"),
    *("difference", "difference_low", "difference_high", "ratio", "ratio_low", "ratio_high"),
    *("t", "p_wilcoxon", "interval", "p"),
]


def _groups(runs: pd.DataFrame, by: list[str]) -> Iterator[tuple[tuple[Any, ...], NDArray[np.int64]]]:
    """The values of `by` and the places [n] of the runs that share them, in the order of `runs`."""
    places: dict[tuple[Any, ...], list[int]] = {}
    for place, values in enumerate(zip(*(runs[name].tolist() for name in by), strict=True)):
        places.setdefault(values, []).append(place)
    yield from ((values, np.array(where)) for values, where in places.items())


def _compared(
    scheme: NDArray[np.float64], baseline: NDArray[np.float64], interval: Interval, confidence: float
) -> tuple[float, ...]:
    """Both means, difference and ratio with their intervals, Wilcoxon's p."""
    if not len(scheme):
        return (math.nan,) * 9
    differences = scheme - baseline
    ratio = (math.nan,) * 3
    if (scheme > 0).all() and (baseline > 0).all():
        low_to_high = mean_interval(np.log(scheme / baseline), interval, confidence)
        ratio = (math.exp(low_to_high[0]), math.exp(low_to_high[1]), math.exp(low_to_high[2]))
    p_wilcoxon = math.nan
    if len(differences) >= _WILCOXON_FROM and differences.any():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # ties: scipy falls back on the normal approximation
            p_wilcoxon = float(stats.wilcoxon(differences).pvalue)
    means = (float(scheme.mean()), float(baseline.mean()))
    return (*means, *mean_interval(differences, interval, confidence), *ratio, p_wilcoxon)


def _paired_t(scheme: NDArray[np.float64], baseline: NDArray[np.float64]) -> NDArray[np.float64]:
    """t and p of the paired t-test of each metric, [metrics, 2], over the pairs [pairs, metrics] that have both values.

    Metrics that lack the same pairs are tested together: a call of scipy's takes as long for one as for all.
    """
    tests = np.full((scheme.shape[1], 2), np.nan)
    patterns, pattern_of = np.unique(~np.isnan(scheme - baseline), axis=1, return_inverse=True)
    for index, pairs in enumerate(patterns.T):
        metrics_of = np.flatnonzero(pattern_of == index)
        if np.count_nonzero(pairs) < FEWEST_SEEDS:
            continue
        one, two = scheme[np.ix_(pairs, metrics_of)], baseline[np.ix_(pairs, metrics_of)]
        with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # all differences alike: t is infinite, or NaN for zeros
            found = stats.ttest_rel(one, two)
        tests[metrics_of] = np.stack([found.statistic, found.pvalue], axis=1)
    return tests


def holm(p: ArrayLike) -> NDArray[np.float64]:
    """p-values [n] corrected for their number by Holm's step-down procedure (1979); NaN are no test and stay NaN."""
    p = np.asarray(p, dtype=float)
    order = np.argsort(p)[: np.count_nonzero(~np.isnan(p))]  # NaN sort last
    corrected = np.full_like(p, np.nan)
    corrected[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)))
    return corrected


def breakouts(runs: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Break-outs counted over all seeds; the interval of their share is a bootstrap over seeds (BCa).

    Seeds are resampled and not MU-slots (or MU-frames): these are not independent, since an MU's neighbouring slots
    share a model and a region. Seeds that all agree have no interval, nor have fewer than `FEWEST_SEEDS`.

    Returns:
        Columns `variant, mu, scheme, of` ("MU-slot", "MU-frame")`, breakouts, total, share, low, high`.
    """
    frames = (runs["mu"] * runs["config.frames"]).to_numpy()
    totals = {
        "MU-slot": ("breakout_rate", frames * runs["config.slots_per_frame"].to_numpy()),
        "MU-frame": ("frame_breakout_rate", frames),
    }
    rows = []
    for place, where in _groups(runs, [*GROUP, "scheme"]):
        for of, (name, total) in totals.items():
            rates, sizes = runs[name].to_numpy(dtype=float)[where], total[where].astype(float)
            count = np.round(rates * sizes).sum()
            low = high = math.nan
            if np.ptp(rates) > 0:
                _, low, high = mean_interval(rates, "bootstrap", confidence)
            rows.append((*place, of, int(count), int(sizes.sum()), count / sizes.sum(), low, high))
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
