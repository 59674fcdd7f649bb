"""The radio between users and base stations: path loss, fading, SNR (1) and rate (2)."""

from __future__ import annotations

import math
from typing import Literal, Protocol

import torch
from pydantic import Field
from torch import Tensor

from dtsim.parts import part

SPEED_OF_LIGHT_MPS = 299_792_458.0


def free_space_path_loss_db(distance_m: Tensor, frequency_hz: float) -> Tensor:
    """Free-space path loss 20 log10(4 pi d / lambda) in dB, same shape as `distance_m`.

    Never below 0 dB, as in MATLAB's fspl: closer than lambda / 4 pi the far-field formula would be a gain.
    """
    in_wavelengths = distance_m * (4 * math.pi * frequency_hz / SPEED_OF_LIGHT_MPS)
    return 20 * torch.log10(in_wavelengths.clamp(min=1))


def jakes_correlation(speed_mps: Tensor, frequency_hz: float, slot_s: float) -> Tensor:
    """Correlation J0(2 pi f_D slot) of Rayleigh fading one slot apart (Clarke/Jakes), f_D = v f / c.

    Same shape as `speed_mps`; in [-0.403, 1], so it may be negative.
    """
    phase_per_mps = 2 * math.pi * frequency_hz / SPEED_OF_LIGHT_MPS * slot_s
    return torch.special.bessel_j0(speed_mps * phase_per_mps)


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


class Channel(Protocol):
    """What a class named in conf/channel must offer. M base stations, K users, any batch dimensions in front.

    `fading` is whatever complex coefficient h the class keeps per link: nothing else reads it.
    """

    @property
    def downlink_s(self) -> float:
        """Fixed delay D_down / R_down of returning a result to the user, in s."""

    def start_fading(self, speed_mps: Tensor, stations: int, generator: torch.Generator) -> Tensor:
        """Coefficients h [..., M, K], complex, from their stationary law; `speed_mps` [..., K] gives K."""

    def step_fading(self, fading: Tensor, speed_mps: Tensor, slot_s: float, generator: torch.Generator) -> Tensor:
        """The coefficients one slot later, a new tensor."""

    def gain(self, distance_m: Tensor, fading: Tensor) -> Tensor:
        """Power gain g, linear, [..., M, K]."""

    def mean_gain(self, distance_m: Tensor) -> Tensor:
        """Expected power gain at `distance_m` [..., M, K]: what the twin forecasts with."""

    def snr(self, gain: Tensor) -> Tensor:
        """Linear signal-to-noise ratio, eq. (1)."""

    def rate_bps(self, gain: Tensor) -> Tensor:
        """Uplink rate in bit/s, eq. (2)."""


@part
class FreeSpace:
    """Free-space path loss and Rayleigh fading that is correlated in time.

    Fading is the first-order autoregression h' = rho h + sqrt(1 - rho^2) w with rho = J0(2 pi f_D slot) per
    user and w circular normal, so E|h|^2 stays 1. rho keeps its sign: a negative one-step correlation is a
    legitimate AR(1). Only lag one follows Jakes; at lag l this process has rho^l. A user at rest keeps its
    coefficient.
    """

    frequency_hz: float = Field(default=3.5e9, gt=0)
    """Carrier frequency in Hz."""
    bandwidth_hz: float = Field(default=20.0e6, gt=0)
    """Uplink bandwidth of one user in Hz."""
    tx_dbm: float = Field(default=-10.0, ge=-200, le=100)
    """Transmit power of a user in dBm."""
    noise_dbm: float = Field(default=-100.0, ge=-200, le=100)
    """Noise power within the bandwidth in dBm."""
    fading: Literal["rayleigh", "none"] = "rayleigh"
    """Small-scale fading."""
    result_bytes: float = Field(default=100.0, ge=0)
    """Size of the result that a base station returns, in byte."""
    downlink_bps: float = Field(default=100.0e6, gt=0)
    """Fixed downlink rate in bit/s."""

    @property
    def downlink_s(self) -> float:
        """Fixed delay D_down / R_down of returning a result, in s; the last term of eq. (3)."""
        return 8 * self.result_bytes / self.downlink_bps

    def start_fading(self, speed_mps: Tensor, stations: int, generator: torch.Generator) -> Tensor:
        """h ~ CN(0, 1) [..., M, K] in the precision of `speed_mps` [..., K]; without fading ones, no draw."""
        shape = (*speed_mps.shape[:-1], stations, speed_mps.shape[-1])
        if self.fading == "none":
            return torch.ones(shape, dtype=speed_mps.dtype.to_complex(), device=speed_mps.device)
        return _circular_normal(shape, speed_mps.dtype, speed_mps.device, generator)

    def step_fading(self, fading: Tensor, speed_mps: Tensor, slot_s: float, generator: torch.Generator) -> Tensor:
        """h one slot later, [..., M, K]; `fading` itself and no draw without fading."""
        if self.fading == "none":
            return fading
        rho = jakes_correlation(speed_mps, self.frequency_hz, slot_s).unsqueeze(-2)  # [..., 1, K]
        fresh = _circular_normal(tuple(fading.shape), speed_mps.dtype, speed_mps.device, generator)
        return rho * fading + (1 - rho.square()).clamp(min=0).sqrt() * fresh

    def gain(self, distance_m: Tensor, fading: Tensor) -> Tensor:
        """Path gain times |h|^2, linear, [..., M, K]."""
        return self.mean_gain(distance_m) * (fading.real.square() + fading.imag.square())

    def mean_gain(self, distance_m: Tensor) -> Tensor:
        """Path gain alone, linear, same shape as `distance_m`."""
        return 10 ** (-free_space_path_loss_db(distance_m, self.frequency_hz) / 10)

    def snr(self, gain: Tensor) -> Tensor:
        """Linear signal-to-noise ratio, eq. (1)."""
        return snr(gain, dbm_to_w(self.tx_dbm), dbm_to_w(self.noise_dbm))

    def rate_bps(self, gain: Tensor) -> Tensor:
        """Uplink rate in bit/s, eq. (2)."""
        return rate_bps(self.snr(gain), self.bandwidth_hz)


def _circular_normal(
    shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, generator: torch.Generator
) -> Tensor:
    """CN(0, 1): real and imaginary part are independent with variance 1/2."""
    parts = torch.randn(*shape, 2, dtype=dtype, device=device, generator=generator)
    return torch.view_as_complex(parts * math.sqrt(0.5))
