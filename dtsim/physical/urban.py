"""Urban cells of 3GPP TR 38.901: a line-of-sight state that changes, two path losses, shadowing.

Not included from the standard: users indoors or in cars (O2I), users at 13 m or higher in UMa (with a random
environment height), the variation of the K-factor, and correlation between users: each link has its own large-scale
fading, which changes as its user moves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.checked import checked
from dtsim.core.parts import part
from dtsim.physical.channel import Links, Radio

ENVIRONMENT_HEIGHT_M = 1.0
"""h_E of Table 7.4.1-1, note 1: always in UMi, below 13 m of user height in UMa."""
NEAREST_M = 10.0
"""Smallest ground distance for which the path losses are valid; closer users have the path loss of this distance."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Coefficients of a scenario in Tables 7.4.1-1 (dB, per decade of m or GHz) and 7.4.2-1."""

    los_db: float
    los_distance: float
    los_beyond: float
    """Coefficient per decade of d_BP^2 + (h_BS - h_UT)^2, beyond the break point."""
    nlos_db: float
    nlos_distance: float
    nlos_frequency: float
    nlos_height: float
    """dB per m of user height above 1.5 m."""
    sight_m: float
    """Decay of the LOS probability."""


UMI = Scenario(
    los_db=32.4, los_distance=21, los_beyond=9.5,
    nlos_db=22.4, nlos_distance=35.3, nlos_frequency=21.3, nlos_height=0.3, sight_m=36,
)  # fmt: skip
UMA = Scenario(
    los_db=28.0, los_distance=22, los_beyond=9,
    nlos_db=13.54, nlos_distance=39.08, nlos_frequency=20, nlos_height=0.6, sight_m=63,
)  # fmt: skip


def los_probability(ground_m: Tensor, sight_m: float) -> Tensor:
    """Table 7.4.2-1, outdoors, users below 13 m: 1 up to 18 m, else 18/d + e^(-d/sight) (1 - 18/d)."""
    near = 18 / ground_m.clamp(min=18)
    return near + torch.exp(-ground_m / sight_m) * (1 - near)


def break_point_m(station_height_m: float, mu_height_m: float, frequency_hz: float) -> float:
    """d'_BP = 4 (h_BS - h_E) (h_UT - h_E) f / c of Table 7.4.1-1, note 1, which uses c = 3e8 m/s; m."""
    effective_m2 = (station_height_m - ENVIRONMENT_HEIGHT_M) * (mu_height_m - ENVIRONMENT_HEIGHT_M)
    return 4 * effective_m2 * frequency_hz / 3.0e8


def path_losses_db(
    scenario: Scenario, ground_m: Tensor, frequency_hz: float, station_height_m: float, mu_height_m: float
) -> tuple[Tensor, Tensor]:
    """Path loss with and without line of sight of Table 7.4.1-1, dB, each of the shape of `ground_m`."""
    rise_m, ghz_db = station_height_m - mu_height_m, math.log10(frequency_hz / 1e9)
    ground_m = ground_m.clamp(min=NEAREST_M)
    distance_db = torch.log10(torch.hypot(ground_m, torch.full_like(ground_m, rise_m)))
    far_m = break_point_m(station_height_m, mu_height_m, frequency_hz)
    near = scenario.los_distance * distance_db
    beyond = 40 * distance_db - scenario.los_beyond * math.log10(far_m**2 + rise_m**2)
    los = scenario.los_db + 20 * ghz_db + torch.where(ground_m <= far_m, near, beyond)
    nlos = scenario.nlos_db + scenario.nlos_distance * distance_db + scenario.nlos_frequency * ghz_db
    return los, torch.maximum(los, nlos - scenario.nlos_height * (mu_height_m - 1.5))


@dataclass(frozen=True, eq=False, kw_only=True)
class UrbanLinks(Links):
    """Links with large-scale fading."""

    los: Tensor
    """Line of sight, bool [..., M, K]."""
    shadowing_db: Tensor
    """Gain of the shadowing, dB, [..., M, K]."""
    hidden: Tensor
    """Unit normal processes of the LOS state and of the shadowing with and without LOS, [3, ..., M, K]."""


