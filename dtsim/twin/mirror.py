"""The twin's copy of the network. A learned allocator is trained on it and never sees the evaluated world."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dtsim.allocation.problem import AllocationProblem, Frames
from dtsim.core.parts import ConfigError
from dtsim.learning.models import ModelCost
from dtsim.learning.training import Retraining
from dtsim.physical import delay
from dtsim.physical.channel import Radio
from dtsim.physical.fading import jakes_correlation
from dtsim.physical.network import Network, NetworkState
from dtsim.physical.traffic import Traffic

_CAPTURES = 4096
"""Number of draws that represent the distribution of an MU's data in frames."""


@dataclass(frozen=True)
class Mirror:
    """Slots like those of the evaluated network: same physics, other random numbers.

    Each slot is a separate network, with MUs at the stationary distribution of their motion. Associations imitate
    solvers of P2: longest processing time first for most slots, the strongest BS for some. Each slot retrains a random
    share of its MUs, up to `retraining_share`, with updates between a tenth of `retraining.samples` and all of them,
    charged to one slot or to a frame.
    """

    network: Network
    traffic: Traffic
    cost: ModelCost
    retraining: Retraining
    slots_per_frame: int
    config: Mapping[str, object]
    """The configuration groups that determine the slots, for the digest."""
    retraining_share: float = 0.8
    strongest_share: float = 0.2

    def description(self) -> dict[str, object]:
        """All values that determine the slots' distribution."""
        return {
            **self.config,
            "forward_flop": self.cost.forward_flop,
            "update_flop": self._update_flop,
            "sample_bytes": self.cost.sample_bytes,
            "slots_per_frame": self.slots_per_frame,
            "retraining_share": self.retraining_share,
            "strongest_share": self.strongest_share,
        }

    def sample(self, slots: int, users: int, rng: torch.Generator) -> AllocationProblem:
        """`slots` independent slots of `users` MUs, [slots, users], float32."""
        network = self.network
        state = network.start((slots,), users, rng, rng)
        captured = self._captured_bytes((slots, users), rng)
        retrain_flop = self._retrain_flop(slots, users, rng)
        station = self._associated(state, captured, retrain_flop, rng)
        return AllocationProblem(
            captured_bytes=captured,
            rate_bps=delay.at_station(network.rate_bps(state), station),
            retrain_flop=retrain_flop,
            station=station,
            station_flops=self._station_flops,
            mu_flops=network.topology.mu_flops,
            flop_per_byte=self.cost.flop_per_byte,
            downlink_s=network.channel.downlink_s,
        )

    def frames(self, networks: int, users: int, rng: torch.Generator) -> Frames:
        """`networks` independent networks of `users` MUs, associated by the mean traffic, float32.

        Raises:
            ConfigError: unless the fading is Rayleigh or none, since frames support no other.
        """
        network, channel = self.network, self.network.channel
        if not isinstance(channel, Radio):
            raise ConfigError([f"channel={type(channel).__name__}: frames of slots need a built-in channel"])
        if channel.fading == "rician":
            raise ConfigError([f"channel.fading={channel.fading}: frames of slots need rayleigh or none"])
        state = network.start((networks,), users, rng, rng)
        retrain_flop = self._retrain_flop(networks, users, rng)
        mean_bytes = self.traffic.mean_images * self.cost.sample_bytes
        expected = torch.full_like(retrain_flop, mean_bytes)
        station = self._associated(state, expected, retrain_flop, rng)
        snr = channel.snr(network.mean_gain(state))
        return Frames(
            station=station,
            retrain_flop=retrain_flop,
            snr=delay.at_station(snr, station),
            correlation=jakes_correlation(state.mobility.speed_mps, channel.frequency_hz, network.slot_s),
            captured_bytes=self._captured_bytes((_CAPTURES,), rng),
            station_flops=self._station_flops,
            mu_flops=network.topology.mu_flops,
            flop_per_byte=self.cost.flop_per_byte,
            downlink_s=channel.downlink_s,
            bandwidth_hz=channel.bandwidth_hz,
            fades=channel.fading != "none",
        )

    @property
    def _station_flops(self) -> Tensor:
        network = self.network
        return network.topology.station_flops.to(device=network.device, dtype=network.dtype)

    def _captured_bytes(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        images = self.traffic.draw(shape, rng, self.network.device)
        return images.to(self.network.dtype) * self.cost.sample_bytes

    def _associated(
        self, state: NetworkState, captured_bytes: Tensor, retrain_flop: Tensor, rng: torch.Generator
    ) -> Tensor:
        """The BS of every MU, int64 [B, K]."""
        work_flop = self.cost.flop_per_byte * captured_bytes + retrain_flop
        upload_s = 8 * captured_bytes.unsqueeze(-2) / self.network.forecast_rate_bps(state)
        balanced = longest_first(work_flop, upload_s, self._station_flops)
        strongest = self.network.mean_gain(state).argmax(dim=-2)
        by_strength = self._uniform((len(work_flop), 1), rng) < self.strongest_share
        return torch.where(by_strength, strongest, balanced)

    def _retrain_flop(self, slots: int, users: int, rng: torch.Generator) -> Tensor:
        retrains = self._uniform((slots, users), rng) < self.retraining_share * self._uniform((slots, 1), rng)
        filled = 0.1 + 0.9 * self._uniform((slots, users), rng)
        per_slot = self._uniform((slots, 1), rng) < 0.25
        window = torch.where(per_slot, 1.0, float(self.slots_per_frame))
        return retrains * self._update_flop * filled / window

    @property
    def _update_flop(self) -> float:
        """Most work that an update with all of `retraining.samples` is charged, FLOP."""
        samples = self.retraining.samples
        mixes = ((samples, 0), (0, samples))  # all of them real, or all generated
        return max(self.retraining.update_flop(self.cost, *mix, from_scratch=False) for mix in mixes)

    def _uniform(self, shape: tuple[int, ...], rng: torch.Generator) -> Tensor:
        network = self.network
        return torch.rand(shape, generator=rng, dtype=network.dtype, device=network.device)


def longest_first(work_flop: Tensor, upload_s: Tensor, station_flops: Tensor) -> Tensor:
    """Serve the heaviest MU first, each at the BS that would then finish earliest.

    Args:
        work_flop: [B, K].
        upload_s: to every BS; [B, M, K].
        station_flops: [M].

    Returns:
        The BS of every MU; int64 [B, K].
    """
    order = work_flop.argsort(dim=-1, descending=True)
    load_s = upload_s.new_zeros(upload_s.shape[:-1])  # [B, M]
    longest_upload_s = load_s.clone()
    station = torch.empty_like(order)
    for users in order.unbind(dim=-1):  # one MU of every slot at a time; the batch dimension is slots
        users = users.unsqueeze(-1)
        own_upload_s = upload_s.gather(-1, users.unsqueeze(-2).expand(-1, upload_s.shape[-2], -1)).squeeze(-1)
        then_load_s = load_s + work_flop.gather(-1, users) / station_flops
        then_upload_s = torch.maximum(longest_upload_s, own_upload_s)
        chosen = (then_load_s + then_upload_s).argmin(dim=-1, keepdim=True)
        load_s.scatter_(-1, chosen, then_load_s.gather(-1, chosen))
        longest_upload_s.scatter_(-1, chosen, then_upload_s.gather(-1, chosen))
        station.scatter_(-1, users, chosen)
    return station
