"""Movement of users in a rectangle. Every model starts from its stationary distribution, so nothing drifts."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.checked import checked
from dtsim.core.parts import part
from dtsim.physical.topology import Area

Shape = tuple[int, ...]
Device = torch.device | str


@dataclass(frozen=True, eq=False, kw_only=True)
class MobilityState:
    """Positions and speeds of K users, with any leading batch dimensions; subclasses add their own state."""

    position_m: Tensor
    """Positions in m, [..., K, 2], always inside the area."""
    speed_mps: Tensor
    """Speeds in m/s, [..., K]; 0 at rest."""


class Mobility(Protocol):
    """The interface of a class in conf/mobility. Draws depend only on the rng and the state.

    `state` always comes from the same model: a model with more state than `MobilityState` checks its type.
    """

    def start(
        self, shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device
    ) -> MobilityState:
        """Users at time 0; `shape` = batch dimensions + (K,)."""

    def advance(self, state: MobilityState, dt_s: float, area_m: Area, rng: torch.Generator) -> MobilityState:
        """A new state, `dt_s` after `state`, which this model returned."""


@part
class Static:
    """Users do not move; positions are uniform over the area. Their fading is constant within a frame."""

    def start(
        self, shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device
    ) -> MobilityState:
        """Uniform positions, speed 0."""
        position_m = _uniform_points(shape, area_m, rng, dtype, device)
        return MobilityState(position_m=position_m, speed_mps=torch.zeros(shape, dtype=dtype, device=device))

    def advance(self, state: MobilityState, dt_s: float, area_m: Area, rng: torch.Generator) -> MobilityState:
        """`state`, unchanged."""
        return state


@dataclass(frozen=True, eq=False, kw_only=True)
class WaypointState(MobilityState):
    """A user waits for `pause_s`, then walks straight to `target_m` at `trip_mps`."""

    target_m: Tensor
    """Destination in m, [..., K, 2]."""
    trip_mps: Tensor
    """[..., K]"""
    pause_s: Tensor
    """Remaining pause in s, [..., K]; 0 while walking."""


@part
class RandomWaypoint:
    """Walk to a uniformly drawn point at a uniformly drawn speed, pause for a uniformly drawn time, repeat.

    `start` samples the stationary distribution exactly (Navidi and Camp, IEEE Trans. Mobile Computing 3(1), 2004; Le
    Boudec and Vojnovic, INFOCOM 2005): the probability that a user is in a trip is proportional to the trip's
    duration, so trips are length-biased, speeds have density ~ 1/v and positions concentrate in the centre. With
    uniform initial points and speeds, users would gather and slow down for the length of several trips.
    """

    speed_min_mps: float = Field(default=0.5, ge=1e-3, le=1e4)
    """Lowest speed of a trip [m/s]."""
    speed_max_mps: float = Field(default=3.0, ge=1e-3, le=1e4)
    """Highest speed of a trip [m/s]."""
    pause_max_s: float = Field(default=10.0, ge=0, le=1e6)
    """Longest pause between two trips [s]; pauses are uniform from 0."""

    def __post_init__(self) -> None:
        if self.speed_min_mps > self.speed_max_mps:
            raise ValueError(f"speed_min_mps={self.speed_min_mps}: must be <= speed_max_mps={self.speed_max_mps}")

    def pause_probability(self, area_m: Area) -> float:
        """Stationary probability that a user pauses: E[pause] / (E[pause] + E[length] E[1/speed])."""
        low, high = self.speed_min_mps, self.speed_max_mps
        slowness = math.log(high / low) / (high - low) if high > low else 1 / low
        mean_pause_s = self.pause_max_s / 2
        return mean_pause_s / (mean_pause_s + _mean_distance(area_m) * slowness)

    def start(
        self, shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device
    ) -> WaypointState:
        """A draw from the stationary distribution."""
        pausing, along, biased, fair, residual = torch.rand(5, *shape, generator=rng, dtype=dtype, device=device)
        paused = pausing < self.pause_probability(area_m)
        origin_m, target_m = _length_biased_trips(shape, area_m, rng, dtype, device)
        # While walking: anywhere on the trip, speed density ~ 1/v. While pausing: the next trip is not drawn yet.
        ratio = self.speed_max_mps / self.speed_min_mps
        trip_mps = torch.where(paused, self._uniform_speed(fair), self.speed_min_mps * ratio**biased)
        underway_m = origin_m + along.unsqueeze(-1) * (target_m - origin_m)
        waypoint_m, next_m = _uniform_points((2, *shape), area_m, rng, dtype, device)
        at_rest = paused.unsqueeze(-1)
        pause_s = self.pause_max_s * (1 - (1 - residual).sqrt())  # residual life of a uniform pause
        return WaypointState(
            position_m=_within(torch.where(at_rest, waypoint_m, underway_m), area_m),
            speed_mps=torch.where(paused, 0, trip_mps),
            target_m=torch.where(at_rest, next_m, target_m),
            trip_mps=trip_mps,
            pause_s=torch.where(paused, pause_s, 0),
        )

    def advance(self, state: MobilityState, dt_s: float, area_m: Area, rng: torch.Generator) -> WaypointState:
        """Walk for `dt_s`, over as many waypoints as needed.

        The loop is over legs and ends when every user has used up the time. All users draw in each leg; only those that
        arrived use the draw.
        """
        own = checked(state, WaypointState, "state")
        position_m, target_m, trip_mps, pause_s = own.position_m, own.target_m, own.trip_mps, own.pause_s
        shape, dtype, device = trip_mps.shape, trip_mps.dtype, trip_mps.device
        left_s = torch.full_like(trip_mps, dt_s)
        while bool((left_s > 0).any()):
            waited_s = torch.minimum(pause_s, left_s)
            pause_s, left_s = pause_s - waited_s, left_s - waited_s
            gap_m = target_m - position_m
            trip_s = torch.linalg.vector_norm(gap_m, dim=-1) / trip_mps
            arrived = (trip_s <= left_s) & (left_s > 0)
            fraction = torch.where(trip_s > 0, left_s / trip_s, 0)
            position_m = torch.where(arrived.unsqueeze(-1), target_m, position_m + gap_m * fraction.unsqueeze(-1))
            left_s = torch.where(arrived, left_s - trip_s, 0)
            if not bool(arrived.any()):
                break
            speed, pause = torch.rand(2, *shape, generator=rng, dtype=dtype, device=device)
            fresh_m = _uniform_points(tuple(shape), area_m, rng, dtype, device)
            target_m = torch.where(arrived.unsqueeze(-1), fresh_m, target_m)
            trip_mps = torch.where(arrived, self._uniform_speed(speed), trip_mps)
            pause_s = torch.where(arrived, self.pause_max_s * pause, pause_s)
        return WaypointState(
            position_m=_within(position_m, area_m),
            speed_mps=torch.where(pause_s > 0, 0, trip_mps),
            target_m=target_m,
            trip_mps=trip_mps,
            pause_s=pause_s,
        )

    def _uniform_speed(self, uniform: Tensor) -> Tensor:
        return self.speed_min_mps + (self.speed_max_mps - self.speed_min_mps) * uniform


@dataclass(frozen=True, eq=False, kw_only=True)
class GaussMarkovState(MobilityState):
    """A user walks on the plane of mirror images of the area; `position_m` is its image inside the area."""

    unfolded_m: Tensor
    """Position on the plane relative to the area's corner, modulo twice the area, [..., K, 2]."""
    mean_heading_rad: Tensor
    """[..., K]"""
    heading_deviation_rad: Tensor
    """Heading minus its mean in rad, [..., K]."""
    speed_deviation_mps: Tensor
    """Speed minus its mean in m/s, [..., K]."""


