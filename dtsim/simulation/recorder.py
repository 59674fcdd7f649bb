"""Converts events into rows of the result files. It also solves each slot's exact optimum for comparison."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import Allocation, AllocationProblem, system_delay_s
from dtsim.association.problem import Association
from dtsim.core.rows import Row
from dtsim.learning.continual import Continual
from dtsim.learning.learners import Learners
from dtsim.physical import delay
from dtsim.physical.delay import Objective
from dtsim.results.names import ASSOCIATIONS, DRIFT, FRAMES, LEARNING_CURVE, REGIONS, SLOTS
from dtsim.results.records import Records
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.scoring import share_correct
from dtsim.simulation.updates import Updates
from dtsim.simulation.world import Frame, Slot, Uplinks, World


@dataclass
class Recorder:
    """Fills the rows of a run; it decides nothing and changes nothing."""

    records: Records
    world: World
    learners: Learners
    continual: Continual
    scheme: Scheme
    objective: Objective
    accuracy_threshold: float
    """A_th: an MU-slot or MU-frame below it is a break-out."""
    optimum: Allocator = field(default_factory=Optimal)
    """The reference for every allocation."""

    def __post_init__(self) -> None:
        self._start_s = time.monotonic()

    def regions(self) -> None:
        """Add the class distribution of every region."""
        shares = self.world.class_distributions  # [R, C]
        region, label = np.indices(shares.shape).reshape(2, -1)
        self.records.add(REGIONS, region=region, **{"class": label, "probability": shares.ravel()})

    def update(self, user: int, frame: Frame, slot: Slot, rows: Sequence[Row]) -> None:
        """Add the learning curve of one update of `user`, which took place before `slot`."""
        when = {
            "phase": self.scheme.training,
            "user": user,
            "frame": frame.index,
            "slot": slot.index,
            "seconds": time.monotonic() - self._start_s,
        }
        self.records.extend(LEARNING_CURVE, [{**when, **row} for row in rows])

    def association(self, frame: Frame, slot: Slot, association: Association) -> None:
        """Add one solved association."""
        self.records.add(
            ASSOCIATIONS,
            frame=frame.index,
            slot=slot.index,
            solver=association.solver,
            objective_s=association.objective_s,
            bound_s=association.bound_s,
            gap=association.gap,
            solve_time_s=association.solve_time_s,
            status=association.status,
        )

    def slot(
        self,
        frame: Frame,
        slot: Slot,
        links: Uplinks,
        problem: AllocationProblem,
        allocation: Allocation,
        updates: Updates,
        correct: np.ndarray,
    ) -> None:
        """Add every MU in one slot; `correct` is the number of its images inferred correctly, int64 [K]."""
        accuracy = share_correct(correct, slot.scored)
        optimum_s = system_delay_s(problem, self.optimum.allocate(problem), self.objective)
        values = _on_host(
            {
                "x_m": links.position_m[:, 0],
                "y_m": links.position_m[:, 1],
                "snr_db": delay.at_station(links.snr_db, problem.station),
                "rate_bps": problem.rate_bps,
                "captured_bytes": problem.captured_bytes,
                "local_flops": problem.mu_flops,
                "station_flops": self.world.station_flops[problem.station],
                "retrain_flop": problem.retrain_flop,
                "station": problem.station,
                **_allocated(problem, allocation),
                "objective_optimum_s": optimum_s,
            },
            self.world.users,
        )
        check_finite(values, slot.index)
        self.records.add(
            SLOTS,
            frame=frame.index,
            slot=slot.index,
            user=np.arange(self.world.users),
            region=frame.region,
            flop_per_byte=problem.flop_per_byte,
            downlink_delay_s=np.where(values["upload_bytes"] > 0, self.world.downlink_s, 0.0),
            images=slot.images,
            scored=slot.scored,
            correct=correct,
            accuracy=accuracy,
            retrain=updates.updated.astype(np.int64),
            model_age_frames=frame.index - self.learners.updated_frame,
            breakout=(accuracy < self.accuracy_threshold).astype(np.int64),
            **values,
        )

    def frame(
        self,
        frame: Frame,
        association: Association,
        epochs: Sequence[Updates],
        correct: np.ndarray,
        images: np.ndarray,
        retrain_flop: np.ndarray,
    ) -> None:
        """Add every MU in one frame with the updates of all its decision epochs.

        Args:
            frame: the frame.
            association: the last one.
            epochs: the updates of each decision.
            correct: images inferred correctly in the frame; int64 [K].
            images: images inferred; int64 [K].
            retrain_flop: retraining work of the frame, FLOP; [K].
        """
        accuracy = share_correct(correct, images)
        kl_nat = np.array([updates.kl_nat for updates in epochs])  # [decisions, K]
        known = np.isfinite(kl_nat)
        users = np.arange(self.world.users)
        self.records.add(DRIFT, frame=frame.index, user=users, region=frame.region)
        self.records.add(
            FRAMES,
            frame=frame.index,
            user=users,
            station=association.station,
            region=frame.region,
            predicted_accuracy=epochs[0].decision.predicted_accuracy,
            accuracy=accuracy,
            retrain=sum(updates.updated.astype(np.int64) for updates in epochs),
            samples_real=sum(updates.real for updates in epochs),
            samples_generated=sum(updates.generated for updates in epochs),
            kl=np.where(known, kl_nat, 0).sum(axis=0) / np.where(known.any(axis=0), known.sum(axis=0), np.nan),
            diverged=sum(updates.diverged.astype(np.int64) for updates in epochs),
            retrain_flop=retrain_flop,
            generator_flop=sum(updates.generator_flop for updates in epochs),
            prediction_flop=sum(updates.decision.prediction_flop for updates in epochs),
            accuracy_without_update=self._without_update(accuracy, epochs),
            breakout=(accuracy < self.accuracy_threshold).astype(np.int64),
            **self.continual.end_of_frame(self.learners.models, frame.region),
        )

    def _without_update(self, accuracy: np.ndarray, epochs: Sequence[Updates]) -> np.ndarray:
        """Frame accuracy [K] of each model without its update in the frame; NaN if unknown."""
        if self.scheme.retrain == "slot":
            return np.full(len(accuracy), np.nan)
        return np.where(epochs[0].updated, epochs[0].accuracy_without, accuracy)


class NotFinite(ValueError):
    """A quantity of a run that is not finite; the message names it, the user and the slot."""


def check_finite(values: Mapping[str, np.ndarray], slot: int) -> None:
    """Check the columns of a slot, a value for each MU.

    Raises:
        NotFinite: if a number is not finite.
    """
    for name, column in values.items():
        if column.dtype.kind == "f" and not np.isfinite(column).all():
            user = int(np.flatnonzero(~np.isfinite(column))[0])
            raise NotFinite(f"{name} of user {user} in slot {slot} is {column[user]}: it must be a finite number")


def _allocated(problem: AllocationProblem, allocation: Allocation) -> dict[str, Tensor]:
    """The columns that follow from an allocation: the compute of each MU and every part of its delay; [K] each."""
    upload, compute = allocation.upload_bytes, allocation.compute_flops
    upload_s = delay.upload_delay_s(upload, problem.rate_bps, problem.downlink_s)
    compute_s = delay.compute_delay_s(upload, problem.flop_per_byte, compute)
    retrain_s = delay.retrain_delay_s(problem.retrain_flop, compute)
    local_s = delay.local_delay_s(problem.captured_bytes - upload, problem.flop_per_byte, problem.mu_flops)
    return {
        "upload_bytes": upload,
        "compute_flops": compute,
        "upload_delay_s": upload_s,
        "compute_delay_s": compute_s,
        "retrain_delay_s": retrain_s,
        "local_delay_s": local_s,
        "delay_s": delay.user_delay_s(local_s, upload_s, compute_s, retrain_s),
    }


def _on_host(columns: Mapping[str, Tensor], users: int) -> dict[str, np.ndarray]:
    """`columns`, each with a value per user or one for all, as arrays; one transfer for each dtype."""
    values: dict[str, np.ndarray] = {}
    for kind in dict.fromkeys(column.dtype for column in columns.values()):
        names = [name for name, column in columns.items() if column.dtype == kind]
        values |= zip(names, torch.stack([columns[name].expand(users) for name in names]).cpu().numpy(), strict=True)
    return values
