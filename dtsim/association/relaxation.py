"""The linear relaxation (12) of P2, tightened: one HiGHS model, solved again at every node of the search tree."""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import prod

import highspy
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from dtsim.association.packing import carried, subset_sums
from dtsim.association.problem import Array, AssociationProblem


@dataclass(frozen=True, eq=False)
class Box:
    """A node of the search tree: the links that it allows and the uploads that each BS must wait for."""

    allowed: NDArray[np.bool_]
    """[M, K] Links that may be used."""
    waits: NDArray[np.int64]
    """[M] Number of the BS's uploads, shortest first, that it must wait for."""

    @property
    def forced(self) -> NDArray[np.bool_]:
        """[M, K] Links of the MUs that have only one allowed link."""
        forced: NDArray[np.bool_] = self.allowed & (self.allowed.sum(axis=0) == 1)
        return forced

    @property
    def assignments(self) -> int:
        """Number of assignments in the node."""
        return prod(self.allowed.sum(axis=0).tolist())


@dataclass(frozen=True, eq=False)
class Relaxed:
    """The solution of the relaxation at a node."""

    bound: float
    """A lower bound on z, in units of `Relaxation.unit_s`, valid for any tolerance of the LP solver."""
    link: Array
    """[M, K] Relaxed a."""
    wait: Array
    """[M, K] Relaxed y, in the order of uploads."""
    link_cost: Array
    """[M, K] Reduced costs of a."""
    wait_cost: Array
    """[M, K] Reduced costs of y."""


class _Silent(highspy.Highs):  # type: ignore[misc]  # the base class prints a banner when it sets its first callback
    def enableCallbacks(self) -> None:
        self.silent()
        super().enableCallbacks()


