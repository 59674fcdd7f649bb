"""What transmission and compute take in a slot, in J."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dtsim.core.shapes import PerUser


@dataclass(frozen=True)
class Power:
    """The energy of a run's equipment."""

    tx_w: float
    """Power of a transmitting MU, W."""
    mu_j_per_flop: float
    station_j_per_flop: float
    weight_s_per_j: float
    """Delay that a joule is worth, s/J."""

    @property
    def prices(self) -> dict[str, float]:
        """The same for an allocator, by the name of its field."""
        return vars(self).copy()

    def tx_j(self, transmitting_s: PerUser) -> Tensor:
        """Energy of transmitting for `transmitting_s` [K]."""
        return self.tx_w * transmitting_s

    def local_j(self, flop: PerUser) -> Tensor:
        """Energy of `flop` [K] at the MUs."""
        return self.mu_j_per_flop * flop

    def station_j(self, flop: np.ndarray) -> np.ndarray:
        """Energy of `flop` [K], inference and training, at the base stations."""
        energy: np.ndarray = self.station_j_per_flop * flop
        return energy