@part
class GaussMarkov:
    """Speed and heading are first-order autoregressions about their means (Camp, Boleng and Davies 2002).

    Each user has its own mean heading. Borders reflect the walk and its means, so the uniform distribution of
    positions is stationary. A drawn speed below 0 counts as 0.
    """

    mean_speed_mps: float = Field(default=1.5, ge=0, le=1e4)
    """Mean speed [m/s]."""
    speed_std_mps: float = Field(default=0.5, ge=0, le=1e4)
    """Standard deviation of the speed [m/s]."""
    heading_std_rad: float = Field(default=0.8, ge=0, le=100)
    """Standard deviation of the heading about a user's own mean heading [rad]."""
    memory: float = Field(default=0.9, ge=0, le=1)
    """Correlation of speed and heading one step apart: 0 is no memory, 1 is no change."""
    step_s: float = Field(default=1.0, ge=1e-12, le=1e6)
    """Time between two changes of speed and heading [s]."""

    def start(
        self, shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device
    ) -> GaussMarkovState:
        """Uniform positions and mean headings, deviations from their stationary distribution."""
        corner, size = _corner_and_size(area_m, dtype, device)
        unfolded_m = _uniform_points(shape, area_m, rng, dtype, device) - corner
        mean_heading = 2 * math.pi * torch.rand(shape, generator=rng, dtype=dtype, device=device)
        speed, heading = torch.randn(2, *shape, generator=rng, dtype=dtype, device=device)
        speed_deviation = self.speed_std_mps * speed
        return GaussMarkovState(
            position_m=_within(_folded(unfolded_m, size) + corner, area_m),
            speed_mps=(self.mean_speed_mps + speed_deviation).clamp(min=0),
            unfolded_m=unfolded_m,
            mean_heading_rad=mean_heading,
            heading_deviation_rad=self.heading_std_rad * heading,
            speed_deviation_mps=speed_deviation,
        )

    def advance(self, state: MobilityState, dt_s: float, area_m: Area, rng: torch.Generator) -> GaussMarkovState:
        """Walk for `dt_s` in steps of `step_s`; a shorter last step uses memory ** (its length / step_s)."""
        own = checked(state, GaussMarkovState, "state")
        corner, size = _corner_and_size(area_m, own.unfolded_m.dtype, own.unfolded_m.device)
        unfolded_m, speed_deviation = own.unfolded_m, own.speed_deviation_mps
        heading_deviation = own.heading_deviation_rad
        steps = max(0, math.ceil(dt_s / self.step_s - 1e-9))  # 0.3 / 0.1 is three steps
        for step in range(steps):
            step_s = min(self.step_s, dt_s - step * self.step_s)
            heading = own.mean_heading_rad + heading_deviation
            direction = torch.stack((heading.cos(), heading.sin()), dim=-1)
            moved_m = (self.mean_speed_mps + speed_deviation).clamp(min=0) * step_s
            unfolded_m = (unfolded_m + moved_m.unsqueeze(-1) * direction).remainder(2 * size)
            kept = self.memory ** (step_s / self.step_s)
            fresh = math.sqrt(1 - kept**2)
            speed, turn = torch.randn(2, *heading.shape, generator=rng, dtype=heading.dtype, device=heading.device)
            speed_deviation = kept * speed_deviation + fresh * self.speed_std_mps * speed
            heading_deviation = kept * heading_deviation + fresh * self.heading_std_rad * turn
        return replace(
            own,
            position_m=_within(_folded(unfolded_m, size) + corner, area_m),
            speed_mps=(self.mean_speed_mps + speed_deviation).clamp(min=0),
            unfolded_m=unfolded_m,
            heading_deviation_rad=heading_deviation,
            speed_deviation_mps=speed_deviation,
        )


