"""The two-timescale loop where time passes: work waits in queues, and an update serves when its work is done."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.queues.queue_problem import (
    QueueAllocation,
    QueueProblem,
    QueueShares,
    held_shares,
    serve_queues,
    with_shares,
)
from dtsim.association.problem import Solver
from dtsim.core.progress import Progress
from dtsim.learning.learners import Learners
from dtsim.learning.probe import Probe
from dtsim.physical import delay
from dtsim.physical.queues import Served, TaskQueues
from dtsim.results.records import Records
from dtsim.simulation.answers import Answers
from dtsim.simulation.associator import Associator
from dtsim.simulation.decision import Decider
from dtsim.simulation.handover import Backhaul
from dtsim.simulation.ledger import Ledger
from dtsim.simulation.loop import teller
from dtsim.simulation.power import Power
from dtsim.simulation.queue_rows import Begun, queue_columns
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.retrainer import Retrainer
from dtsim.simulation.scheme import Scheme, due
from dtsim.simulation.scoring import share_correct
from dtsim.simulation.training_jobs import TrainingJobs, Waiting
from dtsim.simulation.updates import Updates
from dtsim.simulation.updating import Updating
from dtsim.simulation.versions import Versions
from dtsim.simulation.world import Frame, Slot, Uplinks, World
from dtsim.twin.twin import Twin


@dataclass
class ContiguousSimulation:
    """One run in which time passes: a world, the parts that decide in it, and the recorder."""

    world: World
    learners: Learners
    twin: Twin
    decider: Decider
    retrainer: Retrainer
    solver: Solver
    allocator: Allocator
    min_upload: float
    """`allocator.min_upload`."""
    scheme: Scheme
    recorder: Recorder
    ledger: Ledger
    progress: Progress
    probe: Probe
    power: Power
    backhaul: Backhaul
    trains_when_idle: bool
    """Whether training also gets what inference leaves of a slot."""
    replaces: bool
    """Whether a new update stops one that is under way."""
    drop_after_s: float | None
    """Age at which tasks are given up, s; None: never."""

    def __post_init__(self) -> None:
        """Begin at time 0 with empty queues and the base models."""
        world = self.world
        self.slot_s = world.network.slot_s
        self.queues = TaskQueues((world.users,), self.slot_s, world.network.device)
        self.jobs = TrainingJobs(
            world.users, world.station_flops.cpu().numpy(), self.slot_s, uses_idle=self.trains_when_idle
        )
        self.versions = Versions(self.learners.base, world.users)
        self.associator = Associator(world, self.learners, self.twin, self.solver, self.scheme, self.recorder)
        self.updating = Updating(
            learners=self.learners,
            decider=self.decider,
            retrainer=self.retrainer,
            probe=self.probe,
            backhaul=self.backhaul,
            jobs=self.jobs,
            versions=self.versions,
            replaces=self.replaces,
        )
        self.answers = Answers(world, self.learners, self.twin, self.versions, self.ledger)
        self._station: np.ndarray | None = None
        self._shares: QueueShares | None = None

    @property
    def records(self) -> Records:
        """The rows so far."""
        return self.recorder.records

    def run(self, frames: int) -> None:
        """Simulate `frames` frames."""
        self.recorder.regions()
        with self.progress.phase("frames", frames * self.world.slots_per_frame) as phase:
            for frame in self.world.frames(frames):
                tell = teller(phase, frame)
                epochs: list[Updates] = []
                right, inferred = np.zeros((2, self.world.users), dtype=np.int64)
                trained_flop = np.zeros(self.world.users)
                for slot, links in zip(frame.slots, frame.links, strict=True):
                    now, now_s = replace(frame, region=slot.region), self.queues.now_s
                    self.updating.take_effect(now_s)
                    begun = Begun.nothing(self.world.users)
                    decides = due(self.scheme.retrain, slot.in_frame)
                    if decides:
                        decision, begun.stopped_flop[:] = self.updating.decide(now, slot, now_s)
                        epochs.append(self.updating.retrain(decision, now, slot, now_s, tell))
                        begun.updated[:] = epochs[-1].updated
                    if due(self.scheme.associate, slot.in_frame):
                        tell("solving the association")
                        association = self.associator.associate(now, slot, links, epochs[-1])
                        self._hand_over(association.station, begun)
                    if decides:
                        begun.asked_flop[:] = self.updating.ask(epochs[-1], now, slot, now_s, association.station)
                    correct, served, done_flop = self._pass(now, slot, links, begun)
                    right += correct
                    inferred += served
                    trained_flop += done_flop
                    phase.advance()
                    tell(f"accuracy {correct.sum() / max(1, served.sum()):.2f}")
                self.decider.end_of_frame(frame, right, inferred)
                self.recorder.frame(frame, association, epochs, right, inferred, trained_flop)
        self.ledger.ended(self.queues.retire(everything=True))
        self.ledger.close([*self.jobs.ended, *(job for jobs in self.jobs.underway for job in jobs)])

    def _hand_over(self, station: np.ndarray, begun: Begun) -> None:
        """Move queues and models of the MUs whose base station [K] changed."""
        before, self._station = self._station, station
        if before is None:
            return
        version = self.versions.numbers(self.queues.now_s, at_mu=False)
        begun.handed_over[:] = station != before
        received = self.backhaul.bits(self.queues, self.learners.cost.flop_per_byte, version)
        begun.moved_bits[:] = received * begun.handed_over
        self.backhaul.block(self.queues, begun.moved_bits)

    def _pass(
        self, frame: Frame, slot: Slot, links: Uplinks, begun: Begun
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Pass one slot.

        Returns:
            Scored images inferred correctly and inferred, int64 [K] each, and training work done, FLOP [K].
        """
        assert self._station is not None
        queues, now_s, before = self.queues, self.queues.now_s, self.queues.waiting
        training_start = self.jobs.waiting_flop - begun.asked_flop + begun.stopped_flop
        if self.drop_after_s is not None:
            queues.drop(self.drop_after_s)
        problem = self._problem(slot, links, self.jobs.waiting(slot.index, self._station))
        allocation = self._allocate(problem, slot)
        upload, per_byte = allocation.upload_bytes, self.learners.cost.flop_per_byte
        queues.arrive(per_byte * (problem.captured_bytes - upload), 8 * upload, per_byte * upload)
        # The small offset makes an upload of n images up to rounding count as n.
        whole = (upload.cpu().numpy() / self.learners.cost.sample_bytes + 1e-6).astype(np.int64)
        self.answers.expect(slot, whole)
        age_frames = frame.index - self.learners.updated_frame
        passed = queues.advance(problem.mu_flops, problem.rate_bps, allocation.inference_flops)
        inferred_flop = passed.station.done.cpu().numpy()
        training_flops = allocation.training_flops.cpu().numpy()
        done, over = self.jobs.advance(slot.index, self._station, training_flops, inferred_flop)
        columns = {
            "frame": frame.index,
            "slot": slot.index,
            "user": np.arange(self.world.users),
            "station": self._station,
            "region": slot.region,
            "images": slot.images,
            "scored": slot.scored,
            **queue_columns(links, problem, allocation, before, passed),
            "station_flops": self.world.station_flops.cpu().numpy()[self._station],
            "tx_j": self.power.tx_w * passed.transmitting_s.cpu().numpy(),
            "local_j": self.power.mu_j_per_flop * passed.local.done.cpu().numpy(),
            "flop_per_byte": per_byte,
            "training_start_flop": training_start,
            "training_asked_flop": begun.asked_flop,
            "training_done_flop": done,
            "training_stopped_flop": begun.stopped_flop,
            "training_end_flop": self.jobs.waiting_flop,
            "retrain_flop": done,
            "station_j": self.power.station_j_per_flop * (inferred_flop + done),
            "handover": begun.handed_over.astype(np.int64),
            "backhaul_bits": begun.moved_bits,
            "retrain": begun.updated.astype(np.int64),
            "model_age_frames": age_frames,
            "station_version": self.versions.numbers(now_s, at_mu=False),
            "mu_version": self.versions.numbers(now_s, at_mu=True),
        }
        for job in over:
            self.updating.send(job, self._station)
        correct, served = self._answer(slot, passed, columns)
        return correct, served, done

    def _answer(self, slot: Slot, passed: Served, columns: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """Infer what ended in the slot, keep its rows, and show the twin what it sees; `Answers.infer`."""
        self.ledger.begin(slot.index, self.world.users)
        correct, served = self.answers.infer(self.queues, passed)
        accuracy = share_correct(correct, served)
        breakout = (accuracy < self.recorder.accuracy_threshold).astype(np.int64)
        own = {"correct": correct, "served": served, "accuracy": accuracy, "breakout": breakout}
        self.ledger.slot(slot.index, columns | own)
        self.answers.show_twin(self.queues, passed)
        self.twin.see_traffic(self.associator.captured_bytes(slot))
        self.decider.measured(correct, served)
        finished = self.queues.retire()
        self.ledger.ended(finished)
        self.answers.forget(finished)
        self.versions.forget(self.queues.first * self.slot_s)
        return correct, served

    def _problem(self, slot: Slot, links: Uplinks, training: Waiting) -> QueueProblem:
        """The decision of this slot."""
        like = links.rate_bps
        local, uplink, station_flop = self.queues.waiting

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=like.dtype, device=like.device)

        station = torch.as_tensor(self._station, device=like.device)
        least = np.ceil(self.min_upload * slot.images) * self.jobs.updating * float(self.learners.cost.sample_bytes)
        rate_bps = delay.at_station(like, station)
        return QueueProblem(
            captured_bytes=tensor(self.associator.captured_bytes(slot)),
            rate_bps=rate_bps,
            local_flop=local,
            uplink_bits=uplink,
            station_flop=station_flop,
            training_flop=tensor(training.left_flop),
            due_flop=tensor(training.due_flop),
            station=station,
            station_flops=self.world.station_flops - tensor(training.elsewhere_flops),
            mu_flops=torch.full_like(rate_bps, self.world.mu_flops),
            flop_per_byte=self.learners.cost.flop_per_byte,
            downlink_s=self.world.downlink_s,
            slot_s=self.slot_s,
            least_upload_bytes=torch.where(rate_bps > 0, tensor(least), 0.0),
            idle_trains=self.trains_when_idle,
            **self.power.prices,
        )

    def _allocate(self, problem: QueueProblem, slot: Slot) -> QueueAllocation:
        """The allocator's answer, or the shares that are held since the last time that it was asked."""
        if self._shares is not None and not due(self.scheme.allocate, slot.in_frame):
            return with_shares(self._shares, problem)
        allocation = serve_queues(self.allocator, problem)
        self._shares = held_shares(problem, allocation)
        return allocation
