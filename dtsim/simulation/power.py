"""What transmission and compute take of energy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Power:
    """The energy of a run's equipment."""

    tx_w: float
    """Power of a transmitting MU, W."""
    mu_j_per_flop: float
    """Energy of an MU's compute, J/FLOP."""
    station_j_per_flop: float
    """Energy of a base station's compute, J/FLOP."""
    weight_s_per_j: float
    """Delay that a joule is worth, s/J."""

    @property
    def prices(self) -> dict[str, float]:
        """The same for an allocator, by the name of its field."""
        return vars(self).copy()
