"""The rows of slots.csv, tasks.csv and jobs.csv where time passes: how long a task took is known only later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from dtsim.physical.queues import Finished
from dtsim.results.names import JOBS, SLOTS, TASKS
from dtsim.results.records import Records
from dtsim.simulation.recorder import check_finite
from dtsim.simulation.training_jobs import TrainingJob

NONE, SERVED, WAITING, DROPPED = "none", "served", "waiting", "dropped"
"""What became of the task of an MU in a slot."""


@dataclass
class Ledger:
    """Holds the rows of every slot until its tasks have ended."""

    records: Records
    downlink_s: float
    deadline_s: float
    drop_slots: int | None
    """Age in slots at which tasks are dropped."""
    slot_s: float
    with_tasks: bool
    """Whether tasks.csv is written."""
    _slots: list[dict[str, Any]] = field(default_factory=list)
    _ends: dict[int, Finished] = field(default_factory=dict)
    _correct: dict[int, np.ndarray] = field(default_factory=dict)
    _versions: dict[int, np.ndarray] = field(default_factory=dict)

    def slot(self, index: int, columns: Mapping[str, Any]) -> None:
        """Keep the rows of slot `index`, a row for every MU [K], without what its tasks come to."""
        check_finite({name: np.asarray(values) for name, values in columns.items() if name != "accuracy"}, index)
        self._slots.append(dict(columns))

    def begin(self, index: int, users: int) -> None:
        """Expect what comes of the tasks of slot `index`."""
        self._correct[index] = np.zeros((2, users), dtype=np.int64)
        self._versions[index] = np.full((2, users), -1, dtype=np.int64)

    def inferred(self, index: int, user: int, at_mu: bool, correct: int, version: int) -> None:
        """Note what came of a part of the task that `user` captured in slot `index`."""
        self._correct[index][int(at_mu), user] = correct
        self._versions[index][int(at_mu), user] = version

    def ended(self, finished: Sequence[Finished]) -> None:
        """Note when tasks ended."""
        self._ends |= {one.slot: one for one in finished}

    def close(self, jobs: Sequence[TrainingJob]) -> None:
        """Add all rows to the records, after the last slot."""
        end_s = len(self._slots) * self.slot_s
        for index, columns in enumerate(self._slots):
            came_to = self._outcome(self._ends[index], columns, end_s)
            self.records.add(SLOTS, **columns, **came_to)
            if self.with_tasks:
                self._tasks(index, columns, came_to)
        for job in sorted(jobs, key=lambda job: (job.slot, job.user)):
            self.records.add(JOBS, **_job(job))

    def _outcome(self, ends: Finished, columns: Mapping[str, Any], end_s: float) -> dict[str, Any]:
        """How long the tasks of a slot took, and what became of them; [K] each."""
        local, uplink, station = (
            torch.as_tensor(values).cpu().numpy() - ends.arrival_s
            for values in (ends.local_end_s, ends.uplink_end_s, ends.station_end_s)
        )
        sent = columns["upload_bytes"] > 0
        upload_s = np.where(sent, uplink + self.downlink_s, 0.0)
        compute_s = np.where(sent, station - uplink, 0.0)
        delay_s = np.maximum(local, np.where(sent, station + self.downlink_s, 0.0))
        outcome = np.where(np.isinf(local) | np.isinf(station), DROPPED, SERVED)
        outcome = np.where((outcome == SERVED) & np.isnan(delay_s), WAITING, outcome)
        outcome = np.where(columns["images"] > 0, outcome, NONE)
        served = outcome == SERVED
        age_s = np.where(outcome == DROPPED, (self.drop_slots or 0) * self.slot_s, end_s - ends.arrival_s)
        delay_s = np.where(served, delay_s, np.where(outcome == NONE, np.nan, age_s))
        late = delay_s > self.deadline_s * (1 + 1e-9)  # what ends with its deadline is in time, whatever rounding does
        unknown = (outcome == NONE) | ((outcome == WAITING) & ~late)
        missed = np.where(outcome == DROPPED, 1.0, late.astype(float))
        return {
            "upload_delay_s": np.where(served, upload_s, np.nan),
            "compute_delay_s": np.where(served, compute_s, np.nan),
            "retrain_delay_s": np.where(served, 0.0, np.nan),
            "local_delay_s": np.where(served, local, np.nan),
            "delay_s": delay_s,
            "outcome": outcome,
            "missed": np.where(unknown, np.nan, missed),
            "objective_optimum_s": np.nan,
        }

    def _tasks(self, index: int, columns: Mapping[str, Any], came_to: Mapping[str, Any]) -> None:
        """Add a row for each task of a slot."""
        there = np.flatnonzero(columns["images"] > 0)
        if not len(there):
            return
        arrival_s = index * self.slot_s
        version, correct = self._versions[index], self._correct[index]
        known = {
            "frame": np.full(len(version[0]), columns["frame"]),
            "slot": np.full(len(version[0]), index),
            "user": columns["user"],
            "images": columns["images"],
            "scored": columns["scored"],
            "upload_bytes": columns["upload_bytes"],
            "arrival_s": np.full(len(version[0]), arrival_s),
            "end_s": np.where(came_to["outcome"] == SERVED, arrival_s + came_to["delay_s"], np.nan),
            "delay_s": came_to["delay_s"],
            "deadline_s": np.full(len(version[0]), self.deadline_s),
            "outcome": came_to["outcome"],
            "missed": came_to["missed"],
            "correct": correct.sum(axis=0),
            "station_version": np.where(version[0] < 0, np.nan, version[0]),
            "mu_version": np.where(version[1] < 0, np.nan, version[1]),
        }
        self.records.add(TASKS, **{name: values[there] for name, values in known.items()})


def _job(job: TrainingJob) -> dict[str, Any]:
    """The row of a job."""
    stopped = not np.isnan(job.stopped_s)
    outcome = "stopped" if stopped else "running" if np.isnan(job.done_s) else "done"
    return {
        "slot": job.slot,
        "user": job.user,
        "station": job.station,
        "kind": "prediction" if job.trained is None else "update",
        "outcome": outcome,
        "asked_s": job.asked_s,
        "started_s": job.started_s,
        "done_s": job.done_s,
        "station_from_s": job.station_from_s,
        "mu_from_s": job.mu_from_s,
        "stopped_s": job.stopped_s,
        "flop": job.flop,
        "done_flop": job.done_flop,
        "samples_real": job.real,
        "samples_generated": job.generated,
        "version": np.nan if job.version is None else job.version,
        "accuracy_before": job.accuracy_before,
        "accuracy_after": job.accuracy_after,
    }
