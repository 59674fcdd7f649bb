"""The summary of a run: the row of run.csv, from the run's other rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from dtsim.results.names import ASSOCIATIONS, FRAMES, JOBS, SLOTS
from dtsim.results.records import Records


def percentile_95(values: pd.Series) -> float:
    """95th percentile with linear interpolation."""
    return float(values.quantile(0.95))


def system_delays_s(slots: pd.DataFrame) -> pd.DataFrame:
    """System delay of every slot under both objectives; columns `makespan`, `sum`; one row per slot."""
    slowest = slots.groupby(["slot", "station"])["delay_s"].max()  # of each BS's users
    return pd.DataFrame({"makespan": slowest.groupby("slot").max(), "sum": slowest.groupby("slot").sum()})


def calibration_error(predicted: np.ndarray, actual: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error of predictions in [0, 1]; NaN if there are none. [n] each.

    |mean prediction − mean outcome| in prediction bins of equal width, weighted by the number of predictions per bin
    (Naeini, Cooper and Hauskrecht 2015). An outcome is the accuracy of a frame.
    """
    if not len(predicted):
        return float("nan")
    place = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    excess = np.bincount(place, weights=predicted - actual, minlength=bins)
    return float(np.abs(excess).sum() / len(predicted))


def retrain_errors(updated: np.ndarray, without_update: np.ndarray, threshold: float) -> tuple[float, float]:
    """False and missed retraining rates: updates that were not needed, and needed updates that were not made.

    An update is needed if the model's accuracy without it is below `threshold`. The false rate is the share of updates
    among the models that need none; the missed rate is the share without update among those that need one. NaN if
    there are no such models. [n] each.
    """
    needed = without_update < threshold
    updated = updated.astype(bool)
    false = updated[~needed].mean() if (~needed).any() else float("nan")
    missed = (~updated[needed]).mean() if needed.any() else float("nan")
    return float(false), float(missed)


def summary(records: Records, objective: str, allocator: str, threshold: float) -> dict[str, Any]:
    """The row of `run.csv`, without the run's own columns."""
    slots, frames = records.table(SLOTS), records.table(FRAMES)
    delays = system_delays_s(slots)
    delay = delays[objective]
    optimum = slots.groupby("slot")["objective_optimum_s"].first()
    kept = frames[frames["retrain"] == 0]
    last = frames[frames["frame"] == frames["frame"].max()]
    known = frames[frames["accuracy_without_update"].notna()]
    judged = known[known["predicted_accuracy"].notna()]
    false, missed = retrain_errors(known["retrain"].to_numpy(), known["accuracy_without_update"].to_numpy(), threshold)
    return {
        "objective": objective,
        "accuracy_threshold": threshold,
        "system_delay_mean_s": delay.mean(),
        "system_delay_p95_s": percentile_95(delay),
        "makespan_mean_s": delays["makespan"].mean(),
        "sum_delay_mean_s": delays["sum"].mean(),
        "user_delay_mean_s": slots["delay_s"].mean(),
        "user_delay_p95_s": percentile_95(slots["delay_s"]),
        "accuracy_mean": slots["accuracy"].mean(),
        "breakout_rate": slots["breakout"].mean(),
        "frame_breakout_rate": frames["breakout"].mean(),
        "retrains": int(frames["retrain"].sum()),
        "diverged_updates": int(frames["diverged"].sum()),
        "retrain_flop": slots["retrain_flop"].sum(),
        **last[["average_accuracy", "forgetting", "backward_transfer"]].mean(),
        "prediction_mae": (kept["predicted_accuracy"] - kept["accuracy"]).abs().mean(),
        "prediction_calibration_error": calibration_error(
            judged["predicted_accuracy"].to_numpy(), judged["accuracy_without_update"].to_numpy()
        ),
        "false_retrain_rate": false,
        "missed_retrain_rate": missed,
        "allocator": allocator,
        "allocator_gap_mean": (delay / optimum - 1).mean(),
        "association_gap_mean": records.table(ASSOCIATIONS)["gap"].mean(),
        "wall_time_s": sum(records.wall_times_s.values()),
        **{f"{phase}_wall_time_s": seconds for phase, seconds in records.wall_times_s.items()},
    }


def queues_summary(records: Records, deadline_s: float, weight_s_per_j: float) -> dict[str, Any]:
    """The columns of `run.csv` that a run has only where time passes."""
    slots, jobs = records.table(SLOTS), records.table(JOBS)
    updates = jobs[jobs["kind"] == "update"]
    tasks = slots[slots["outcome"] != "none"]
    energy_j = slots[["tx_j", "local_j", "station_j"]].to_numpy().sum()
    per_task_j = energy_j / len(tasks) if len(tasks) else float("nan")
    done = updates[updates["outcome"] == "done"]
    return {
        "tasks": len(tasks),
        "tasks_waiting": int((tasks["outcome"] == "waiting").sum()),
        "tasks_dropped": int((tasks["outcome"] == "dropped").sum()),
        "deadline_s": deadline_s,
        "deadline_miss_rate": tasks["missed"].mean(),
        "handovers": int(slots["handover"].sum()),
        "jobs": len(updates),
        "jobs_done": len(done),
        "jobs_stopped": int((updates["outcome"] == "stopped").sum()),
        "stale_mean_s": (done["station_from_s"] - done["asked_s"]).mean(),
        "energy_j": energy_j,
        "energy_per_task_j": per_task_j,
        "cost_s": slots["delay_s"].mean() + weight_s_per_j * per_task_j,
        "conservation_error": conservation_error(slots),
    }


QUEUES = (("local", "flop", "dropped"), ("uplink", "bits", "dropped"), ("station", "flop", "dropped"))
"""The queues of tasks: name, unit, and what leaves them undone."""


def conservation_error(slots: pd.DataFrame) -> float:
    """Largest |start + asked - done - dropped - end| of any queue, user and slot, relative to start + asked."""
    worst = 0.0
    for name, unit, lost in (*QUEUES, ("training", "flop", "stopped")):
        start, asked, done, gone, end = (
            slots[f"{name}_{step}_{unit}"].to_numpy(dtype=float) for step in ("start", "asked", "done", lost, "end")
        )
        came = start + asked
        error = np.abs(came - done - gone - end)[came > 0] / came[came > 0]
        worst = max(worst, float(error.max(initial=0.0)))
    return worst
