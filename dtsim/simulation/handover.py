"""What follows an MU to another base station, and what a new model travels over."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from dtsim.physical.queues import TaskQueues


@dataclass(frozen=True)
class Backhaul:
    """The links between base stations, and the size of a model."""

    backhaul_bps: float
    """Rate between two base stations, bit/s."""
    downlink_bps: float
    """Rate from a base station to an MU, bit/s."""
    model_bits: float
    """Size of the trained weights, bit."""

    @property
    def model_s(self) -> float:
        """Time of a model from one base station to another, s."""
        return self.model_bits / self.backhaul_bps

    @property
    def download_s(self) -> float:
        """Time of a model from a base station to an MU, s."""
        return self.model_bits / self.downlink_bps

    def bits(self, queues: TaskQueues, flop_per_byte: float, version: np.ndarray) -> np.ndarray:
        """What would follow each MU: received images that are not inferred yet, and its model; bit [K].

        Args:
            queues: the MUs' tasks.
            flop_per_byte: work to infer one byte.
            version: number of each MU's model [K]; the base model, 0, is at every base station.
        """
        received = (queues.station_left * (8 / flop_per_byte) - queues.uplink_left).clamp(min=0.0).sum(-1)
        return received.cpu().numpy() + np.where(version > 0, self.model_bits, 0.0)

    def block(self, queues: TaskQueues, bits: np.ndarray) -> None:
        """Let no task of an MU begin at its new base station before its `bits` [K] are there."""
        takes_s = torch.as_tensor(bits / self.backhaul_bps, device=queues.blocked_until_s.device)
        arrives_s = queues.blocked_until_s.clamp(min=queues.now_s) + takes_s
        queues.blocked_until_s = torch.where(takes_s > 0, arrives_s, queues.blocked_until_s)
