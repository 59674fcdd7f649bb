"""Updates where time passes: they are trained when they are decided, and serve when their work is done and sent."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dtsim.learning.learners import Learners
from dtsim.learning.probe import Probe
from dtsim.simulation.decision import Decider, Decision
from dtsim.simulation.handover import Backhaul
from dtsim.simulation.retrainer import Retrainer, Tell
from dtsim.simulation.training_jobs import TrainingJob, TrainingJobs
from dtsim.simulation.updates import Updates
from dtsim.simulation.versions import Versions
from dtsim.simulation.world import Frame, Slot


@dataclass
class Updating:
    """From a decision (15) to the version of a model that serves."""

    learners: Learners
    decider: Decider
    retrainer: Retrainer
    probe: Probe
    backhaul: Backhaul
    jobs: TrainingJobs
    versions: Versions
    replaces: bool
    """Whether a new update stops one that is under way."""

    def __post_init__(self) -> None:
        """Begin without updates."""
        self._coming: list[TrainingJob] = []  # done, and not yet in effect at the base station

    def take_effect(self, now_s: float) -> None:
        """Let the models serve that have arrived at the base stations by `now_s`."""
        here = [job for job in self._coming if job.station_from_s <= now_s]
        for job in here:
            assert job.trained is not None
            self.learners.serve(job.user, job.trained)
        self._coming = [job for job in self._coming if job not in here]

    def decide(self, frame: Frame, slot: Slot, now_s: float) -> tuple[Decision, np.ndarray]:
        """Decide (15); an MU whose update is under way keeps it, or it is stopped.

        Returns:
            The decision, and the work that stopped updates leave undone, FLOP [K].
        """
        decision = self.decider.decide(frame, slot)
        under_way = self.jobs.updating
        stopped = np.zeros(len(under_way))
        if not self.replaces:
            return replace(decision, retrain=decision.retrain & ~under_way), stopped
        for user in np.flatnonzero(decision.retrain & under_way).tolist():
            stopped[user] = self.jobs.stop(user, now_s)
        return decision, stopped

    def retrain(self, decision: Decision, frame: Frame, slot: Slot, now_s: float, tell: Tell) -> Updates:
        """Train what `decision` names; the results wait for `ask`."""
        before = list(self.learners.models)
        updates = self.retrainer.execute(decision, frame, slot, tell)
        for user, (old, new) in enumerate(zip(before, self.learners.models, strict=True)):
            if new is not old:  # an update without work
                self.versions.add(user, new, now_s, now_s + self.backhaul.download_s)
        return updates

    def ask(self, updates: Updates, frame: Frame, slot: Slot, now_s: float, station: np.ndarray) -> np.ndarray:
        """Make the jobs of `updates`, at the base stations [K] that serve the MUs; their work, FLOP [K]."""
        trained = self.learners.take_waiting()
        named = np.isin(np.arange(len(station)), list(trained))
        for user in np.flatnonzero((updates.charged_flop > 0) | named).tolist():
            job = TrainingJob(
                user=user,
                station=int(station[user]),
                flop=float(updates.charged_flop[user]),
                slots=updates.decision.window_slots,
                slot=slot.index,
                asked_s=now_s,
                trained=trained.get(user),
                real=int(updates.real[user]),
                generated=int(updates.generated[user]),
            )
            if job.trained is not None:
                region = int(frame.region[user])
                job.accuracy_before = self.probe.accuracy(self.learners.models[user], region)
                job.accuracy_after = self.probe.accuracy(job.trained.model, region)
            if job.flop > 0:
                self.jobs.ask(job)
            else:  # nothing of it is charged
                job.started_s = job.done_s = now_s
                self.jobs.ended.append(job)
                self.send(job, station)
        self.take_effect(now_s)
        return updates.charged_flop.copy()

    def send(self, job: TrainingJob, station: np.ndarray) -> None:
        """Send the model that a job led to, to the base station [K] of its MU and to the MU."""
        if job.trained is None:
            return
        away = job.station != station[job.user]
        job.station_from_s = job.done_s + (self.backhaul.model_s if away else 0.0)
        job.mu_from_s = job.station_from_s + self.backhaul.download_s
        job.version = self.versions.add(job.user, job.trained.model, job.station_from_s, job.mu_from_s)
        self._coming.append(job)
