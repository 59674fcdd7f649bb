"""The association problem P2: which base station (BS) serves which mobile user (MU) during a frame."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Stations = NDArray[np.int64]
Status = Literal["optimal", "feasible", "heuristic"]

# Objectives within this relative distance count as equal: floating-point sums are no more precise.
RELATIVE_TOLERANCE = 1e-9


@dataclass(frozen=True, eq=False)
class AssociationProblem:
    """P2 with fixed retraining decisions: M stations, K users.

    Raises:
        ValueError: if shapes do not match, a value is negative or not finite, or a capacity is zero.
    """

    work_flop: Array
    """[K] Work of each MU in a slot, inference and retraining, w_k [FLOP]."""
    upload_s: Array
    """[M, K] Transmission delay of each MU to each BS, t_mk [s]."""
    station_flops: Array
    """[M] Compute of each BS, F_m [FLOP/s]."""
    gain: Array
    """[M, K] Linear power gain of each link, averaged over the frame."""

    def __post_init__(self) -> None:
        for name in ("work_flop", "upload_s", "station_flops", "gain"):
            value = np.ascontiguousarray(getattr(self, name), dtype=np.float64)
            object.__setattr__(self, name, value)
            if not np.isfinite(value).all() or (value < 0).any():
                raise ValueError(f"{name}: every value must be finite and >= 0")
        if self.work_flop.ndim != 1 or self.station_flops.ndim != 1 or not self.users or not self.stations:
            raise ValueError(
                f"work_flop and station_flops must be non-empty vectors, not of shape {self.work_flop.shape} "
                f"and {self.station_flops.shape}"
            )
        for name in ("upload_s", "gain"):
            if getattr(self, name).shape != (self.stations, self.users):
                shape = getattr(self, name).shape
                raise ValueError(f"{name}: shape {shape}, must be {(self.stations, self.users)} (stations, users)")
        if (self.station_flops == 0).any():
            raise ValueError("station_flops: every value must be > 0")

    @property
    def users(self) -> int:
        """K."""
        return self.work_flop.size

    @property
    def stations(self) -> int:
        """M."""
        return self.station_flops.size

    @property
    def load_s(self) -> Array:
        """[M, K] Compute time that each MU adds at each BS, w_k / F_m [s]."""
        return self.work_flop / self.station_flops[:, None]


def finish_s(problem: AssociationProblem, station: Stations) -> Array:
    """[M] Finishing time of each BS, u_m + Σ_k a_mk w_k / F_m [s], for the assignment `station` [K]."""
    users = np.arange(problem.users)
    upload_s = np.zeros(problem.stations)
    np.maximum.at(upload_s, station, problem.upload_s[station, users])
    work_flop = np.bincount(station, weights=problem.work_flop, minlength=problem.stations)
    return upload_s + work_flop / problem.station_flops


def objective_s(problem: AssociationProblem, station: Stations) -> float:
    """The delay z of P2 for the assignment `station` [K]: the finishing time of the last BS [s]."""
    return float(finish_s(problem, station).max())


def lower_bound_s(problem: AssociationProblem) -> float:
    """A lower bound on the delay of any assignment [s], in closed form: the largest of three bounds.

    One MU alone at its best BS; all BSs sharing all work evenly, where at least one of them waits for the upload of
    any given MU; and, among the jM + 1 heaviest MUs, the j + 1 that must share a BS.
    """
    flops = problem.station_flops
    alone_s = (problem.upload_s + problem.load_s).min(axis=0).max()
    waiting_flop = (flops[:, None] * problem.upload_s).min(axis=0).max()
    even_s = (problem.work_flop.sum() + waiting_flop) / flops.sum()
    descending = np.sort(problem.work_flop)[::-1]
    until = np.concatenate([[0.0], np.cumsum(descending)])
    last = np.arange(problem.stations + 1, problem.users + 1, problem.stations)  # jM + 1 heaviest, j >= 1
    shared_flop = until[last] - until[last - np.arange(2, last.size + 2)]
    shared_s = shared_flop.max(initial=0.0) / flops.max() + problem.upload_s.min()
    bound_s = max(alone_s, even_s, shared_s if last.size else 0.0)
    return float(bound_s) * (1 - 1e-12)  # so that rounding errors cannot lift it above the optimum


@dataclass(frozen=True, eq=False)
class Association:
    """A solution of P2."""

    station: Stations
    """[K] The BS that serves each MU."""
    objective_s: float
    """Its delay z [s]."""
    bound_s: float
    """A lower bound on the delay of any assignment [s]."""
    gap: float
    """(objective - bound) / objective; 0 if the solution is proven optimal, NaN if no bound is known."""
    solve_time_s: float
    """Wall time of the solver [s]."""
    status: Status
    """optimal: proven; feasible: the best when the search stopped; heuristic: no proof was attempted."""
    solver: str
    """Name of the solver."""


def answer(
    problem: AssociationProblem,
    station: Stations,
    *,
    bound_s: float,
    started: float,
    status: Status,
    solver: str,
) -> Association:
    """The `Association` that a solver returns; `started` is `time.perf_counter()` at its start.

    A solver that knows no bound gives 0, the delay that nothing can beat.
    """
    delay_s = objective_s(problem, station)
    # A proof is valid up to the solver's tolerance: the objective is then its own bound.
    bound_s = delay_s if status == "optimal" else min(bound_s, delay_s)
    return Association(
        station=station.astype(np.int64),
        objective_s=delay_s,
        bound_s=bound_s,
        gap=0.0 if delay_s <= 0 else math.nan if bound_s <= 0 else (delay_s - bound_s) / delay_s,
        solve_time_s=time.perf_counter() - started,
        status=status,
        solver=solver,
    )


class Solver(Protocol):
    """The interface of a solver of P2."""

    def solve(self, problem: AssociationProblem) -> Association:
        """Assign every MU of `problem` to one BS; the same problem gives the same solution."""
