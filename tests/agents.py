"""Small trainings and what tests look at in them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dtsim.allocation.learned.agents import Apg, Ddpg, Learned, Sac
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.problem import AllocationProblem
from dtsim.core.progress import Progress
from dtsim.core.rows import Row
from tests.synthetic_source import SyntheticSource

AGENTS: dict[str, type[Learned]] = {"ddpg": Ddpg, "sac": Sac, "apg": Apg}
_ALL: dict[str, Any] = {
    "train_users": 5,
    "most_users": 9,
    "environment_steps": 300,
    "hidden": 8,
    "evaluate_every": 100,
    "held_out_slots": 20,
}
_OFF_POLICY = _ALL | {"environments": 20, "warmup_steps": 40, "batch_size": 16, "buffer_slots": 200}
TINY: dict[str, dict[str, Any]] = {
    "ddpg": _OFF_POLICY,
    "sac": _OFF_POLICY,
    "apg": _ALL | {"batch_size": 16},
}


def sampled(users: int, slots: int = 50, seed: int = 99) -> AllocationProblem:
    return SyntheticSource().sample(slots, users, torch.Generator().manual_seed(seed))


def trained_actor(allocator: Learned) -> Actor:
    assert allocator._ready.policy is not None
    return allocator._ready.policy.actor


def weights(allocator: Learned) -> Tensor:
    return torch.cat([value.flatten() for value in trained_actor(allocator).state_dict().values()])


def values(rows: list[Row], column: str, metric: str) -> list[Any]:
    return [row[column] for row in rows if row["metric"] == metric]


class Killed(BaseException):
    """What no one catches."""


class Recorded(Progress):
    """Keeps what it is told, and kills the training when `kill_at` steps are done."""

    def __init__(self, kill_at: float = float("inf")) -> None:
        self.steps, self.kill_at = 0.0, kill_at
        self.notes: list[str] = []
        self.phases: list[tuple[str, float]] = []
        self.said: list[str] = []

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Recorded]:
        self.phases.append((name, total))
        yield self

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.steps += steps
        self.notes += [note] if note else []
        if self.steps >= self.kill_at:
            raise Killed

    def say(self, message: str) -> None:
        self.said.append(message)
