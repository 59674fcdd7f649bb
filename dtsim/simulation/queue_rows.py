"""Columns of slots.csv where time passes: what happened at a slot's start, and what its queues did."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.physical import delay
from dtsim.physical.queues import Served
from dtsim.simulation.world import Uplinks


@dataclass(frozen=True)
class Begun:
    """What happened to every MU at the start of a slot; [K] each."""

    updated: np.ndarray
    """Whether an update was asked for; bool."""
    asked_flop: np.ndarray
    """Work of the jobs asked for, FLOP."""
    stopped_flop: np.ndarray
    """Work that stopped jobs leave undone, FLOP."""
    handed_over: np.ndarray
    """Whether its base station changed; bool."""
    moved_bits: np.ndarray
    """What follows it to its base station, bit."""

    @classmethod
    def nothing(cls, users: int) -> Begun:
        """Nothing so far, for `users` MUs."""
        no, zero = np.zeros(users, dtype=bool), np.zeros(users)
        return cls(no, zero, zero.copy(), no.copy(), zero.copy())


def queue_columns(
    links: Uplinks,
    problem: QueueProblem,
    allocation: QueueAllocation,
    before: tuple[Tensor, Tensor, Tensor],
    passed: Served,
) -> dict[str, np.ndarray]:
    """Columns on links, allocation and queues by name; [K] each.

    Args:
        links: of the slot.
        problem: what was decided.
        allocation: the decision.
        before: work that waited at the slot's start, of each queue.
        passed: what the queues did.
    """
    queues: dict[str, Tensor] = {}
    names = (("local", "flop"), ("uplink", "bits"), ("station", "flop"))
    for (name, unit), start, what in zip(names, before, (passed.local, passed.uplink, passed.station), strict=True):
        queues |= {
            f"{name}_start_{unit}": start,
            f"{name}_asked_{unit}": what.asked,
            f"{name}_done_{unit}": what.done,
            f"{name}_dropped_{unit}": what.dropped,
            f"{name}_end_{unit}": what.waiting,
        }
    tensors = {
        "x_m": links.position_m[:, 0],
        "y_m": links.position_m[:, 1],
        "snr_db": delay.at_station(links.snr_db, problem.station),
        "rate_bps": problem.rate_bps,
        "captured_bytes": problem.captured_bytes,
        "upload_bytes": allocation.upload_bytes,
        "local_flops": problem.mu_flops,
        "compute_flops": allocation.inference_flops + allocation.training_flops,
        "inference_flops": allocation.inference_flops,
        "training_flops": allocation.training_flops,
        **queues,
    }
    together = torch.stack(list(tensors.values())).cpu().numpy()  # one transfer
    columns = dict(zip(tensors, together, strict=True))
    return columns | {"downlink_delay_s": np.where(columns["upload_bytes"] > 0, problem.downlink_s, 0.0)}
