"""Algorithm 2: the two-timescale loop."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    Allocator,
    Objective,
    apply,
    held,
    system_delay_s,
)
from dtsim.association.problem import Association, AssociationProblem, Solver
from dtsim.core.progress import Progress
from dtsim.learning.continual import Continual
from dtsim.learning.learners import Learners
from dtsim.physical import delay
from dtsim.results.records import Records
from dtsim.simulation.decision import Retrainings
from dtsim.simulation.retrainer import Retrainer, share_right
from dtsim.simulation.scheme import Scheme, due
from dtsim.simulation.world import Frame, Slot, World
from dtsim.twin.twin import Twin


@dataclass
class Simulation:
    """One run: a world, what decides in it, and what it leaves in `records`."""

    world: World
    learners: Learners
    twin: Twin
    retrainer: Retrainer
    continual: Continual
    solver: Solver
    allocator: Allocator
    scheme: Scheme
    objective: Objective
    accuracy_threshold: float
    records: Records
    progress: Progress

    def run(self, frames: int) -> None:
        """Go through `frames` frames."""
        slots = frames * self.world.slots_per_frame
        with self.progress.phase("frames", slots) as phase:
            for frame in self.world.frames(frames):
                retrainings: list[Retrainings] = []
                correct = np.zeros(self.world.users, dtype=np.int64)
                for slot in frame.slots:
                    if due(self.scheme.retrain, slot.in_frame):
                        retrainings.append(self.retrainer.decide_and_train(frame, slot))
                    if due(self.scheme.associate, slot.in_frame):
                        association = self._associate(frame, slot, retrainings[-1])
                    problem = self._problem(slot, association, retrainings[-1])
                    if due(self.scheme.allocate, slot.in_frame):
                        allocation = self.allocator.allocate(problem)
                        shares = held(problem, allocation)
                    else:
                        allocation = apply(shares, problem)
                    right = self._infer(slot)
                    self._show_twin(frame, slot, allocation, right)
                    self._record_slot(frame, slot, problem, allocation, retrainings[-1], right)
                    correct += right
                    phase.advance(
                        note=f"frame {frame.index + 1}, accuracy {right.sum() / max(1, slot.images.sum()):.2f}"
                    )
                self.retrainer.end_of_frame(frame, correct)
                self._record_frame(frame, association, retrainings, correct)

    def _associate(self, frame: Frame, slot: Slot, retrainings: Retrainings) -> Association:
        """Solve P2 on the twin's forecast of the frame, or on the slot itself where it is solved every slot."""
        whole_frame = self.scheme.associate == "frame"
        captured = self.twin.forecast_bytes() if whole_frame else self._captured_bytes(slot)
        rate_bps = (frame.forecast_rate_bps if whole_frame else slot.rate_bps).cpu().numpy()
        association = self.solver.solve(
            AssociationProblem(
                work_flop=self.learners.cost.flop_per_byte * captured + retrainings.slot_flop,
                upload_s=8 * captured / rate_bps + self.world.downlink_s,
                station_flops=self.world.station_flops.cpu().numpy(),
                gain=frame.mean_gain.cpu().numpy(),
            )
        )
        self.records.add(
            "associations.csv",
            frame=frame.index,
            slot=slot.index,
            solver=association.solver,
            objective_s=association.objective_s,
            bound_s=association.bound_s,
            gap=association.gap,
            solve_time_s=association.solve_time_s,
            status=association.status,
        )
        return association

    def _captured_bytes(self, slot: Slot) -> np.ndarray:
        return slot.images * float(self.learners.cost.sample_bytes)

    def _problem(self, slot: Slot, association: Association, retrainings: Retrainings) -> AllocationProblem:
        """P3 of this slot."""
        like = slot.rate_bps
        station = torch.as_tensor(association.station, device=like.device)
        return AllocationProblem(
            captured_bytes=torch.as_tensor(self._captured_bytes(slot), dtype=like.dtype, device=like.device),
            rate_bps=delay.at_station(like, station),
            retrain_flop=torch.as_tensor(retrainings.slot_flop, dtype=like.dtype, device=like.device),
            station=station,
            station_flops=self.world.station_flops,
            mu_flops=self.world.mu_flops,
            flop_per_byte=self.learners.cost.flop_per_byte,
            downlink_s=self.world.downlink_s,
        )

    def _infer(self, slot: Slot) -> np.ndarray:
        """Images that every MU's model gets right in this slot; [K]."""
        users = range(self.world.users)
        return self.learners.correct_each(users, [self.world.scored(slot, user) for user in users])

    def _show_twin(self, frame: Frame, slot: Slot, allocation: Allocation, correct: np.ndarray) -> None:
        """What reaches the twin: the uploaded part of the data, whole images only."""
        # A share of n images that is n up to rounding is n images.
        uploaded = (allocation.upload_bytes.cpu().numpy() / self.learners.cost.sample_bytes + 1e-6).astype(np.int64)
        for user, count in enumerate(uploaded):
            self.twin.store.upload(user, int(frame.region[user]), self.world.collected(slot, user, int(count)))
        self.twin.see_traffic(self._captured_bytes(slot))
        self.retrainer.measured(correct, slot.images)

    def _record_slot(
        self,
        frame: Frame,
        slot: Slot,
        problem: AllocationProblem,
        allocation: Allocation,
        retrainings: Retrainings,
        correct: np.ndarray,
    ) -> None:
        upload, compute = allocation.upload_bytes, allocation.compute_flops
        upload_s = delay.upload_delay_s(upload, problem.rate_bps, self.world.downlink_s)
        compute_s = delay.compute_delay_s(upload, problem.flop_per_byte, compute)
        retrain_s = delay.retrain_delay_s(problem.retrain_flop, compute)
        local_s = delay.local_delay_s(problem.captured_bytes - upload, problem.flop_per_byte, problem.mu_flops)
        optimum = Optimal().allocate(problem)
        accuracy = share_right(correct, slot.images)
        columns = {
            "x_m": frame.position_m[:, 0],
            "y_m": frame.position_m[:, 1],
            "snr_db": delay.at_station(slot.snr_db, problem.station),
            "rate_bps": problem.rate_bps,
            "captured_bytes": problem.captured_bytes,
            "upload_bytes": upload,
            "local_flops": problem.mu_flops,
            "compute_flops": compute,
            "station_flops": self.world.station_flops[problem.station],
            "retrain_flop": problem.retrain_flop,
            "upload_delay_s": upload_s,
            "compute_delay_s": compute_s,
            "retrain_delay_s": retrain_s,
            "local_delay_s": local_s,
            "delay_s": delay.user_delay_s(local_s, upload_s, compute_s, retrain_s),
            "station": problem.station,
            "objective_optimum_s": system_delay_s(problem, optimum, self.objective),
        }
        values = _on_host(columns, self.world.users)
        self.records.add(
            "slots.csv",
            frame=frame.index,
            slot=slot.index,
            user=np.arange(self.world.users),
            region=frame.region,
            flop_per_byte=problem.flop_per_byte,
            downlink_delay_s=np.where(values["upload_bytes"] > 0, self.world.downlink_s, 0.0),
            images=slot.images,
            correct=correct,
            accuracy=accuracy,
            retrain=retrainings.updated.astype(np.int64),
            model_age_frames=frame.index - self.learners.updated_frame,
            breakout=(accuracy < self.accuracy_threshold).astype(np.int64),
            **values,
        )

    def _record_frame(
        self, frame: Frame, association: Association, retrainings: list[Retrainings], correct: np.ndarray
    ) -> None:
        accuracy = share_right(correct, np.sum([slot.images for slot in frame.slots], axis=0))
        updates = np.array([r.updated for r in retrainings])  # [decisions, K]
        kl = np.array([r.kl_nat for r in retrainings])
        window = len(frame.slots) // len(retrainings)
        known = np.isfinite(kl)
        users = np.arange(self.world.users)
        self.records.add("drift.csv", frame=frame.index, user=users, region=frame.region)
        self.records.add(
            "frames.csv",
            frame=frame.index,
            user=users,
            station=association.station,
            region=frame.region,
            predicted_accuracy=retrainings[0].predicted_accuracy,
            accuracy=accuracy,
            retrain=updates.sum(axis=0),
            samples_real=sum(r.real for r in retrainings),
            samples_generated=sum(r.generated for r in retrainings),
            kl=np.where(known, kl, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan),
            diverged=sum(r.diverged.astype(np.int64) for r in retrainings),
            retrain_flop=window * sum(r.slot_flop for r in retrainings),
            generator_flop=sum(r.generator_flop for r in retrainings),
            prediction_flop=sum(r.prediction_flop for r in retrainings),
            accuracy_without_update=self._without_update(accuracy, retrainings),
            breakout=(accuracy < self.accuracy_threshold).astype(np.int64),
            **self.continual.end_of_frame(self.learners.models, frame.region),
        )

    def _without_update(self, accuracy: np.ndarray, retrainings: list[Retrainings]) -> np.ndarray:
        """Frame accuracy [K] that each model would have had without its update in the frame; NaN if not known."""
        if self.scheme.retrain == "slot":
            return np.full(len(accuracy), np.nan)
        return np.where(retrainings[0].updated, retrainings[0].accuracy_without, accuracy)


def _on_host(columns: dict[str, Tensor], users: int) -> dict[str, np.ndarray]:
    """`columns` of one value for each of `users`, or one for all, as arrays: one transfer for each type of number."""
    values: dict[str, np.ndarray] = {}
    for kind in dict.fromkeys(column.dtype for column in columns.values()):
        names = [name for name, column in columns.items() if column.dtype == kind]
        values |= zip(names, torch.stack([columns[name].expand(users) for name in names]).cpu().numpy(), strict=True)
    return values
