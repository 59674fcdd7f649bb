"""The network over time: users move between frames, fading changes between slots."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from dtsim.physical.channel import Channel, Links, to_db
from dtsim.physical.mobility import Mobility, MobilityState
from dtsim.physical.topology import Topology


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkState:
    """K users and their links to M base stations in one slot, with any leading batch dimensions."""

    mobility: MobilityState
    links: Links
    """State of the channel, of the channel's own subclass."""
    gain: Tensor
    """Linear power gain g, [..., M, K]."""

    @property
    def position_m(self) -> Tensor:
        """Positions of the users in m, [..., K, 2]."""
        return self.mobility.position_m

    @property
    def distance_m(self) -> Tensor:
        """Distances of the links in m, [..., M, K]."""
        return self.links.distance_m


@dataclass(frozen=True, eq=False, kw_only=True)
class Network:
    """Topology, mobility and channel on two clocks; a run has batch (), a training environment thousands.

    The caller passes the generators `motion` and `fading`, which must be on `device`. Decisions never draw from them,
    so equal seeds give equal worlds.
    """

    topology: Topology
    mobility: Mobility
    channel: Channel
    slot_s: float
    """Length of a slot in s: the time step of fading."""
    frame_spacing_s: float
    """Time between two frames in s: the time step of motion."""
    dtype: torch.dtype = torch.float64
    device: torch.device | str = "cpu"

    def start(
        self, batch: tuple[int, ...], users: int, motion: torch.Generator, fading: torch.Generator
    ) -> NetworkState:
        """First slot of the first frame, for `batch` independent networks of `users` users."""
        area_m = self.topology.area_m
        mobility = self.mobility.start((*batch, users), area_m, motion, self.dtype, self.device)
        links = self.channel.start(self._distance_m(mobility), fading)
        return NetworkState(mobility=mobility, links=links, gain=self.channel.gain(links))

    def next_frame(self, state: NetworkState, motion: torch.Generator, fading: torch.Generator) -> NetworkState:
        """First slot of the next frame: users have moved, and the links have changed."""
        mobility = self.mobility.advance(state.mobility, self.frame_spacing_s, self.topology.area_m, motion)
        links = self._links_after(state, mobility, fading)
        return NetworkState(mobility=mobility, links=links, gain=self.channel.gain(links))

    def next_slot(self, state: NetworkState, fading: torch.Generator) -> NetworkState:
        """Next slot of the same frame: positions are fixed, fading moves on by one slot."""
        links = self.channel.next_slot(state.links, state.mobility.speed_mps, self.slot_s, fading)
        return replace(state, links=links, gain=self.channel.gain(links))

    def moved(self, state: NetworkState, mobility: MobilityState, fading: torch.Generator) -> NetworkState:
        """The next slot where time passes: users are now at `mobility`, and fading moves on by one slot."""
        # A frame draws fading anew, a slot goes on with it.
        links = replace(self._links_after(state, mobility, fading), fading=state.links.fading)
        links = self.channel.next_slot(links, mobility.speed_mps, self.slot_s, fading)
        return NetworkState(mobility=mobility, links=links, gain=self.channel.gain(links))

    def mean_gain(self, state: NetworkState) -> Tensor:
        """Gain averaged over small-scale fading, linear, [..., M, K]."""
        return self.channel.mean_gain(state.links)

    def snr_db(self, state: NetworkState) -> Tensor:
        """SNR of every link in dB, eq. (1), [..., M, K]."""
        return to_db(self.channel.snr(state.gain))

    def rate_bps(self, state: NetworkState) -> Tensor:
        """Uplink rate of every link in bit/s, eq. (2), [..., M, K]."""
        return self.channel.rate_bps(state.gain)

    def forecast_rate_bps(self, state: NetworkState) -> Tensor:
        """Rate at the mean gain in bit/s, [..., M, K]: the twin's forecast, which does not know the slots' fading."""
        return self.channel.rate_bps(self.mean_gain(state))

    def _links_after(self, state: NetworkState, mobility: MobilityState, fading: torch.Generator) -> Links:
        """The links after users moved from `state` to `mobility`, with new fading."""
        moved_m = torch.linalg.vector_norm(mobility.position_m - state.position_m, dim=-1)  # [..., K]
        return self.channel.next_frame(state.links, self._distance_m(mobility), moved_m, fading)

    def _distance_m(self, mobility: MobilityState) -> Tensor:
        stations_m = self.topology.stations_m.to(device=self.device, dtype=self.dtype)
        apart_m = stations_m.unsqueeze(-2) - mobility.position_m.unsqueeze(-3)  # [..., M, K, 2]
        distance_m: Tensor = torch.linalg.vector_norm(apart_m, dim=-1)
        return distance_m
