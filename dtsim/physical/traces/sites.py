"""Base stations at the sites of a list."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated

import numpy as np
import torch
from pydantic import Field

from dtsim.core.parts import part
from dtsim.physical.topology import Area, Equipment, Topology, bounding_box, check_compute, compute_of_each
from dtsim.physical.traces.columns import place_of, read_columns
from dtsim.physical.traces.places import check_origin, projected

_COLUMNS = (("x", "y", "flops"), ("x", "y"), ("lat", "lon", "flops"), ("lat", "lon"))


@part
class Sites(Equipment):
    """Base stations from a CSV or Parquet file; a row is a site."""

    path: str
    """CSV or Parquet file [path] with columns x, y (m) or lat, lon (degrees), and flops (FLOP/s) if stations differ."""
    origin: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Latitude and longitude of x = y = 0 [degree], where the file has lat and lon; a trace needs the same."""
    area_m: Annotated[list[float], Field(min_length=4, max_length=4)] | None = None
    """The users' rectangle x0, y0, x1, y1 [m]; null: the stations' bounding box and the margin."""

    def __post_init__(self) -> None:
        check_origin(self.origin)
        try:
            stations, flops = self._read
        except ValueError as error:
            raise ValueError(f"path={error}") from None
        check_compute(flops if flops is not None else self.station_flops, len(stations))
        x0, y0, x1, y1 = self._area()
        if x0 >= x1 or y0 >= y1:
            key = f"area_m={self.area_m}" if self.area_m is not None else f"margin_m={self.margin_m}"
            raise ValueError(f"{key}: the users' area must not be empty, is {x0:g} to {x1:g} by {y0:g} to {y1:g} m")

    @cached_property
    def _read(self) -> tuple[np.ndarray, list[float] | None]:
        """Positions [M, 2] in m, and the compute of each if the file says so."""
        table = read_columns(self.path, _COLUMNS)
        if "lat" in table:
            if self.origin is None:
                raise ValueError(f"{self.path}: has lat and lon, so origin must be given, a latitude and a longitude")
            places = projected(table["lat"].to_numpy(), table["lon"].to_numpy(), self.origin)
        else:
            places = table[["x", "y"]].to_numpy()
        twice = np.flatnonzero(table.duplicated().to_numpy())
        if len(twice):
            raise ValueError(f"{place_of(self.path, table, twice[0])}: this site is given already")
        return places, table["flops"].tolist() if "flops" in table else None

    def _area(self) -> Area:
        if self.area_m is not None:
            x0, y0, x1, y1 = self.area_m
            return x0, y0, x1, y1
        return bounding_box(torch.from_numpy(self._read[0]), self.margin_m)

    def build(self) -> Topology:
        """The stations of the list, in its order."""
        places, flops = self._read
        return Topology(
            stations_m=torch.from_numpy(places),
            area_m=self._area(),
            station_flops=compute_of_each(flops if flops is not None else self.station_flops, len(places)),
            mu_flops=self.mu_flops,
        )
