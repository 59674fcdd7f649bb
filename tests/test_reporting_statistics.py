"""Statistics against values worked out by hand and against scipy's own."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtsim.reporting.runs import ReportError, load
from dtsim.reporting.statistics import (
    aggregate,
    breakouts,
    doubts,
    holm,
    mean_interval,
    metrics,
    paired,
    threshold_p,
    unit,
)
from tests.cells import cell
from tests.run_folders import write_run

DELAY = "system_delay_mean_s"


def delay_of(value_s: float) -> dict[str, Any]:
    return {DELAY: value_s}


def table(tmp_path: Path, **schemes: Sequence[float | None]) -> pd.DataFrame:
    """Runs with one delay for each seed of each scheme; None: that seed was not run."""
    for scheme, delays in schemes.items():
        for seed, delay in enumerate(delays):
            if delay is not None:
                write_run(tmp_path, scheme, seed=seed, **delay_of(delay))
    return load(tmp_path)


def test_students_interval_by_hand() -> None:
    # 1, 2, 3, 4: mean 2.5, s = sqrt(5/3), t(0.975, 3) = 3.18245, half-width 3.18245 * s / 2 = 2.05424
    mean, low, high = mean_interval([1, 2, 3, 4])
    assert mean == 2.5
    assert (low, high) == pytest.approx((2.5 - 2.05424, 2.5 + 2.05424), abs=1e-4)


def test_an_interval_needs_three_seeds_and_is_a_point_where_all_agree() -> None:
    assert mean_interval([])[0] is math.nan
    assert mean_interval([1.0, 2.0])[0] == 1.5
    assert np.isnan(mean_interval([1.0, 2.0])[1:]).all()
    for interval in ("t", "bootstrap"):
        assert mean_interval([2.0, 2.0, 2.0], interval) == (2.0, 2.0, 2.0)


def test_the_bootstrap_is_scipys_bca_and_the_same_every_time() -> None:
    sample = np.random.default_rng(1).exponential(size=12)
    first, again = (mean_interval(sample, "bootstrap") for _ in range(2))
    assert first == again
    other = stats.bootstrap((sample,), np.mean, method="BCa", rng=np.random.default_rng(5)).confidence_interval
    assert first[1:] == pytest.approx((other.low, other.high), rel=0.03)
    assert first[2] - first[0] > first[0] - first[1]  # skewed as the sample is; Student's would not be


def test_the_interval_covers_the_mean_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(3.0, 2.0, size=(2000, 5))
    covered = [low <= 3.0 <= high for _, low, high in map(mean_interval, draws)]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.015)


def test_aggregate_is_tidy_and_counts_what_was_measured(tmp_path: Path) -> None:
    runs = table(tmp_path, proposed=[1.0, 2.0, 3.0, 4.0], oracle=[1.0, 1.0, 1.0])
    rows = aggregate(runs, [DELAY, "prediction_mae"]).set_index(["scheme", "metric"])
    assert (cell(rows, ("proposed", DELAY), "n"), cell(rows, ("proposed", DELAY), "mean")) == (4, 2.5)
    assert rows.loc[("proposed", DELAY), "unit"] == "s"
    assert rows.loc[("proposed", DELAY), "high"] == pytest.approx(2.5 + 2.05424, abs=1e-4)
    assert rows.loc[("proposed", "prediction_mae"), "n"] == 0
    assert math.isnan(cell(rows, ("proposed", "prediction_mae"), "mean"))


def test_groups_are_never_mixed(tmp_path: Path) -> None:
    for amount, delay in (("fill", 1.0), ("kl", 5.0)):
        for mu in (2, 3):
            for seed in range(3):
                write_run(tmp_path, mu=mu, seed=seed, config={"generator.amount": amount}, **delay_of(delay * mu))
    rows = aggregate(load(tmp_path), [DELAY])
    assert rows.groupby(["variant", "mu"])["mean"].first().to_dict() == {
        ("generator.amount=fill", 2): 2.0,
        ("generator.amount=fill", 3): 3.0,
        ("generator.amount=kl", 2): 10.0,
        ("generator.amount=kl", 3): 15.0,
    }


def test_pairs_by_hand(tmp_path: Path) -> None:
    runs = table(tmp_path, proposed=[1.0, 2.0, 4.0, 3.0], single_timescale=[2.0, 4.0, 16.0, None])
    (row,) = paired(runs, [DELAY], baseline="single_timescale").to_dict("records")
    assert (row["scheme"], row["n"], row["unpaired"]) == ("proposed", 3, 1)
    # Differences -1, -2, -12: mean -5, s = sqrt(37), t(0.975, 2) = 4.30265
    half = 4.30265 * math.sqrt(37) / math.sqrt(3)
    assert row["difference"] == -5
    assert (row["difference_low"], row["difference_high"]) == pytest.approx((-5 - half, -5 + half), rel=1e-5)
    # Ratios 1/2, 1/2, 1/4: logarithms -ln 2 (1, 1, 2): mean -4/3 ln 2, s = ln 2 / sqrt(3)
    half = 4.30265 * math.log(2) / 3
    assert row["ratio"] == pytest.approx(2 ** (-4 / 3))
    assert row["ratio_low"] == pytest.approx(2 ** (-4 / 3) * math.exp(-half), rel=1e-5)
    assert row["ratio_high"] == pytest.approx(2 ** (-4 / 3) * math.exp(half), rel=1e-5)
    # t = -5 / (sqrt(37) / sqrt(3)) with two degrees of freedom: p = 1 - |t| / sqrt(2 + t²)
    t = 5 / math.sqrt(37 / 3)
    assert row["p"] == pytest.approx(1 - t / math.sqrt(2 + t * t))
    assert row["p"] == pytest.approx(stats.ttest_rel([1, 2, 4], [2, 4, 16]).pvalue)
    assert row["p_holm"] == row["p"]  # the only comparison
    assert math.isnan(row["p_wilcoxon"])  # three pairs cannot say anything


def test_wilcoxon_from_six_pairs_on(tmp_path: Path) -> None:
    delays = {"proposed": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "single_timescale": [2.0, 4.0, 6.0, 8.0, 10.0, 12.0]}
    row = paired(table(tmp_path, **delays), [DELAY], baseline="single_timescale").iloc[0]
    assert row["p_wilcoxon"] == pytest.approx(2 / 2**6)  # all six signs agree
    assert row["ratio"] == pytest.approx(0.5)
    assert row["ratio_low"] == pytest.approx(0.5)


def test_no_ratio_where_a_value_is_zero_and_no_warning_where_all_pairs_agree(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    delays = {"never": [0.0, 0.0, 0.0], "same": [1.0, 2.0, 3.0], "single_timescale": [1.0, 2.0, 3.0]}
    rows = paired(table(tmp_path, **delays), [DELAY], baseline="single_timescale").set_index("scheme")
    assert math.isnan(cell(rows, "never", "ratio"))
    assert rows.loc["never", "difference"] == -2
    assert rows.loc["same", "difference_high"] == 0
    assert math.isnan(cell(rows, "same", "p"))
    assert not recwarn.list


def test_an_unknown_baseline_is_an_error_that_lists_the_schemes(tmp_path: Path) -> None:
    runs = table(tmp_path, proposed=[1.0], oracle=[1.0])
    with pytest.raises(ReportError, match="baseline='magic': must be one of oracle, proposed"):
        paired(runs, baseline="magic")


def test_holm_by_hand() -> None:
    # Ascending 0.01, 0.02, 0.03, 0.5 times 4, 3, 2, 1, never falling; a test that was none does not count.
    assert holm([0.5, 0.01, math.nan, 0.03, 0.02]) == pytest.approx([0.5, 0.04, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0])
    assert len(holm([])) == 0


def test_holm_counts_the_comparisons_of_a_metric(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    schemes = {name: list(1 + rng.random(4)) for name in ("a", "b", "c", "single_timescale")}
    rows = paired(table(tmp_path, **schemes), [DELAY, "retrains"], baseline="single_timescale")
    of_delay = rows[rows["metric"] == DELAY]
    assert len(of_delay) == 3
    assert of_delay["p_holm"].min() == pytest.approx(min(1, 3 * of_delay["p"].min()))


def test_breakouts_are_counted_over_seeds_and_resampled_by_seed(tmp_path: Path) -> None:
    rates = (0.0, 0.1, 0.05, 0.6)
    for seed, rate in enumerate(rates):
        write_run(tmp_path, mu=2, seed=seed, breakout_rate=rate, frame_breakout_rate=0)
    rows = breakouts(load(tmp_path)).set_index("of")  # 2 MUs × 2 frames × 5 slots × 4 seeds
    assert (cell(rows, "MU-slot", "breakouts"), cell(rows, "MU-slot", "total")) == (15, 80)
    share, low, high = mean_interval(rates, "bootstrap")
    assert [cell(rows, "MU-slot", name) for name in ("share", "low", "high")] == pytest.approx([share, low, high])
    # As if the 80 MU-slots were independent, the interval would be half as wide.
    binomial = stats.binomtest(15, 80).proportion_ci(0.95, method="exact")
    assert high - low > 2 * (binomial.high - binomial.low)
    # Seeds that all agree say nothing of how far others may be.
    assert (cell(rows, "MU-frame", "breakouts"), cell(rows, "MU-frame", "share")) == (0, 0)
    assert rows.loc["MU-frame", ["low", "high"]].isna().all()


@pytest.mark.parametrize("seeds", [3, 5])
def test_the_test_of_a_threshold_rejects_just_where_the_interval_leaves_it_out(seeds: int) -> None:
    rng = np.random.default_rng(seeds)
    decided = 0
    for _ in range(200):
        values = rng.normal(0.7, 1.0, seeds)
        _, low, high = mean_interval(values)
        outside = not low <= 0.1 <= high
        assert (threshold_p(values, 0.1) < 0.05) == outside
        decided += outside
    assert 10 < decided < 190
    assert math.isnan(threshold_p([1.0, 1.0, 1.0], 0.1)) and math.isnan(threshold_p([1.0, 2.0], 0.1))


def test_students_interval_is_scipys() -> None:
    sample = np.random.default_rng(2).normal(size=9)
    low_high = stats.t.interval(0.9, 8, loc=sample.mean(), scale=stats.sem(sample))
    assert mean_interval(sample, confidence=0.9)[1:] == pytest.approx(low_high)


def test_doubts_name_few_seeds_and_missing_pairs(tmp_path: Path) -> None:
    runs = table(tmp_path, proposed=[1.0, 2.0], oracle=[1.0] * 4, single_timescale=[1.0, 2.0, 3.0, 4.0, 5.0])
    said = doubts(runs, "single_timescale")
    assert said == [
        "1 of 3 groups have fewer than 3 seeds: no interval, no test",
        "1 of 3 groups have fewer than 5 seeds: wide intervals, weak tests",
        "4 pairs with single_timescale are missing: seeds that only one of both has are left out",
    ]
    other = runs[runs["scheme"] != "single_timescale"]
    assert (
        doubts(other, "single_timescale")[-1] == "1 of 1 settings have no run of single_timescale: nothing to compare"
    )
    enough = pd.concat([runs[runs["scheme"] == "single_timescale"]])
    assert doubts(enough, "single_timescale") == []


def test_metrics_and_their_units(tmp_path: Path) -> None:
    runs = table(tmp_path, proposed=[1.0])
    assert {DELAY, "accuracy_mean", "retrain_flop"} <= set(metrics(runs))
    assert not {"mu", "seed", "scheme", "config.frames"} & set(metrics(runs))
    assert [unit(name) for name in (DELAY, "retrain_flop", "accuracy_mean")] == ["s", "FLOP", "1"]
