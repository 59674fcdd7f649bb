"""The row of run.csv from rows that are given, every number by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtsim.results.names import ASSOCIATIONS, FRAMES, SLOTS
from dtsim.results.records import Records
from dtsim.results.summary import calibration_error, percentile_95, retrain_errors, summary, system_delays_s

THRESHOLD = 0.8


def records() -> Records:
    """Twenty slots of two MUs, each at a BS of its own, and two frames.

    In slot t MU 0 takes t + 1 s and MU 1 half of that; the optimum is a quarter of MU 0's delay in even slots and half
    of it in odd ones. MU 1 is below the threshold in every slot, and in the first frame.
    """
    made = Records()
    for slot in range(20):
        made.add(
            SLOTS,
            frame=slot // 10,
            slot=slot,
            user=np.array([0, 1]),
            station=np.array([0, 1]),
            delay_s=np.array([1.0, 0.5]) * (slot + 1),
            accuracy=np.array([0.9, 0.7]),
            breakout=np.array([0, 1]),
            retrain_flop=np.array([3.0, 1.0]),
            objective_optimum_s=(0.5 if slot % 2 else 0.25) * (slot + 1),
        )
    for frame in range(2):
        made.add(
            FRAMES,
            frame=frame,
            user=np.array([0, 1]),
            predicted_accuracy=np.array([0.9, 0.75]),
            accuracy=np.array([0.9, 0.6 + 0.3 * frame]),
            accuracy_without_update=np.array([0.85, 0.6]),
            retrain=np.array([0, frame]),
            diverged=np.array([2, 0]),
            breakout=np.array([0, 1 - frame]),
            average_accuracy=np.array([0.5, 0.7]) + 0.1 * frame,
            forgetting=np.array([np.nan, 0.3]),
            backward_transfer=np.array([np.nan, -0.2]),
        )
    for gap in (0.1, 0.3):
        made.add(ASSOCIATIONS, frame=0, slot=0, gap=gap)
    made.wall_times_s = {"data": 1.0, "simulation": 2.0}
    return made


def row(objective: str = "makespan") -> dict[str, Any]:
    return summary(records(), objective, "equal", THRESHOLD)


def test_delays_are_means_and_95th_percentiles() -> None:
    """Of 1, 2, …, 20 the 95th percentile lies a twentieth past 19 (linear interpolation); the 90th would be 18.1."""
    assert percentile_95(pd.Series(np.arange(1.0, 21.0))) == pytest.approx(19.05)
    found = row()
    assert found["system_delay_mean_s"] == pytest.approx(10.5)
    assert found["system_delay_p95_s"] == pytest.approx(19.05)
    every = np.concatenate([np.arange(1, 21), np.arange(1, 21) / 2])
    assert found["user_delay_mean_s"] == pytest.approx(every.mean())
    assert found["user_delay_p95_s"] == pytest.approx(np.percentile(every, 95))


def test_each_objective_has_its_own_system_delay() -> None:
    slots = pd.DataFrame({"slot": [0, 0, 0, 1], "station": [0, 0, 1, 1], "delay_s": [1.0, 3.0, 2.0, 7.0]})
    delays = system_delays_s(slots)
    assert delays["makespan"].tolist() == [3.0, 7.0]
    assert delays["sum"].tolist() == [5.0, 7.0]
    for objective, factor in (("makespan", 1.0), ("sum", 1.5)):
        found = row(objective)
        assert found["objective"] == objective
        assert found["system_delay_mean_s"] == pytest.approx(10.5 * factor)
        assert found["system_delay_p95_s"] == pytest.approx(19.05 * factor)
        assert (found["makespan_mean_s"], found["sum_delay_mean_s"]) == pytest.approx((10.5, 15.75))
        assert found["allocator_gap_mean"] == pytest.approx(factor * (2 + 4) / 2 - 1)  # a mean of ratios


def test_break_outs_of_slots_are_counted_from_slots_and_those_of_frames_from_frames() -> None:
    """MU 1 is below the threshold in every slot, half of all, and in the first frame only, one of four."""
    found = row()
    assert found["breakout_rate"] == 0.5
    assert found["frame_breakout_rate"] == 0.25
    assert found["accuracy_mean"] == pytest.approx(0.8)


def test_work_and_updates_are_added_up() -> None:
    found = row()
    assert found["retrains"] == 1
    assert found["diverged_updates"] == 4
    assert found["retrain_flop"] == 80.0
    assert found["wall_time_s"] == 3.0
    assert (found["data_wall_time_s"], found["simulation_wall_time_s"]) == (1.0, 2.0)
    assert found["association_gap_mean"] == pytest.approx(0.2)
    assert found["allocator"] == "equal"


def test_what_models_know_is_that_of_the_last_frame() -> None:
    found = row()
    assert found["average_accuracy"] == pytest.approx(0.7)
    assert found["forgetting"] == pytest.approx(0.3)  # of the MU that has an earlier region
    assert found["backward_transfer"] == pytest.approx(-0.2)


def test_predictions_are_held_against_models_left_as_they_were() -> None:
    found = row()
    # Three MU-frames without an update: errors 0, 0.15 and 0.
    assert found["prediction_mae"] == pytest.approx(0.05)
    # Predicted 0.9 twice where it would be 0.85, and 0.75 twice where it would be 0.6; bins of their own.
    assert found["prediction_calibration_error"] == pytest.approx(0.1)
    # Needed twice, for MU 1, and done once; never for MU 0.
    assert found["false_retrain_rate"] == 0.0
    assert found["missed_retrain_rate"] == 0.5


def test_calibration_is_within_bins() -> None:
    """Errors of opposite signs cancel within a bin only; a prediction of 1 is in the last one."""
    assert calibration_error(np.array([0.41, 0.49]), np.array([0.45, 0.45])) == pytest.approx(0.0)
    assert calibration_error(np.array([0.39, 0.49]), np.array([0.44, 0.44])) == pytest.approx(0.05)
    assert calibration_error(np.array([1.0, 0.95]), np.array([0.9, 1.0])) == pytest.approx(0.025)
    assert math.isnan(calibration_error(np.zeros(0), np.zeros(0)))


def test_an_update_is_needed_below_the_threshold_and_not_at_it() -> None:
    updated, without = np.array([1, 0, 0]), np.array([0.8, 0.8, 0.79])
    assert retrain_errors(updated, without, THRESHOLD) == (0.5, 1.0)
    nothing = retrain_errors(np.array([1]), np.array([0.9]), THRESHOLD)
    assert nothing[0] == 1.0
    assert math.isnan(nothing[1])
