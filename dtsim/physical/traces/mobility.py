"""Users that move as a recorded or simulated trace says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.checked import checked
from dtsim.core.parts import part
from dtsim.physical.mobility import Device, MobilityState, Shape
from dtsim.physical.topology import Area
from dtsim.physical.traces.places import check_origin
from dtsim.physical.traces.vehicles import Vehicles, read_vehicles


@dataclass(frozen=True, eq=False, kw_only=True)
class TraceState(MobilityState):
    """Users on a trace."""

    vehicle: np.ndarray
    """Which vehicle each user is; int64 [..., K]."""
    time_s: np.ndarray
    """Time in the trace; [..., K]."""
    taken: np.ndarray
    """Vehicles that some user is or was; bool [V]."""


@part
class Trace:
    """Users follow the vehicles or people of a file, which move evenly between the times that it gives.

    User k is the vehicle that stays k-th longest from `start_s` on, so that a run of fewer users has the same first
    ones. Training slots of learned allocators take users at random times of the trace.
    """

    path: str
    """File of positions [path]: SUMO's floating-car data (fcd, as XML, CSV or Parquet), or a table with columns time
    (s), user and x, y (m) or lat, lon (degrees)."""
    origin: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Latitude and longitude of x = y = 0 [degree], where the file has lat and lon; topology.origin must be the
    same."""
    start_s: float | None = None
    """Time in the trace at which the run starts [s]; null: its first."""
    absent: Literal["wait", "replace", "refuse"] = "wait"
    """Users that enter late or leave early: they `wait` where they enter or left; a user that left is `replace`d by the
    next vehicle that is on its way, and keeps its model; or `refuse` the run."""

    def __post_init__(self) -> None:
        check_origin(self.origin)
        try:
            vehicles = self._vehicles
        except ValueError as error:
            raise ValueError(f"path={error}") from None
        begin, end = vehicles.time_s.min(), vehicles.time_s.max()
        if self.start_s is not None and not begin <= self.start_s <= end:
            raise ValueError(f"start_s={self.start_s}: must be from {begin:g} to {end:g}, the times of {self.path}")

    @property
    def _vehicles(self) -> Vehicles:
        return read_vehicles(self.path, self.origin)

    @property
    def _start_s(self) -> float:
        return float(self._vehicles.time_s.min()) if self.start_s is None else self.start_s

    def check_fits(self, *, users: int, seconds: float, area_m: Area) -> None:
        """Check that the trace has enough users for a run, lasts long enough and stays in its area.

        Raises:
            ValueError: in one line.
        """
        vehicles, begin = self._vehicles, self._start_s
        end = begin + seconds
        last = vehicles.time_s.max()
        if end > last:
            raise ValueError(
                f"path={self.path}: ends at {last:g} s, the run lasts until {end:g} s "
                "(frames, time.frame_spacing_s, mobility.start_s)"
            )
        there = np.flatnonzero(vehicles.leaves_s > begin)
        if len(there) < users:
            raise ValueError(f"path={self.path}: has {len(there)} users after {begin:g} s, must have mu={users}")
        if self.absent == "refuse":
            chosen = self._longest()[:users]
            away = np.flatnonzero((vehicles.enters_s[chosen] > begin) | (vehicles.leaves_s[chosen] < end))
            if len(away):
                one = chosen[away[0]]
                raise ValueError(
                    f"absent=refuse: user {vehicles.names[one]} is there from {vehicles.enters_s[one]:g} to "
                    f"{vehicles.leaves_s[one]:g} s only, the run lasts from {begin:g} to {end:g} s"
                )
        low, high = vehicles.place_m.min(axis=0), vehicles.place_m.max(axis=0)
        x0, y0, x1, y1 = area_m
        if low[0] < x0 or low[1] < y0 or high[0] > x1 or high[1] > y1:
            raise ValueError(
                f"path={self.path}: reaches from ({low[0]:.1f}, {low[1]:.1f}) to ({high[0]:.1f}, {high[1]:.1f}) m, the "
                f"area from ({x0:.1f}, {y0:.1f}) to ({x1:.1f}, {y1:.1f}) m must contain it (topology.area_m, margin_m)"
            )

    def start(self, shape: Shape, area_m: Area, rng: torch.Generator, dtype: torch.dtype, device: Device) -> TraceState:
        """The users at `start_s`; with batch dimensions, vehicles at random times at which they are there."""
        vehicles = self._vehicles
        taken = np.zeros(len(vehicles.names), dtype=bool)
        if len(shape) == 1:
            vehicle = self._longest()[: shape[0]]
            taken[vehicle] = True
            time_s = np.full(shape, self._start_s)
        else:
            drawn = torch.randint(len(vehicles.time_s), shape, generator=rng, device=rng.device).cpu().numpy()
            vehicle = np.searchsorted(vehicles.first, drawn, side="right") - 1
            time_s = vehicles.time_s[drawn]
        return self._state(vehicle, time_s, taken, dtype, device)

    def advance(self, state: MobilityState, dt_s: float, area_m: Area, rng: torch.Generator) -> TraceState:
        """The users `dt_s` later."""
        own = checked(state, TraceState, "state")
        time_s, vehicle, taken = own.time_s + dt_s, own.vehicle, own.taken
        if self.absent == "replace" and vehicle.ndim == 1:
            vehicle, taken = vehicle.copy(), taken.copy()
            vehicles, now = self._vehicles, float(time_s[0])
            for k in np.flatnonzero(vehicles.leaves_s[vehicle] < now):
                free = np.flatnonzero(~taken & (vehicles.enters_s <= now) & (vehicles.leaves_s >= now))
                if len(free):
                    vehicle[k] = free[np.argmin(vehicles.enters_s[free])]
                    taken[vehicle[k]] = True
        return self._state(vehicle, time_s, taken, own.position_m.dtype, own.position_m.device)

    def _longest(self) -> np.ndarray:
        """Vehicles by the time that they are there from the start on, the longest first; int64."""
        vehicles = self._vehicles
        stays_s = vehicles.leaves_s - np.maximum(vehicles.enters_s, self._start_s)
        if self.absent == "replace":  # those that are there first
            waits_s = np.maximum(vehicles.enters_s - self._start_s, 0)
            order: np.ndarray = np.lexsort((-stays_s, waits_s, stays_s <= 0))
        else:
            order = np.argsort(-stays_s, kind="stable")
        return order

    def _state(
        self, vehicle: np.ndarray, time_s: np.ndarray, taken: np.ndarray, dtype: torch.dtype, device: Device
    ) -> TraceState:
        place, speed = self._vehicles.at(vehicle, time_s)

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=dtype, device=device)

        return TraceState(
            position_m=tensor(place), speed_mps=tensor(speed), vehicle=vehicle, time_s=time_s, taken=taken
        )
