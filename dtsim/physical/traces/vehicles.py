"""Where vehicles or people were at which time, from SUMO's floating-car data or a plain table."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from xml.parsers import expat

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtsim.physical.traces.columns import place_of, read_columns
from dtsim.physical.traces.places import projected

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]

_PLAIN, _SUMO = ("time", "user", "x", "y"), ("timestep_time", "vehicle_id", "vehicle_x", "vehicle_y")
_COLUMNS = (_PLAIN, _SUMO, ("time", "id", "x", "y"), ("time", "user", "lat", "lon"), ("time", "id", "lat", "lon"))
_NAMED = ("user", "id", "vehicle_id")


@dataclass(frozen=True)
class Vehicles:
    """Samples of V vehicles, n in all, sorted by vehicle and time. Between two samples a vehicle moves evenly."""

    names: list[str]
    """Of each vehicle, in the order of their first appearance."""
    first: Whole
    """Where each vehicle's samples start, and the end; [V + 1]."""
    time_s: Floats
    """[n]"""
    place_m: Floats
    """[n, 2]"""

    @property
    def enters_s(self) -> Floats:
        """[V]"""
        return self.time_s[self.first[:-1]]

    @property
    def leaves_s(self) -> Floats:
        """[V]"""
        return self.time_s[self.first[1:] - 1]

    def at(self, vehicle: Whole, time_s: Floats) -> tuple[Floats, Floats]:
        """Positions [..., 2] in m and speeds [...] in m/s of each `vehicle` at each `time_s`.

        Before it enters and after it leaves, a vehicle stands at its first or last position.
        """
        begin, span = self.time_s.min(), self.time_s.max() - self.time_s.min() + 1.0
        own = np.repeat(np.arange(len(self.names)), np.diff(self.first))
        asked = np.clip(time_s, self.enters_s[vehicle], self.leaves_s[vehicle])
        # One sorted array for all: vehicle by vehicle, each with a stretch of its own.
        after = np.searchsorted(own * span + (self.time_s - begin), vehicle * span + (asked - begin), side="right")
        before = np.clip(after - 1, self.first[vehicle], self.first[vehicle + 1] - 1)
        after = np.clip(after, self.first[vehicle], self.first[vehicle + 1] - 1)
        gap_s = self.time_s[after] - self.time_s[before]
        step_m = self.place_m[after] - self.place_m[before]
        with np.errstate(divide="ignore", invalid="ignore"):
            part = np.where(gap_s > 0, (asked - self.time_s[before]) / gap_s, 0.0)
            speed = np.where(gap_s > 0, np.linalg.norm(step_m, axis=-1) / gap_s, 0.0)
        place = self.place_m[before] + part[..., np.newaxis] * step_m
        moving = (time_s >= self.enters_s[vehicle]) & (time_s < self.leaves_s[vehicle])
        return place, np.where(moving, speed, 0.0)


def read_vehicles(path: str, origin: list[float] | None) -> Vehicles:
    """The vehicles of a file: CSV, Parquet or SUMO's XML (`--fcd-output`), by the ending of its name.

    Raises:
        ValueError: in one line, where the file cannot be read, columns are missing, a value is no number, a vehicle is
            at two places at one time, or time goes back.
    """
    try:
        stamp = Path(path).expanduser().stat().st_mtime_ns
    except OSError as error:
        raise ValueError(f"{path}: must be a file that can be read ({error.strerror})") from None
    return _read(path, tuple(origin) if origin is not None else None, stamp)


@lru_cache(maxsize=4)
def _read(path: str, origin: tuple[float, ...] | None, stamp: int) -> Vehicles:
    """`read_vehicles`, kept for the other runs of a sweep while the file stays as it is."""
    if path.endswith(".xml"):
        table = _by_line(path)
        table = _xml(path) if table is None else table
    else:
        table = read_columns(path, _COLUMNS, texts=_NAMED)
    time, name, one, other = table.columns
    if one == "lat":
        if origin is None:
            raise ValueError(f"{path}: has lat and lon, so origin must be given, a latitude and a longitude")
        place = projected(table[one].to_numpy(), table[other].to_numpy(), list(origin))
    else:
        place = table[[one, other]].to_numpy(dtype=float)
    time_s = table[time].to_numpy(dtype=float)
    codes, names = pd.factorize(table[name])
    order = np.argsort(codes, kind="stable")
    own, times = codes[order], time_s[order]
    wrong = np.flatnonzero((np.diff(own) == 0) & (np.diff(times) <= 0))
    if len(wrong):
        at = int(order[wrong[0] + 1])
        place_text = f"{path}, time={time_s[at]:g}" if path.endswith(".xml") else place_of(path, table, at)
        if times[wrong[0]] == times[wrong[0] + 1]:
            raise ValueError(f"{place_text}: {name}={names[codes[at]]} is given twice at time={time_s[at]:g}")
        raise ValueError(
            f"{place_text}: time goes back for {name}={names[codes[at]]}, from {times[wrong[0]]:g} to {time_s[at]:g}"
        )
    first = np.concatenate([[0], np.cumsum(np.bincount(own, minlength=len(names)))])
    return Vehicles([str(each) for each in names], first, times, place[order])


