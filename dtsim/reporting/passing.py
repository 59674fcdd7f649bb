"""Runs where time passes, as tables and figures see them: what waits, the lives of updates, how long tasks took."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from dtsim.reporting.runs import columns_of
from dtsim.results.names import JOBS, SLOTS
from dtsim.results.seal import read_result

CONSERVED = 1e-9
"""A larger `conservation_error` is told."""

_MODE = "config.time.mode"
_MOST_STEPS = 200


def time_passes(run: Mapping[str, Any] | pd.Series) -> bool:
    """Whether time passes in a run, a row of `runs.load`'s table: it ran with `time=contiguous`."""
    return bool(run.get(_MODE) == "contiguous")


def passing(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of `runs` where time passes."""
    return runs[runs[_MODE] == "contiguous"] if _MODE in runs else runs.iloc[:0]


def leaking(runs: pd.DataFrame) -> pd.DataFrame:
    """Those of `runs` whose queues lost or made work, beyond rounding."""
    found = passing(runs)
    return found[found["conservation_error"].astype(float) > CONSERVED] if len(found) else found


def length_s(run: pd.Series) -> float:
    """How long a run is in its own time, s."""
    return float(run["config.time.slot_s"]) * int(run["config.frames"]) * int(run["config.slots_per_frame"])


def frame_starts_s(run: pd.Series) -> list[float]:
    """Where frames begin in a run's time, s, without the first."""
    frame_s = float(run["config.time.slot_s"]) * int(run["config.slots_per_frame"])
    return [frame * frame_s for frame in range(1, int(run["config.frames"]))]


def waiting_s(run: pd.Series) -> pd.DataFrame:
    """What waits at the end of each slot, as the time that its servers need for it if nothing more comes.

    Returns:
        One row per slot: `slot, time_s` (the slot's end); `local_s` and `uplink_s`, means over MUs of work over the
        MU's compute and of bits over its mean rate in the run; `station_s` and `training_s`, inference and training of
        all MUs over the compute of all base stations.
    """
    names = ["slot", "user", "station", "rate_bps", "local_flops", "station_flops"]
    ends = ["local_end_flop", "uplink_end_bits", "station_end_flop", "training_end_flop"]
    slots = columns_of(run, SLOTS, [*names, *ends])
    rate = slots.groupby("user")["rate_bps"].transform("mean")
    local, uplink = slots["local_end_flop"] / slots["local_flops"], slots["uplink_end_bits"] / rate.where(rate > 0)
    by_slot = slots.assign(local_s=local, uplink_s=uplink).groupby("slot")
    found = by_slot[["local_s", "uplink_s"]].mean()
    total_flops = _all_stations_flops(run, slots)
    for name in ("station", "training"):
        found[f"{name}_s"] = by_slot[f"{name}_end_flop"].sum() / total_flops
    found.insert(0, "time_s", (found.index + 1) * float(run["config.time.slot_s"]))
    return found.reset_index()


def _all_stations_flops(run: pd.Series, slots: pd.DataFrame) -> float:
    """The compute of all base stations, FLOP/s; of those that ever serve somebody, if the run does not say more."""
    each = run.get("config.topology.station_flops")
    stations = read_result(Path(run["folder"])).get("topology", {}).get("stations_m")
    if isinstance(each, str):
        return float(sum(json.loads(each)))
    if each is not None and not math.isnan(each) and stations:
        return float(each) * len(stations)
    return float(slots.groupby("station")["station_flops"].first().sum())


def jobs_of(run: pd.Series) -> pd.DataFrame:
    """jobs.csv of a run with `over_s`, where its bar ends: it serves at the base station, was stopped, or the run ends.

    A job that led to no model is over when its work is done.
    """
    jobs = columns_of(run, JOBS)
    over = jobs["station_from_s"].fillna(jobs["done_s"]).fillna(jobs["stopped_s"])
    return jobs.assign(over_s=over.fillna(length_s(run)))


def served_accuracy(run: pd.Series) -> pd.DataFrame:
    """Accuracy of what was served, a row for each MU and a column for each step of about a second (its start, s).

    Steps are of whole slots, at most `_MOST_STEPS`; NaN where nothing was served.
    """
    slots, slot_s = columns_of(run, SLOTS, ["slot", "user", "correct", "served"]), float(run["config.time.slot_s"])
    count = int(slots["slot"].max()) + 1
    step = max(min(round(1 / slot_s), count // 20), math.ceil(count / _MOST_STEPS), 1)
    start_s = slots["slot"] // step * step * slot_s
    sums = slots.groupby([slots["user"], start_s.rename("start_s")])[["correct", "served"]].sum()
    return (sums["correct"] / sums["served"].where(sums["served"] > 0)).unstack("start_s")


def tasks_of(run: pd.Series) -> pd.DataFrame:
    """The tasks of a run: `delay_s` (the age of one that waits), `outcome` and `missed` as in slots.csv."""
    slots = columns_of(run, SLOTS, ["delay_s", "outcome", "missed"])
    return slots[slots["outcome"] != "none"]


def unserved(tasks: pd.DataFrame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The share of `tasks` that is not served within a time: times [n], s, and the share from each on.

    Kaplan and Meier's estimate (1958): of a task that waits it is only known that it takes longer than its age. A task
    that was dropped is never served, so the shares may end above 0.
    """
    delay_s, outcome = tasks["delay_s"].to_numpy(dtype=float), tasks["outcome"].to_numpy()
    never = 2 * delay_s.max(initial=0.0) + 1
    data = stats.CensoredData.right_censored(np.where(outcome == "dropped", never, delay_s), outcome == "waiting")
    survival = stats.ecdf(data).sf
    known = survival.quantiles < never
    return survival.quantiles[known], survival.probabilities[known]