class Relaxation:
    """Minimise z subject to z ≥ Σ_j δ_mj y_mj + Σ_k a_mk w_k / F_m and y_mj ≥ a_mk, where MU k has rank j at BS m.

    y_mj says whether BS m waits for its j-th shortest upload, which takes δ_mj longer than the one before; hence
    y_mj ≥ y_m,j+1. For integer a, Σ_j δ_mj y_mj = u_m. For fractional a it is the convex hull of u_m ≥ a_mk t_mk (the
    Lovász extension of the maximum); (12) itself charges a fraction of a far MU only that fraction of its upload time.

    If loads have few sizes, a BS that waits longer carries less, in steps: Σ_k a_mk w_k ≤ S_m0 - Σ_j s_mj y_mj, where
    S_m0 is the largest sum of loads that fits before the cutoff and s_mj is the reduction caused by the j-th wait.

    All times are in units of `unit_s`, so that z is about 1 and HiGHS's absolute tolerances are suitable.
    """

    def __init__(self, problem: AssociationProblem, unit_s: float) -> None:
        stations, users = problem.stations, problem.users
        self.unit_s = unit_s
        self.load = problem.load_s / unit_s  # [M, K]
        self.upload = problem.upload_s / unit_s  # [M, K]
        self.order = np.argsort(self.upload, axis=1, kind="stable")  # [M, K] rank -> user
        self.sorted_upload = np.take_along_axis(self.upload, self.order, axis=1)
        self._rank = np.argsort(self.order, axis=1, kind="stable")  # [M, K] user -> rank
        self._shape = (stations, users)
        self._share = problem.work_flop / max(problem.work_flop.sum(), np.finfo(float).tiny)  # [K]
        self._capacity = problem.station_flops / max(problem.work_flop.sum(), np.finfo(float).tiny) * unit_s  # [M]
        self._sums = subset_sums(problem.work_flop)
        self._cutoff = np.inf
        self._drops: Array = np.zeros((stations, users))  # s_mj
        self._cost = np.zeros(1 + 2 * stations * users)
        self._cost[0] = 1.0
        self._highs = _Silent()
        self._highs.setOptionValue("threads", 1)
        self._highs.setOptionValue("presolve", "off")  # it would discard the last basis
        self.aim(1.0)

    def aim(self, cutoff: float) -> None:
        """Restrict the search to solutions below `cutoff`, which never rises."""
        if cutoff >= self._cutoff or (self._sums is None and np.isfinite(self._cutoff)):
            return
        self._cutoff = cutoff
        stations, users = self._shape
        fits = np.ones((stations, 1 + users))  # share of all work that fits beside each wait; the first is no wait
        if self._sums is not None:
            before = np.concatenate([np.zeros((stations, 1)), self.sorted_upload], axis=1)
            fits = carried(self._sums, (cutoff - before) * self._capacity[:, None])
        self._drops = -np.diff(fits, axis=1)
        self._build(fits[:, 0])

    def _build(self, fits: Array) -> None:
        stations, users = self._shape
        links = stations * users
        steps = np.diff(self.sorted_upload, axis=1, prepend=0.0)  # δ
        station, user = (index.ravel() for index in np.indices(self._shape))
        a = 1 + np.arange(links)  # columns
        y = 1 + links + np.arange(links)
        ranked = 1 + station * users + self.order.ravel()  # column of the a that y depends on
        more = user < users - 1
        one = stations  # first row of each kind
        cover = one + users
        chain = cover + links
        pack = chain + links - stations
        entries = [  # row, column, value
            (np.arange(stations), np.zeros(stations, dtype=np.int64), np.ones(stations)),
            (station, y, -steps.ravel()),
            (station, a, -self.load.ravel()),
            (one + user, a, np.ones(links)),
            (cover + np.arange(links), y, np.ones(links)),
            (cover + np.arange(links), ranked, -np.ones(links)),
            (chain + np.arange(links - stations), y[more], np.ones(links - stations)),
            (chain + np.arange(links - stations), y[more] + 1, -np.ones(links - stations)),
            (pack + station, a, -self._share[user]),
            (pack + station, y, -self._drops.ravel()),
        ]
        row, column, value = (np.concatenate(parts) for parts in zip(*entries, strict=True))
        matrix = csc_array((value, (row, column)), shape=(pack + stations, 1 + 2 * links))
        self._matrix = matrix
        self._right = np.zeros(pack + stations)
        self._right[one:cover] = 1.0
        self._right[pack:] = -fits
        upper = np.full(pack + stations, highspy.kHighsInf)
        upper[one:cover] = 1.0
        lp = highspy.HighsLp()
        lp.num_row_, lp.num_col_ = matrix.shape
        lp.col_cost_ = self._cost
        lp.col_lower_, lp.col_upper_ = np.zeros(1 + 2 * links), np.ones(1 + 2 * links)
        lp.row_lower_, lp.row_upper_ = self._right, upper
        lp.a_matrix_.format_ = highspy.MatrixFormat.kColwise
        lp.a_matrix_.start_, lp.a_matrix_.index_, lp.a_matrix_.value_ = matrix.indptr, matrix.indices, matrix.data
        self._highs.passModel(lp)

    def bounds(self, box: Box) -> tuple[Array, Array]:
        """Lower and upper bounds of the columns z, a, y at a node; z is at most 1, the incumbent's value."""
        users = self._shape[1]
        reachable = np.take_along_axis(box.allowed, self.order, axis=1)
        useful = np.logical_or.accumulate(reachable[:, ::-1], axis=1)[:, ::-1]
        waits = np.arange(users) < box.waits[:, None]
        lower = np.concatenate([[0.0], box.forced.ravel(), waits.ravel()])
        upper = np.concatenate([[1.0], box.allowed.ravel(), (useful | waits).ravel()])
        return lower, upper

    def solve(self, box: Box, deadline: float) -> Relaxed | None:
        """The relaxation at `box`, stopped at `deadline` (`time.perf_counter()`); None if it is infeasible."""
        lower, upper = self.bounds(box)
        columns = np.arange(lower.size, dtype=np.int32)
        self._highs.changeColsBounds(lower.size, columns, lower, upper)
        left_s = max(deadline - time.perf_counter(), 0.0)
        self._highs.setOptionValue("time_limit", self._highs.getRunTime() + left_s)
        self._highs.run()
        if self._highs.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
            return None
        solution = self._highs.getSolution()
        stations, users = self._shape
        dual = np.asarray(solution.row_dual)
        value = np.asarray(solution.col_value)
        # Weak duality: any multipliers that are ≥ 0 on inequalities give a valid bound, even if they are inexact.
        free = slice(stations, stations + users)
        multiplier = np.maximum(dual, 0.0)
        multiplier[free] = dual[free]
        reduced = self._cost - self._matrix.T @ multiplier
        bound = multiplier @ self._right + np.where(reduced > 0, reduced * lower, reduced * upper).sum()
        reduced[lower == upper] = 0.0  # these are already fixed
        links = stations * users
        grids = [part.reshape(self._shape) for part in (value[1 : 1 + links], value[1 + links :])]
        costs = [part.reshape(self._shape) for part in (reduced[1 : 1 + links], reduced[1 + links :])]
        return Relaxed(bound=float(bound), link=grids[0], wait=grids[1], link_cost=costs[0], wait_cost=costs[1])

    def tightened(self, box: Box, cutoff: float, relaxed: Relaxed | None = None) -> Box | None:
        """`box` without links and waits that no solution below `cutoff` can have; None if nothing is left.

        The reduced costs of `relaxed`, solved at `box`, give the increase of the bound for each link or wait; the load
        already forced on a BS excludes further links that would exceed its capacity.
        """
        allowed, waits = box.allowed.copy(), box.waits.copy()
        users = allowed.shape[1]
        if relaxed is not None:
            slack = cutoff - relaxed.bound
            allowed &= relaxed.link_cost < slack
            beyond = np.where(relaxed.wait_cost >= slack, np.arange(users), users).min(axis=1)
            allowed &= self._rank < beyond[:, None]
            needed = np.where(relaxed.wait_cost <= -slack, np.arange(1, users + 1), 0).max(axis=1)
            waits = np.maximum(waits, needed)
        while True:
            if not allowed.any(axis=0).all():
                return None
            forced = Box(allowed, waits).forced
            waits = np.maximum(waits, np.where(forced, self._rank + 1, 0).max(axis=1))
            upload = self.least_upload(Box(allowed, waits))
            work = np.where(forced, self.load, 0.0).sum(axis=1)
            if (upload + work >= cutoff).any():
                return None
            carried = np.maximum(upload[:, None], self.upload) + work[:, None] + self.load < cutoff
            tighter = allowed & (forced | carried)
            if (tighter == allowed).all():
                return Box(allowed, waits)
            allowed = tighter

    def divided_wait(self, box: Box, relaxed: Relaxed) -> tuple[Box, Box] | None:
        """`box` without and with the divided wait that reduces its BS's load the most."""
        divided = self._drops * np.minimum(relaxed.wait, 1 - relaxed.wait)
        if divided.max() <= 1e-6:
            return None
        station, rank = np.unravel_index(int(divided.argmax()), divided.shape)
        allowed, waits = box.allowed.copy(), box.waits.copy()
        allowed[station, self._rank[station] >= rank] = False
        waits[station] = rank + 1
        return Box(allowed, box.waits), Box(box.allowed, waits)

    def least_upload(self, box: Box) -> Array:
        """[M] The upload time that each BS must wait for."""
        last = self.sorted_upload[np.arange(box.waits.size), np.maximum(box.waits - 1, 0)]
        return np.where(box.waits > 0, last, 0.0)
