"""What is to be seen of a run in each slot, from its slots.csv: where the users are, who serves them, how well."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dtsim.reporting.passing import jobs_of, time_passes
from dtsim.reporting.runs import ReportError, row_of
from dtsim.results.formats import read_table
from dtsim.results.names import SLOTS
from dtsim.results.seal import read_result

_COLUMNS = (
    *("frame", "slot", "user", "station", "region", "x_m", "y_m", "captured_bytes", "upload_bytes", "compute_flops"),
    *("station_flops", "delay_s", "accuracy", "retrain"),
)

Floats = NDArray[np.float64]
Whole = NDArray[np.int64]


@dataclass(frozen=True)
class Scene:
    """A run, slot by slot; T slots, K users, M base stations."""

    title: str
    threshold: float
    """A_th: an accuracy below it is a break-out."""
    objective: str
    area_m: tuple[float, float, float, float]
    """x0, y0, x1, y1."""
    stations_m: Floats
    """[M, 2]; NaN for a station that serves nobody, if the run does not say where stations are."""
    regions: tuple[int, int, int] | None
    """Rows, columns and home of the grid of regions; None if regions form no grid."""
    frame: Whole
    """Frame of each slot; [T]."""
    position_m: Floats
    """[T, K, 2]: between the positions of two frames, users are shown walking in a straight line."""
    station: Whole
    """Serving BS; [T, K]."""
    region: Whole
    """[T, K]"""
    accuracy: Floats
    """[T, K]; NaN without an image."""
    delay_s: Floats
    """Of the task captured in the slot; [T, K]; NaN without one."""
    upload: Floats
    """Share of a user's data that it uploads; [T, K]."""
    compute: Floats
    """Share of its BS's compute that a user gets; [T, K]."""
    retrain: NDArray[np.bool_]
    """Whether a user's model is retrained in this window, or its update is under way; [T, K]."""
    begins: NDArray[np.bool_]
    """Where an update of a user's model begins: in a window's first slot, or where it is asked for; [T, K]."""

    @property
    def slots(self) -> int:
        """T."""
        return len(self.frame)

    @property
    def load(self) -> Floats:
        """Share of each BS's compute that is given away; [T, M]."""
        return np.stack([np.where(self.station == m, self.compute, 0).sum(axis=1) for m in range(self._stations)], 1)

    @property
    def station_delay_s(self) -> Floats:
        """Delay of each BS's slowest user; [T, M]."""
        return np.stack(
            [np.where(self.station == m, np.nan_to_num(self.delay_s), 0).max(axis=1) for m in range(self._stations)], 1
        )

    @property
    def system_delay_s(self) -> Floats:
        """[T]"""
        slowest = self.station_delay_s
        of_system: Floats = slowest.max(axis=1) if self.objective == "makespan" else slowest.sum(axis=1)
        return of_system

    @property
    def _stations(self) -> int:
        return len(self.stations_m)


def scene(folder: Path) -> Scene:
    """The scene of the finished run in `folder`.

    Raises:
        ReportError: if its slots do not hold every user in every slot.
        DamagedRun: if the run is damaged.
    """
    result = read_result(folder)
    table = read_table(folder / SLOTS, list(_COLUMNS)).sort_values(["slot", "user"], kind="stable")
    users, slots = table["user"].nunique(), table["slot"].nunique()
    if not len(table) or len(table) != users * slots:
        raise ReportError(f"RUN={str(folder)!r}: slots must hold each user once in each slot")

    def of(name: str) -> Floats:
        return table[name].to_numpy(dtype=float).reshape(slots, users)

    frame = of("frame")[:, 0].astype(np.int64)
    station = of("station").astype(np.int64)
    place = np.stack([of("x_m"), of("y_m")], axis=-1)
    config = result["config"]
    topology = result.get("topology") or {}
    stations_m = np.array(topology["stations_m"]) if "stations_m" in topology else _centres(place, station)
    corners = place.reshape(-1, 2)
    area = topology.get("area_m") or [*corners.min(axis=0), *corners.max(axis=0)]
    run, retrain = row_of(folder), of("retrain") > 0
    if time_passes(run):
        begins, retrain = retrain, _under_way(pd.Series(run), slots, users)
    else:
        begins = _begins(retrain, frame)
    with np.errstate(divide="ignore", invalid="ignore"):
        upload = np.nan_to_num(of("upload_bytes") / of("captured_bytes"))
        compute = np.nan_to_num(of("compute_flops") / of("station_flops"))
    return Scene(
        title=f"{config['scheme']['name']}, K = {users}, seed {config['seed']}",
        threshold=float(config["accuracy_threshold"]),
        objective=str(config["objective"]),
        area_m=(float(area[0]), float(area[1]), float(area[2]), float(area[3])),
        stations_m=stations_m,
        regions=_grid(config["drift"]),
        frame=frame,
        position_m=_walking(place, frame),
        station=station,
        region=of("region").astype(np.int64),
        accuracy=of("accuracy"),
        delay_s=of("delay_s"),
        upload=upload,
        compute=compute,
        retrain=retrain,
        begins=begins,
    )


def _begins(retrain: NDArray[np.bool_], frame: Whole) -> NDArray[np.bool_]:
    """Where retraining [T, K] begins: in the first slot of a window."""
    new_frame = np.diff(frame, prepend=frame[0] - 1) > 0
    before = np.vstack([np.zeros_like(retrain[:1]), retrain[:-1]])
    begun: NDArray[np.bool_] = retrain & (~before | new_frame[:, np.newaxis])
    return begun


def _under_way(run: pd.Series, slots: int, users: int) -> NDArray[np.bool_]:
    """Where an update of a user is asked for and does not serve yet, nor was stopped; [T, K]."""
    found = np.zeros((slots, users), dtype=bool)
    jobs = jobs_of(run)
    updates = jobs[jobs["kind"] == "update"]
    ends = np.ceil(updates["over_s"] / float(run["config.time.slot_s"]) - 1e-9)
    for user, first, end in zip(updates["user"], updates["slot"], ends, strict=True):
        found[first : max(first + 1, int(end)), user] = True
    return found


def _walking(place: Floats, frame: Whole) -> Floats:
    """Positions [T, K, 2] that move evenly from each frame's to the next one's, where all slots of a frame have one."""
    starts = np.flatnonzero(np.diff(frame, prepend=frame[0] - 1))
    own = np.searchsorted(starts, np.arange(len(frame)), side="right") - 1
    if len(starts) < 2 or not np.array_equal(place, place[starts][own]):
        return place
    ends = np.append(starts[1:], len(frame))
    part = (np.arange(len(frame)) - starts[own]) / (ends - starts)[own]
    following = np.minimum(own + 1, len(starts) - 1)
    here, there = place[starts][own], place[starts][following]
    walked: Floats = here + part[:, np.newaxis, np.newaxis] * (there - here)
    return walked


def _centres(place: Floats, station: Whole) -> Floats:
    """The mean position of the users that each station serves; [M, 2]."""
    every = pd.DataFrame({"station": station.ravel(), "x": place[..., 0].ravel(), "y": place[..., 1].ravel()})
    return every.groupby("station").mean().reindex(range(int(station.max()) + 1)).to_numpy(dtype=float)


def _grid(drift: dict[str, Any]) -> tuple[int, int, int] | None:
    if drift.get("schedule") is not None or not {"rows", "columns", "home"} <= set(drift):
        return None
    return int(drift["rows"]), int(drift["columns"]), int(drift["home"])
