"""Positions of the base stations, the area of the users, and the compute of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Protocol

import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import part

Area = tuple[float, float, float, float]
"""The rectangle x0, y0, x1, y1 in m."""

Point = Annotated[list[float], Field(min_length=2, max_length=2)]


@dataclass(frozen=True, eq=False, kw_only=True)
class Topology:
    """The result of a topology part."""

    stations_m: Tensor
    """Positions of the base stations in m, float64 [M, 2]."""
    area_m: Area
    """The rectangle in which users move."""
    station_flops: Tensor
    """Compute F_m of each base station in FLOP/s, float64 [M]."""
    mu_flops: float
    """Compute of one user in FLOP/s."""

    @property
    def stations(self) -> int:
        """Number M of base stations."""
        return self.stations_m.shape[0]


class TopologyPart(Protocol):
    """The interface of a class in conf/topology."""

    def build(self) -> Topology:
        """The topology; every call returns the same one."""


@part
class Equipment:
    """The keys that every topology has: the margin of the area, and what base stations and users compute."""

    margin_m: float = Field(default=50.0, ge=0, le=1e6)
    """How far the users' area reaches beyond the outermost base stations [m]."""
    station_flops: float | list[float] = 50.0e9
    """Compute of a base station [FLOP/s]; one value, or a list with one for each."""
    mu_flops: float = Field(default=1.0e9, ge=1, le=1e24)
    """Compute of a mobile user [FLOP/s]."""


@part
class Hexagonal(Equipment):
    """The first base stations of a hexagonal (triangular-lattice) grid, counted along a spiral.

    Three form an equilateral triangle, 7 a centre and its ring, 19 two rings. The area is the bounding box of the
    stations plus a margin; its lower left corner is the origin.
    """

    stations: int = Field(default=3, ge=1, le=10_000)
    """Base stations, counted along a spiral of the hexagonal grid."""
    inter_site_m: float = Field(default=100.0, ge=1e-3, le=1e6)
    """Distance between neighbouring base stations [m]."""

    def __post_init__(self) -> None:
        check_compute(self.station_flops, self.stations)
        if self.margin_m == 0 and self.stations < 3:
            raise ValueError(
                f"margin_m={self.margin_m}: must be > 0 with stations={self.stations}, or the area is empty"
            )

    def build(self) -> Topology:
        """The grid, shifted so that the area starts at the origin."""
        points = torch.tensor(_spiral(self.stations), dtype=torch.float64) * self.inter_site_m
        points = points - points.amin(0) + self.margin_m
        return Topology(
            stations_m=points,
            area_m=bounding_box(points, self.margin_m),
            station_flops=compute_of_each(self.station_flops, self.stations),
            mu_flops=self.mu_flops,
        )


@part
class Explicit(Equipment):
    """Base stations at given coordinates."""

    stations_m: list[Point] = Field(min_length=1)
    """x, y of each base station [m]."""
    area_m: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    """The users' rectangle x0, y0, x1, y1 [m]; null: the stations' bounding box and the margin."""

    def __post_init__(self) -> None:
        check_compute(self.station_flops, len(self.stations_m))
        x0, y0, x1, y1 = self._area()
        if x0 >= x1 or y0 >= y1:
            if self.area_m is not None:
                raise ValueError(f"area_m={self.area_m}: must be x0, y0, x1, y1 with x0 < x1 and y0 < y1")
            raise ValueError(
                f"margin_m={self.margin_m}: must be > 0 where stations_m lie on a line, or the area is empty"
            )

    def _area(self) -> Area:
        if self.area_m is not None:
            x0, y0, x1, y1 = self.area_m
            return x0, y0, x1, y1
        return bounding_box(torch.tensor(self.stations_m, dtype=torch.float64), self.margin_m)

    def build(self) -> Topology:
        """The given stations."""
        return Topology(
            stations_m=torch.tensor(self.stations_m, dtype=torch.float64),
            area_m=self._area(),
            station_flops=compute_of_each(self.station_flops, len(self.stations_m)),
            mu_flops=self.mu_flops,
        )


def _spiral(count: int) -> list[tuple[float, float]]:
    """The first `count` points of the triangular lattice with unit spacing: the centre, then ring by ring."""
    corners = [(math.cos(i * math.pi / 3), math.sin(i * math.pi / 3)) for i in range(6)]
    points = [(0.0, 0.0)]
    ring = 1
    while len(points) < count:
        for side in range(6):
            (x, y), (dx, dy) = corners[side], corners[(side + 2) % 6]  # along the side, to the next corner
            points += [(ring * x + step * dx, ring * y + step * dy) for step in range(ring)]
        ring += 1
    return points[:count]


def bounding_box(points: Tensor, margin_m: float) -> Area:
    """The smallest rectangle around `points` [M, 2], extended by `margin_m` on every side."""
    x0, y0 = (points.amin(0) - margin_m).tolist()
    x1, y1 = (points.amax(0) + margin_m).tolist()
    return x0, y0, x1, y1


def check_compute(station_flops: float | list[float], stations: int) -> None:
    """Check the key `station_flops` of `stations` base stations.

    Raises:
        ValueError: if it is out of range, or a list of another length.
    """
    values = station_flops if isinstance(station_flops, list) else [station_flops]
    if isinstance(station_flops, list) and len(values) != stations:
        raise ValueError(f"station_flops={station_flops}: must be one value or {stations}, one for each base station")
    if min(values) < 1 or max(values) > 1e24:
        raise ValueError(f"station_flops={station_flops}: must be 1 to 1e24")


def compute_of_each(station_flops: float | list[float], stations: int) -> Tensor:
    """F_m of each of `stations` base stations in FLOP/s, float64 [M]."""
    values = station_flops if isinstance(station_flops, list) else [station_flops] * stations
    return torch.tensor(values, dtype=torch.float64)
