"""The radio between users and base stations: path loss, gain, SNR (1) and rate (2)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import part
from dtsim.physical.fading import SPEED_OF_LIGHT_MPS, circular_normal, jakes_correlation, rician


def free_space_path_loss_db(distance_m: Tensor, frequency_hz: float) -> Tensor:
    """Free-space path loss 20 log10(4 pi d / lambda) in dB, same shape as `distance_m`.

    At least 0 dB, as in MATLAB's fspl: closer than lambda / 4 pi the far-field formula would give a gain.
    """
    in_wavelengths = distance_m * (4 * math.pi * frequency_hz / SPEED_OF_LIGHT_MPS)
    return 20 * torch.log10(in_wavelengths.clamp(min=1))


def snr(gain: Tensor, tx_w: float, noise_w: float) -> Tensor:
    """Signal-to-noise ratio p g / sigma^2, linear, eq. (1). Same shape as `gain`."""
    return gain * (tx_w / noise_w)


def rate_bps(snr_linear: Tensor, bandwidth_hz: float) -> Tensor:
    """Uplink rate B log2(1 + SNR) in bit/s, eq. (2). Same shape as `snr_linear`."""
    return torch.log1p(snr_linear) * (bandwidth_hz / math.log(2))


def to_db(linear: Tensor) -> Tensor:
    """A power ratio in dB."""
    return 10 * torch.log10(linear)


def dbm_to_w(dbm: float) -> float:
    """A power in W."""
    return 10 ** (dbm / 10 - 3)


@dataclass(frozen=True, eq=False, kw_only=True)
class Links:
    """Every link in one slot; M base stations, K users, any leading batch dimensions. Subclasses add state."""

    distance_m: Tensor
    """Horizontal distance in m, [..., M, K]."""
    fading: Tensor
    """Scattered part of the small-scale fading, complex [..., M, K], of unit mean power."""


class Channel(Protocol):
    """The interface of a class in conf/channel.

    `links` always comes from the same channel: a channel with more state than `Links` checks its type.
    """

    @property
    def downlink_s(self) -> float:
        """Fixed delay D_down / R_down of returning a result to the user, in s."""

    def start(self, distance_m: Tensor, rng: torch.Generator) -> Links:
        """Links at `distance_m` [..., M, K], drawn from their stationary distribution, in its dtype."""

    def next_frame(self, links: Links, distance_m: Tensor, moved_m: Tensor, rng: torch.Generator) -> Links:
        """The links after users moved by `moved_m` [..., K]; they are now at `distance_m`."""

    def next_slot(self, links: Links, speed_mps: Tensor, slot_s: float, rng: torch.Generator) -> Links:
        """The links one slot later: positions are unchanged, fading changes."""

    def gain(self, links: Links) -> Tensor:
        """Power gain g, linear, [..., M, K]."""

    def mean_gain(self, links: Links) -> Tensor:
        """Gain averaged over small-scale fading, [..., M, K]; the twin measures it over a frame for its forecast."""

    def snr(self, gain: Tensor) -> Tensor:
        """Linear signal-to-noise ratio, eq. (1)."""

    def rate_bps(self, gain: Tensor) -> Tensor:
        """Uplink rate in bit/s, eq. (2)."""


@part
class Radio(ABC):
    """Link budget and small-scale fading, shared by all channels here; they differ in `mean_gain`.

    Fading is the first-order autoregression h' = rho h + sqrt(1 - rho^2) w with rho = J0(2 pi f_D slot) per
    user and w circular normal, so E|h|^2 stays 1. rho keeps its sign: a negative one-step correlation is a
    valid AR(1). Only lag one follows Jakes; at lag l this process has rho^l. A user at rest keeps its
    coefficient. Each frame draws new fading, since frames are many coherence times apart.
    """

    frequency_hz: float = Field(default=3.5e9, ge=1e6, le=1e15)
    """Carrier frequency [Hz]."""
    bandwidth_hz: float = Field(default=20.0e6, ge=1, le=1e12)
    """Uplink bandwidth of one user [Hz]; users do not interfere (OFDM)."""
    tx_dbm: float = Field(default=-10.0, ge=-200, le=100)
    """Transmit power of a user [dBm]."""
    noise_dbm: float = Field(default=-100.0, ge=-200, le=100)
    """Noise power within the bandwidth [dBm]."""
    fading: Literal["rayleigh", "rician", "none"] = "rayleigh"
    """Small-scale fading; rician: of links in line of sight (all, in free space), others are Rayleigh."""
    rician_k_db: float = Field(default=9.0, ge=-100, le=100)
    """Power of the direct path over that of the scattered ones [dB], where fading is rician."""
    result_bytes: float = Field(default=100.0, ge=0, le=1e12)
    """Size of the result that a base station returns [byte]."""
    downlink_bps: float = Field(default=100.0e6, ge=1, le=1e15)
    """Fixed downlink rate [bit/s]."""

    @abstractmethod
    def start(self, distance_m: Tensor, rng: torch.Generator) -> Links:
        """The links of the first slot."""

    @abstractmethod
    def next_frame(self, links: Links, distance_m: Tensor, moved_m: Tensor, rng: torch.Generator) -> Links:
        """The links of the next frame."""

    @abstractmethod
    def mean_gain(self, links: Links) -> Tensor:
        """Gain averaged over small-scale fading, linear, [..., M, K]."""

    @abstractmethod
    def line_of_sight(self, links: Links) -> Tensor:
        """Which links have a direct path, bool [..., M, K]."""

    @property
    def downlink_s(self) -> float:
        """Fixed delay D_down / R_down of returning a result, in s; the last term of eq. (3)."""
        return 8 * self.result_bytes / self.downlink_bps

    def next_slot(self, links: Links, speed_mps: Tensor, slot_s: float, rng: torch.Generator) -> Links:
        """The links with h one slot later; without fading, `links` itself and no random draw."""
        if self.fading == "none":
            return links
        h = links.fading
        rho = jakes_correlation(speed_mps, self.frequency_hz, slot_s).unsqueeze(-2)  # [..., 1, K]
        fresh = circular_normal(tuple(h.shape), speed_mps.dtype, speed_mps.device, rng)
        return replace(links, fading=rho * h + (1 - rho.square()).clamp(min=0).sqrt() * fresh)

    def gain(self, links: Links) -> Tensor:
        """Mean gain times |h|^2, linear, [..., M, K]."""
        h = links.fading
        if self.fading == "rician":
            h = rician(h, self.line_of_sight(links) * 10 ** (self.rician_k_db / 10))
        return self.mean_gain(links) * (h.real.square() + h.imag.square())

    def snr(self, gain: Tensor) -> Tensor:
        """Linear signal-to-noise ratio, eq. (1)."""
        return snr(gain, dbm_to_w(self.tx_dbm), dbm_to_w(self.noise_dbm))

    def rate_bps(self, gain: Tensor) -> Tensor:
        """Uplink rate in bit/s, eq. (2)."""
        return rate_bps(self.snr(gain), self.bandwidth_hz)

    def _drawn_fading(self, distance_m: Tensor, rng: torch.Generator) -> Tensor:
        """h ~ CN(0, 1) [..., M, K] in the dtype of `distance_m`; without fading all ones and no random draw."""
        shape, dtype, device = tuple(distance_m.shape), distance_m.dtype, distance_m.device
        if self.fading == "none":
            return torch.ones(shape, dtype=dtype.to_complex(), device=device)
        return circular_normal(shape, dtype, device, rng)


@part
class FreeSpace(Radio):
    """Free-space path loss: every link is in line of sight, without shadowing."""

    def start(self, distance_m: Tensor, rng: torch.Generator) -> Links:
        """Links at `distance_m` with new fading."""
        return Links(distance_m=distance_m, fading=self._drawn_fading(distance_m, rng))

    def next_frame(self, links: Links, distance_m: Tensor, moved_m: Tensor, rng: torch.Generator) -> Links:
        """Links at `distance_m` with new fading."""
        return Links(distance_m=distance_m, fading=self._drawn_fading(distance_m, rng))

    def mean_gain(self, links: Links) -> Tensor:
        """Path gain, linear, [..., M, K]."""
        gain: Tensor = 10 ** (-free_space_path_loss_db(links.distance_m, self.frequency_hz) / 10)
        return gain

    def line_of_sight(self, links: Links) -> Tensor:
        """True for all links, bool [..., M, K]."""
        return torch.ones_like(links.distance_m, dtype=torch.bool)
