"""Runs of a reproduction: which come first, how long all of them take, and which compute the same as another."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dtsim.results.folders import is_done
from dtsim.runner.config import Config
from dtsim.runner.jobs import Job

START_UP_S = 12.0
"""Measured start-up time of the workers."""
JOB_S = 0.4
"""Measured time for composing and checking a job and reading its result."""

Costs = Mapping[str, Mapping[str, float]]
"""Seconds per MU by setting and scheme."""


@dataclass(frozen=True)
class Task:
    """A run, and the setting that it belongs to."""

    setting: str
    job: Job

    def cost_s(self, known: Costs) -> float | None:
        """Expected time on one core; None if no run of its scheme is known."""
        scheme, mu = str(self.job.config.scheme["name"]), self.job.config.mu
        of_scheme = {setting: costs[scheme] for setting, costs in known.items() if scheme in costs}
        if not of_scheme:
            return None
        return mu * of_scheme.get(self.setting, statistics.median(of_scheme.values()))


def computed(config: Config) -> str:
    """A digest of what a run computes: runs that differ in keys that their scheme does not use have the same."""
    return config.digest if config.scheme["generated"] else replace(config, generator={}).digest


def divided(tasks: Sequence[Task]) -> tuple[list[Task], list[tuple[Task, Task]]]:
    """The undone runs to execute, and for each other undone run that run with the one which computes the same."""
    unique = {task.job.config.folder: task for task in tasks}
    first: dict[str, Task] = {}
    for task in sorted(unique.values(), key=lambda task: not is_done(task.job.config.folder)):
        first.setdefault(computed(task.job.config), task)
    left = [task for task in unique.values() if not is_done(task.job.config.folder)]
    equal = [(task, first[computed(task.job.config)]) for task in left]
    return [task for task, one in equal if task is one], [(task, one) for task, one in equal if task is not one]


def longest_first(tasks: Sequence[Task], known: Costs) -> list[Task]:
    """In decreasing order of expected time, so that all workers end at about the same time; unknown ones first."""

    def key(task: Task) -> tuple[bool, float]:
        cost_s = task.cost_s(known)
        return cost_s is not None, -(cost_s if cost_s is not None else task.job.config.mu)

    return sorted(tasks, key=key)


def estimate_s(tasks: Sequence[Task], known: Costs, workers: int) -> float | None:
    """Wall time of `tasks` if each worker takes the longest that is left; None if a scheme is not known."""
    costs = [task.cost_s(known) for task in longest_first(tasks, known)]
    busy_until = [0.0] * workers
    for cost_s in costs:
        if cost_s is None:
            return None
        heapq.heapreplace(busy_until, busy_until[0] + cost_s)
    return (START_UP_S + JOB_S * len(costs) + max(busy_until)) if costs else 0.0
