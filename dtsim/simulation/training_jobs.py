"""Training jobs: work of base stations that is done slot by slot, and what it leads to."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dtsim.learning.learners import TrainedModel


@dataclass
class TrainingJob:
    """The charged work of one decision about one MU: an update, or the prediction alone. Times in s, NaN if not yet."""

    user: int
    station: int
    """Where its data are; it stays there."""
    flop: float
    """Its work."""
    slots: int
    """Slots of the window that its work is spread over, eq. (10): its pace."""
    slot: int
    """Slot at whose start it was asked for."""
    asked_s: float
    trained: TrainedModel | None = None
    """The model that the work leads to; None if it was predicted only, or if the training failed."""
    real: int = 0
    generated: int = 0
    accuracy_before: float = math.nan
    """Accuracy of the old model on held-out images of the MU's region."""
    accuracy_after: float = math.nan
    done_flop: float = 0.0
    started_s: float = math.nan
    done_s: float = math.nan
    station_from_s: float = math.nan
    """When the new model serves at the MU's base station."""
    mu_from_s: float = math.nan
    """When it serves at the MU."""
    stopped_s: float = math.nan
    version: int | None = None

    @property
    def left_flop(self) -> float:
        """Work left."""
        return self.flop - self.done_flop

    def due_flop(self, slot: int) -> float:
        """Work that should be done by the end of `slot`, less what was done."""
        passed = slot - self.slot + 1
        if passed >= self.slots:
            return self.left_flop
        return max(0.0, self.flop * passed / self.slots - self.done_flop)


@dataclass(frozen=True)
class Waiting:
    """Training work at the start of a slot."""

    left_flop: np.ndarray
    """Of jobs at the MU's serving base station; [K]."""
    due_flop: np.ndarray
    """Of these, what should be done by the slot's end; [K]."""
    elsewhere_flops: np.ndarray
    """Compute that jobs of MUs that are served elsewhere take from each base station, FLOP/s; [M]."""


class TrainingJobs:
    """The jobs of all MUs; those of one MU are done one after another."""

    most_elsewhere = 0.5
    """Largest share of a base station that jobs of MUs that moved away take, in total."""

    def __init__(self, users: int, station_flops: np.ndarray, slot_s: float, *, uses_idle: bool = True) -> None:
        """Begin without jobs.

        Args:
            users: number of MUs K.
            station_flops: compute of each base station, FLOP/s; [M].
            slot_s: length of a slot, s.
            uses_idle: whether jobs also get what inference leaves of a slot.
        """
        self.underway: list[list[TrainingJob]] = [[] for _ in range(users)]
        self.ended: list[TrainingJob] = []
        self._station_flops = station_flops
        self._slot_s = slot_s
        self._uses_idle = uses_idle
        self._scale = np.ones(len(station_flops))

    @property
    def updating(self) -> np.ndarray:
        """Whether an update of an MU's model is under way; bool [K]."""
        return np.array([any(job.trained is not None for job in jobs) for jobs in self.underway], dtype=bool)

    @property
    def waiting_flop(self) -> np.ndarray:
        """Work left of all jobs of each MU; [K]."""
        return np.array([sum(job.left_flop for job in jobs) for jobs in self.underway])

    def ask(self, job: TrainingJob) -> None:
        """Add a job."""
        self.underway[job.user].append(job)

    def stop(self, user: int, now_s: float) -> float:
        """Stop the updates of `user`; returns the work that is left undone."""
        stopped = [job for job in self.underway[user] if job.trained is not None]
        for job in stopped:
            job.stopped_s = now_s
            self.underway[user].remove(job)
        self.ended += stopped
        return sum(job.left_flop for job in stopped)

    def waiting(self, slot: int, station: np.ndarray) -> Waiting:
        """What waits at the start of `slot`, with every MU's serving base station [K]."""
        users, stations = len(self.underway), len(self._station_flops)
        left, due, elsewhere = np.zeros(users), np.zeros(users), np.zeros(stations)
        for user, jobs in enumerate(self.underway):
            for job in jobs:
                if job.station == station[user]:
                    left[user] += job.left_flop
                    due[user] += job.due_flop(slot)
                else:
                    elsewhere[job.station] += job.due_flop(slot) / self._slot_s
        most = self.most_elsewhere * self._station_flops
        self._scale = np.minimum(1.0, most / np.where(elsewhere > 0, elsewhere, np.inf))
        self._scale[elsewhere == 0] = 1.0
        return Waiting(left, due, elsewhere * self._scale)

    def advance(
        self, slot: int, station: np.ndarray, training_flops: np.ndarray, inferred_flop: np.ndarray
    ) -> tuple[np.ndarray, list[TrainingJob]]:
        """Pass `slot`: jobs get what was allocated to them, and then what their base station has left of the slot.

        What is left is shared in proportion to the jobs' remaining work, and counts as evenly spread over the slot.

        Args:
            slot: the slot.
            station: every MU's serving base station; [K].
            training_flops: compute allocated to the MU's jobs there, FLOP/s; [K].
            inferred_flop: inference that the serving base station did for the MU in the slot, FLOP; [K].

        Returns:
            The work done for each MU, FLOP [K], and the jobs that are done.
        """
        at, could = self._allocated(slot, station, training_flops)
        spare = self._station_flops * self._slot_s
        np.subtract.at(spare, station, inferred_flop)
        left = np.zeros_like(spare)
        for job, most in zip(at, could, strict=True):
            spare[job.station] -= min(most, job.left_flop)
            left[job.station] += max(0.0, job.left_flop - most)
        spare = np.maximum(spare, 0.0) if self._uses_idle else np.zeros_like(spare)
        done, over = np.zeros(len(self.underway)), list[TrainingJob]()
        start_s = slot * self._slot_s
        for job, most in zip(at, could, strict=True):
            rest = max(0.0, job.left_flop - most)
            most += spare[job.station] * rest / left[job.station] if rest > 0 else 0.0
            if most <= 0:
                continue
            if math.isnan(job.started_s):
                job.started_s = start_s
            ends = most >= job.left_flop * (1 - 1e-12)  # what is due takes the whole slot, give or take a rounding
            work = job.left_flop if ends else most
            if ends:
                job.done_s = start_s + self._slot_s * min(1.0, job.left_flop / most)
                self.underway[job.user].remove(job)
                over.append(job)
            job.done_flop = job.flop if ends else job.done_flop + work
            done[job.user] += work
        self.ended += over
        return done, over

    def _allocated(
        self, slot: int, station: np.ndarray, training_flops: np.ndarray
    ) -> tuple[list[TrainingJob], list[float]]:
        """All jobs, and what is allocated to each in `slot`, FLOP: those of one MU are served one after another."""
        at, could = list[TrainingJob](), list[float]()
        for user, jobs in enumerate(self.underway):
            own = training_flops[user] * self._slot_s
            for job in jobs:
                if job.station == station[user]:
                    given, own = own, max(0.0, own - job.left_flop)
                else:
                    given = self._scale[job.station] * job.due_flop(slot)
                at.append(job)
                could.append(float(given))
        return at, could