@part
class Urban(Radio):
    """Line of sight, path loss and shadowing of TR 38.901, with state that follows the users' movement.

    A link is in line of sight if Phi(z) < P_LOS(d), and its shadowing is sigma s dB. z and s are unit normal, with one
    s for each LOS state; between frames their correlation is exp(-moved / decorrelation distance) (Gudmundson 1991,
    Sections 7.4.4 and 7.6.3.3). So P_LOS and sigma match the standard at any time, and a user at rest keeps its links.
    """

    scenario: ClassVar[Scenario]

    frequency_hz: float = Field(default=3.5e9, ge=0.5e9, le=100e9)
    state_decorrelation_m: float = Field(default=50.0, gt=0, le=1e6)
    """Distance over which being in line of sight decorrelates to 1/e [m] (Table 7.6.3.1-2)."""

    station_height_m: float
    """Height of a base station's antenna [m]."""
    mu_height_m: float
    """Height of a user's antenna [m]."""
    los_shadowing_db: float
    """Standard deviation of the shadowing in line of sight [dB] (Table 7.4.1-1)."""
    nlos_shadowing_db: float
    """Standard deviation of the shadowing out of line of sight [dB] (Table 7.4.1-1)."""
    los_decorrelation_m: float
    """Distance over which the shadowing in line of sight decorrelates to 1/e [m] (Table 7.5-6)."""
    nlos_decorrelation_m: float
    """Distance over which the shadowing out of line of sight decorrelates to 1/e [m] (Table 7.5-6)."""

    def start(self, distance_m: Tensor, rng: torch.Generator) -> UrbanLinks:
        """Links at `distance_m` with new LOS states, shadowing and fading."""
        return self._links(distance_m, self._normal(distance_m, rng), rng)

    def next_frame(self, links: Links, distance_m: Tensor, moved_m: Tensor, rng: torch.Generator) -> UrbanLinks:
        """Links at `distance_m`: LOS and shadowing evolve over `moved_m` [..., K], fading is drawn anew."""
        apart_m = (self.state_decorrelation_m, self.los_decorrelation_m, self.nlos_decorrelation_m)
        lengths = torch.stack([moved_m / length_m for length_m in apart_m]).unsqueeze(-2)  # [3, ..., 1, K]
        fresh = self._normal(distance_m, rng)
        hidden = torch.exp(-lengths) * _own(links).hidden + (-torch.expm1(-2 * lengths)).sqrt() * fresh
        return self._links(distance_m, hidden, rng)

    def mean_gain(self, links: Links) -> Tensor:
        """Path gain in the link's LOS state times its shadowing, linear, [..., M, K]."""
        own = _own(links)
        los_db, nlos_db = path_losses_db(
            self.scenario, own.distance_m, self.frequency_hz, self.station_height_m, self.mu_height_m
        )
        gain: Tensor = 10 ** ((own.shadowing_db - torch.where(own.los, los_db, nlos_db)) / 10)
        return gain

    def line_of_sight(self, links: Links) -> Tensor:
        """Which links are in line of sight, bool [..., M, K]."""
        return _own(links).los

    def _links(self, distance_m: Tensor, hidden: Tensor, rng: torch.Generator) -> UrbanLinks:
        state, shadowed_los, shadowed_nlos = hidden
        los = torch.special.ndtr(state) < los_probability(distance_m, self.scenario.sight_m)
        return UrbanLinks(
            distance_m=distance_m,
            fading=self._drawn_fading(distance_m, rng),
            los=los,
            shadowing_db=torch.where(los, self.los_shadowing_db * shadowed_los, self.nlos_shadowing_db * shadowed_nlos),
            hidden=hidden,
        )

    def _normal(self, like: Tensor, rng: torch.Generator) -> Tensor:
        return torch.randn(3, *like.shape, dtype=like.dtype, device=like.device, generator=rng)


def _own(links: Links) -> UrbanLinks:
    return checked(links, UrbanLinks, "links")


@part
class UrbanMicro(Urban):
    """UMi street canyon: base stations below the roofs."""

    scenario: ClassVar[Scenario] = UMI

    station_height_m: float = Field(default=10.0, gt=1, le=150)
    mu_height_m: float = Field(default=1.5, ge=1.5, le=22.5)
    los_shadowing_db: float = Field(default=4.0, ge=0, le=30)
    nlos_shadowing_db: float = Field(default=7.82, ge=0, le=30)
    los_decorrelation_m: float = Field(default=10.0, gt=0, le=1e6)
    nlos_decorrelation_m: float = Field(default=13.0, gt=0, le=1e6)


@part
class UrbanMacro(Urban):
    """UMa: base stations above the roofs."""

    scenario: ClassVar[Scenario] = UMA

    station_height_m: float = Field(default=25.0, gt=1, le=150)
    mu_height_m: float = Field(default=1.5, ge=1.5, lt=13)
    los_shadowing_db: float = Field(default=4.0, ge=0, le=30)
    nlos_shadowing_db: float = Field(default=6.0, ge=0, le=30)
    los_decorrelation_m: float = Field(default=37.0, gt=0, le=1e6)
    nlos_decorrelation_m: float = Field(default=50.0, gt=0, le=1e6)
