"""Energy of transmission and of compute, where time passes."""

from __future__ import annotations

from pydantic import Field

from dtsim.core.parts import part
from dtsim.physical.channel import Channel, dbm_to_w


@part
class Energy:
    """The keys of `conf/energy`."""

    kappa: float = Field(default=1e-28, ge=0, le=1)
    """Switched capacitance κ of an MU's processor: a cycle at f Hz takes κ f² J (Burd and Brodersen 1996), and a FLOP
    counts as a cycle; 1e-28 is that of Mao, Zhang and Letaief 2016 [J/(cycle Hz²)]."""
    mu_j_per_flop: float | None = Field(default=None, ge=0, le=1)
    """Energy of an MU's compute [J/FLOP]; null: κ f²."""
    station_j_per_flop: float = Field(default=2e-11, ge=0, le=1)
    """Energy of a base station's compute [J/FLOP]; 2e-11 is twice what a GPU of 8.1 TFLOP/s and 70 W takes at its
    peak."""
    tx_w: float | None = Field(default=None, ge=0, le=1e6)
    """Power of an MU while it transmits [W]; null: the channel's transmit power."""
    weight_s_per_j: float = Field(default=0.0, ge=0, le=1e9)
    """Delay that a joule is worth [s/J]: the cost of a task is its delay plus this times its energy."""

    def of_flop(self, mu_flops: float) -> float:
        """Energy of an MU's compute at `mu_flops` FLOP/s, in J/FLOP."""
        return self.kappa * mu_flops**2 if self.mu_j_per_flop is None else self.mu_j_per_flop

    def transmit_w(self, channel: Channel) -> float:
        """Power of a transmitting MU, in W; 0 where neither a key nor the channel says it."""
        if self.tx_w is not None:
            return self.tx_w
        dbm = getattr(channel, "tx_dbm", None)  # a user-defined class need not have one
        return 0.0 if dbm is None else dbm_to_w(float(dbm))
