"""Algorithm 1: branch and bound on the linear relaxation (12), with a custom search tree."""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dtsim.association.annealing import first_incumbent
from dtsim.association.greedy import improve
from dtsim.association.problem import (
    RELATIVE_TOLERANCE,
    Association,
    AssociationProblem,
    Stations,
    answer,
    objective_s,
)
from dtsim.association.relaxation import Box, Relaxation, Relaxed
from dtsim.association.search import GapSearch
from dtsim.core.parts import part

# If a node holds at most this many assignments, listing them is faster than a few more relaxations.
LISTED = 50_000
# Local search runs on every n-th rounded relaxation, with n below; it takes about as long as a relaxation.
IMPROVED_EVERY = 10


@part
class BranchAndBound(GapSearch):
    """Best-first search; the first incumbent is the greedy solution, in large cells an annealed one."""

    def solve(self, problem: AssociationProblem) -> Association:
        """The optimal solution, or the best one at the time limit with the lowest bound of the open nodes."""
        started = time.perf_counter()
        tolerance = max(self.relative_gap, RELATIVE_TOLERANCE)
        incumbent, bound_s = first_incumbent(problem, started + self.time_limit_s)
        best_s = objective_s(problem, incumbent)
        if bound_s < best_s * (1 - tolerance):
            tree = _Tree(problem, incumbent, tolerance)
            bound_s = max(bound_s, tree.search(started + self.time_limit_s))
            # BSs that do not determine z are balanced too: see `improve`.
            incumbent, best_s = improve(problem, tree.incumbent), tree.best_s
        return answer(
            problem,
            incumbent,
            bound_s=bound_s,
            started=started,
            status="optimal" if bound_s >= best_s * (1 - RELATIVE_TOLERANCE) else "feasible",
            solver="branch_and_bound",
        )


@dataclass(order=True)
class _Node:
    """An open node; ordered by lowest bound, then by depth (deepest first), then by age (oldest first)."""

    bound: float
    height: int
    number: int
    box: Box = field(compare=False)


class _Tree:
    """The open nodes and the incumbent. Bounds are in units of the first incumbent's delay."""

    def __init__(self, problem: AssociationProblem, incumbent: Stations, tolerance: float) -> None:
        self.problem = problem
        self.incumbent = incumbent
        self.best_s = objective_s(problem, incumbent)
        self.tolerance = tolerance
        self.relaxation = Relaxation(problem, unit_s=self.best_s)
        self.solved = 0

    @property
    def cutoff(self) -> float:
        """Nodes with a bound at or above this cannot improve the incumbent."""
        return self.best_s * (1 - self.tolerance) / self.relaxation.unit_s

    def search(self, deadline: float) -> float:
        """Improve the incumbent until it is proven optimal or `deadline` passes; returns the lower bound on z [s]."""
        shape = (self.problem.stations, self.problem.users)
        everything = Box(np.ones(shape, dtype=np.bool_), np.zeros(shape[0], dtype=np.int64))
        nodes = [_Node(0.0, 0, 0, everything)]
        created = 1
        while nodes and nodes[0].bound < self.cutoff:
            if time.perf_counter() >= deadline:
                return nodes[0].bound * self.relaxation.unit_s
            node = heapq.heappop(nodes)
            box = self._settled(self.relaxation.tightened(node.box, self.cutoff))
            if box is None:
                continue
            relaxed = self.relaxation.solve(box, deadline)
            if relaxed is None:
                continue
            bound = max(node.bound, relaxed.bound)
            self._round(box, relaxed)
            if bound >= self.cutoff:
                continue
            box = self._settled(self.relaxation.tightened(box, self.cutoff, relaxed))
            if box is None:
                continue
            for child in _children(self.relaxation, box, relaxed):
                heapq.heappush(nodes, _Node(bound, node.height - 1, created, child))
                created += 1
        return self.cutoff * self.relaxation.unit_s

    def _settled(self, box: Box | None) -> Box | None:
        """`box`, or None if it is empty or small enough that its assignments were listed."""
        if box is None or box.assignments > LISTED:
            return box
        station = _best_listed(self.relaxation, box, self.cutoff)
        if station is not None:
            self._offer(station)
        return None

    def _round(self, box: Box, relaxed: Relaxed) -> None:
        """Try the assignment nearest to the relaxed one as incumbent."""
        station = np.where(box.allowed, relaxed.link, -1.0).argmax(axis=0)
        self._offer(improve(self.problem, station) if self.solved % IMPROVED_EVERY == 0 else station)
        self.solved += 1

    def _offer(self, station: Stations) -> None:
        delay_s = objective_s(self.problem, station)
        if delay_s < self.best_s:
            self.incumbent, self.best_s = station, delay_s
            self.relaxation.aim(self.cutoff)


def _children(relaxation: Relaxation, box: Box, relaxed: Relaxed) -> Sequence[Box]:
    """Split `box` by the BS of one MU: the heaviest MU that the relaxation divides, or else the heaviest undecided."""
    waits = relaxation.divided_wait(box, relaxed)
    if waits is not None:
        return waits
    undecided = box.allowed.sum(axis=0) > 1
    divided = undecided & (relaxed.link.max(axis=0) < 1 - 1e-6)
    candidates = divided if divided.any() else undecided
    user = int(np.where(candidates, relaxation.load[0], -1.0).argmax())
    children = []
    for station in np.flatnonzero(box.allowed[:, user]):
        allowed = box.allowed.copy()
        allowed[:, user] = False
        allowed[station, user] = True
        children.append(Box(allowed, box.waits))
    return children


def _best_listed(relaxation: Relaxation, box: Box, cutoff: float) -> Stations | None:
    """[K] The best assignment in `box`, found by listing all; None if none is below `cutoff`.

    MUs are added one by one, heaviest first; partial assignments that reach the cutoff are dropped.
    """
    forced = box.forced
    free = np.flatnonzero(~forced.any(axis=0))
    free = free[np.argsort(-relaxation.load[0, free], kind="stable")]
    upload = relaxation.least_upload(box)[:, None]  # [M, assignments]
    work = np.where(forced, relaxation.load, 0.0).sum(axis=1)[:, None]  # [M, assignments]
    trail = []  # for every MU: the parent and the BS of each partial assignment that was kept
    for user in free:
        choices = np.flatnonzero(box.allowed[:, user])
        count = work.shape[1]
        parent, chosen = np.tile(np.arange(count), choices.size), np.repeat(choices, count)
        column = np.arange(parent.size)
        work, upload = work[:, parent], upload[:, parent]
        work[chosen, column] += relaxation.load[chosen, user]
        upload[chosen, column] = np.maximum(upload[chosen, column], relaxation.upload[chosen, user])
        kept = np.flatnonzero((work + upload).max(axis=0) < cutoff)
        if kept.size == 0:
            return None
        work, upload = work[:, kept], upload[:, kept]
        trail.append((parent[kept], chosen[kept]))
    index = (work + upload).max(axis=0).argmin()
    station: Stations = box.allowed.argmax(axis=0)
    for user, (parent, chosen) in zip(free[::-1], trail[::-1], strict=True):
        station[user] = chosen[index]
        index = parent[index]
    return station