_ELEMENTS = {"<vehicle id=", "<person id=", "<timestep time=", "</timestep>", "</fcd-export>", ""}


def _by_line(path: str) -> pd.DataFrame | None:
    """`_xml`, five times as fast, of a file as SUMO itself writes it: an element a line, id, x and y first.

    None for any other file. Split at the quotation marks, a vehicle's line is a row with its values in fixed columns.
    """
    with Path(path).expanduser().open(encoding="utf-8", errors="replace") as file:
        head = next((count for count, line in zip(range(200), file, strict=False) if "<timestep " in line), None)
    if head is None:
        return None
    columns = ("element", "one", "and", "two", "next", "three")  # <vehicle id="one" x="two" y="three"
    kinds = {name: "float64" if name in ("two", "three") else "category" for name in columns}
    try:
        rows = pd.read_csv(
            Path(path).expanduser(),
            sep='"',
            quoting=csv.QUOTE_NONE,
            header=None,
            names=list(columns),
            usecols=list(columns),
            index_col=False,
            dtype=kinds,
            skiprows=head,
            na_values={"two": [""], "three": [""]},
            keep_default_na=False,
        )
    except (OSError, ValueError, pd.errors.ParserError):
        return None
    elements = [str(text).strip() for text in rows["element"].cat.categories]
    steps, moves = (
        np.isin(rows["element"].cat.codes, [place for place, text in enumerate(elements) if text in wanted])
        for wanted in (("<timestep time=",), ("<vehicle id=", "<person id="))
    )
    between = [
        {str(rows[name].cat.categories[code]).strip() for code in np.unique(rows[name].cat.codes[moves]) if code >= 0}
        for name in ("and", "next")
    ]
    if not set(elements) <= _ELEMENTS or between != [{"x="}, {"y="}]:
        return None
    try:
        times = rows["one"][steps].astype(str).to_numpy(dtype=float)
    except ValueError:
        return None
    time = times[np.cumsum(steps)[moves] - 1]
    table = pd.DataFrame({"time": time, "id": rows["one"][moves], "x": rows["two"][moves], "y": rows["three"][moves]})
    complete = len(table) and np.isfinite(table[["time", "x", "y"]].to_numpy()).all()
    return table.reset_index(drop=True) if complete else None


def _xml(path: str) -> pd.DataFrame:
    """SUMO's floating-car data: `<timestep time="…">` with `<vehicle id="…" x="…" y="…"/>` or `<person …/>` in it."""
    times: list[str] = []
    names: list[str] = []
    east: list[str] = []
    north: list[str] = []
    now = ""

    def begins(element: str, own: dict[str, str]) -> None:
        nonlocal now
        if element == "vehicle" or element == "person":
            times.append(now)
            names.append(own["id"])
            east.append(own["x"])
            north.append(own["y"])
        elif element == "timestep":
            now = own["time"]

    parser = expat.ParserCreate()
    parser.StartElementHandler = begins
    try:
        with Path(path).expanduser().open("rb") as file:
            parser.ParseFile(file)
        table = pd.DataFrame(
            {
                "time": np.array(times, dtype=float),
                "id": names,
                "x": np.array(east, dtype=float),
                "y": np.array(north, dtype=float),
            }
        )
    except expat.ExpatError as error:
        raise ValueError(f"{path}: must be XML ({error})") from None
    except KeyError as error:
        line = parser.CurrentLineNumber
        raise ValueError(f"{path}:{line}: {error.args[0]} is missing: must be SUMO's floating-car data") from None
    except ValueError as error:
        raise ValueError(f"{path}: must hold numbers ({error})") from None
    if not len(table):
        raise ValueError(f"{path}: must hold one vehicle or person or more, holds none")
    if not np.isfinite(table[["time", "x", "y"]].to_numpy()).all():
        raise ValueError(f"{path}: time, x and y must be finite numbers")
    return table
