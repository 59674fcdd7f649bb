"""Algorithm 2: the two-timescale loop."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.problem import Allocation, AllocationProblem, apply, held
from dtsim.association.problem import Association, Solver
from dtsim.core.progress import Phase, Progress
from dtsim.learning.learners import Learners
from dtsim.physical import delay
from dtsim.results.records import Records
from dtsim.simulation.associator import Associator
from dtsim.simulation.decision import Decider
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.retrainer import Retrainer, Tell
from dtsim.simulation.scheme import Scheme, due
from dtsim.simulation.scoring import scored_in
from dtsim.simulation.updates import Updates
from dtsim.simulation.world import Frame, Slot, Uplinks, World
from dtsim.twin.twin import Twin


@dataclass
class Simulation:
    """One run: a world, the parts that decide in it, and the recorder."""

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
    progress: Progress

    def __post_init__(self) -> None:
        """Let P2 be solved in the scheme's way."""
        self.associator = Associator(self.world, self.learners, self.twin, self.solver, self.scheme, self.recorder)

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
                correct = np.zeros(self.world.users, dtype=np.int64)
                for slot, links in zip(frame.slots, frame.links, strict=True):
                    if due(self.scheme.retrain, slot.in_frame):
                        self.learners.take_effect()  # the work of the last window's updates is done
                        decision = self.decider.decide(frame, slot)
                        epochs.append(self.retrainer.execute(decision, frame, slot, tell))
                        right_from_here = self._infer(frame.slots[slot.in_frame :][: decision.window_slots])
                    if due(self.scheme.associate, slot.in_frame):
                        tell("solving the association")
                        association = self.associator.associate(frame, slot, links, epochs[-1])
                    problem = self._problem(slot, links, association, epochs[-1])
                    if due(self.scheme.allocate, slot.in_frame):
                        allocation = self.allocator.allocate(problem)
                        shares = held(problem, allocation)
                    else:
                        allocation = apply(shares, problem)
                    right = next(right_from_here)
                    self._show_twin(frame, slot, allocation, right)
                    self.recorder.slot(frame, slot, links, problem, allocation, epochs[-1], right)
                    correct += right
                    phase.advance()
                    tell(f"accuracy {right.sum() / max(1, slot.scored.sum()):.2f}")
                self.decider.end_of_frame(frame, correct, scored_in(frame))
                charged = sum(updates.decision.window_slots * updates.slot_flop for updates in epochs)
                self.recorder.frame(frame, association, epochs, correct, scored_in(frame), np.asarray(charged))

    def _problem(self, slot: Slot, links: Uplinks, association: Association, updates: Updates) -> AllocationProblem:
        """P3 of this slot."""
        like = links.rate_bps
        station = torch.as_tensor(association.station, device=like.device)
        rate_bps = delay.at_station(like, station)
        captured_bytes = self.associator.captured_bytes(slot)
        captured, retrain, least = (
            torch.as_tensor(values, dtype=like.dtype, device=like.device)
            for values in (captured_bytes, updates.slot_flop, self._least_upload_bytes(slot, updates))
        )
        return AllocationProblem(
            captured_bytes=captured,
            rate_bps=rate_bps,
            retrain_flop=retrain,
            least_upload_bytes=torch.where(rate_bps > 0, least, 0.0),
            station=station,
            station_flops=self.world.station_flops,
            mu_flops=self.world.mu_flops,
            flop_per_byte=self.learners.cost.flop_per_byte,
            downlink_s=self.world.downlink_s,
        )

    def _least_upload_bytes(self, slot: Slot, updates: Updates) -> np.ndarray:
        """What each MU whose model is to be retrained must upload, in whole images; [K]."""
        least: np.ndarray = np.ceil(self.min_upload * slot.images) * updates.decision.retrain
        return least * float(self.learners.cost.sample_bytes)

    def _infer(self, slots: list[Slot]) -> Iterator[np.ndarray]:
        """Images that every MU's model infers correctly in each of `slots`; int64 [K] each.

        The models stay the same until the next decision, so the slots until then are inferred together.
        """
        view = self.world.scored(slots)
        right = self.learners.right(view)
        ends = np.cumsum([slot.scored.sum() for slot in slots])
        for user, hit in zip(np.split(view.user, ends[:-1]), np.split(right, ends[:-1]), strict=True):
            yield np.bincount(user[hit], minlength=self.world.users)

    def _show_twin(self, frame: Frame, slot: Slot, allocation: Allocation, correct: np.ndarray) -> None:
        """Pass the uploaded part of the data to the twin, whole images only."""
        # The small offset makes an upload of n images up to rounding count as n.
        uploaded = (allocation.upload_bytes.cpu().numpy() / self.learners.cost.sample_bytes + 1e-6).astype(np.int64)
        for user, images, places in self.world.collected(slot, uploaded):
            self.twin.store.upload(user, frame.region[user], images, places)
        self.twin.see_traffic(self.associator.captured_bytes(slot))
        self.decider.measured(correct, slot.scored)


def teller(phase: Phase, frame: Frame) -> Tell:
    """Writes beside the bar of `phase` what happens in `frame`."""
    return lambda text: phase.advance(0, f"frame {frame.index + 1}, {text}")