def _corner_and_size(area_m: Area, dtype: torch.dtype, device: Device) -> tuple[Tensor, Tensor]:
    """Lower left corner [2] and width and height [2] of the area."""
    x0, y0, x1, y1 = area_m
    corner, size = torch.tensor([[x0, y0], [x1 - x0, y1 - y0]], dtype=dtype, device=device)
    return corner, size


def _uniform_points(shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device) -> Tensor:
    """Points drawn uniformly over the area, `shape` + (2,)."""
    corner, size = _corner_and_size(area_m, dtype, device)
    return corner + size * torch.rand(*shape, 2, generator=rng, dtype=dtype, device=device)


def _within(position_m: Tensor, area_m: Area) -> Tensor:
    """Move points back into the area that rounding errors put outside."""
    x0, y0, x1, y1 = area_m
    low, high = position_m.new_tensor([x0, y0]), position_m.new_tensor([x1, y1])
    return position_m.clamp(low, high)


def _folded(unfolded_m: Tensor, size: Tensor) -> Tensor:
    """The image in [0, size] of a point in [0, 2 size), mirrored at `size`."""
    return size - (size - unfolded_m).abs()


def _length_biased_trips(
    shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device
) -> tuple[Tensor, Tensor]:
    """End points [..., 2] of trips whose density is proportional to their length, by rejection."""
    x0, y0, x1, y1 = area_m
    longest_m = math.hypot(x1 - x0, y1 - y0)
    origin_m, target_m = _uniform_points((2, *shape), area_m, rng, dtype, device)
    accepted = torch.zeros(shape, dtype=torch.bool, device=device)
    while True:
        length_m = torch.linalg.vector_norm(target_m - origin_m, dim=-1)
        accepted = accepted | (longest_m * torch.rand(shape, generator=rng, dtype=dtype, device=device) < length_m)
        if bool(accepted.all()):
            return origin_m, target_m
        fresh_origin_m, fresh_target_m = _uniform_points((2, *shape), area_m, rng, dtype, device)
        keep = accepted.unsqueeze(-1)
        origin_m = torch.where(keep, origin_m, fresh_origin_m)
        target_m = torch.where(keep, target_m, fresh_target_m)


def _mean_distance(area_m: Area) -> float:
    """Mean distance between two uniform points of a rectangle (Ghosh 1951); 0.5214 for the unit square."""
    x0, y0, x1, y1 = area_m
    a, b = x1 - x0, y1 - y0
    d = math.hypot(a, b)
    corners = a**3 / b**2 + b**3 / a**2 + d * (3 - a**2 / b**2 - b**2 / a**2)
    edges = b**2 / a * math.log((a + d) / b) + a**2 / b * math.log((b + d) / a)
    return (corners + 2.5 * edges) / 15
