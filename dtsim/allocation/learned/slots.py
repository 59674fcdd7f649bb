"""The slots that a policy is trained on: how many MUs they have, and which of them carry retraining loads."""

from __future__ import annotations

from dataclasses import replace

import torch

from dtsim.allocation.learned.keys import LearnedKeys
from dtsim.allocation.problem import AllocationProblem, ProblemSource


class TrainingSlots:
    """Draws slots of a source with its own random generator.

    Every second draw of a set policy has `train_users` MUs, the others any number between `least_users` and
    `most_users`, all scales equally likely. A draw has fewer slots where they have more MUs: its work stays the same.
    """

    def __init__(self, config: LearnedKeys, source: ProblemSource, rng: torch.Generator) -> None:
        self.config, self.source, self.rng = config, source, rng

    def draw(self, turn: int, slots: int) -> AllocationProblem:
        """Draw number `turn`: `slots` slots of train_users MUs, or in proportion fewer or more of another number."""
        users = self._users(turn)
        count = scaled(self.config, slots, users)
        problem = self.source.sample(count, users, self.rng)
        loaded = torch.rand((count, 1), generator=self.rng) >= self.config.unloaded_share
        return replace(problem, retrain_flop=problem.retrain_flop * loaded)

    def _users(self, turn: int) -> int:
        config = self.config
        if config.policy == "flat" or turn % 2 == 0:
            return config.train_users
        ratio = (config.most_users + 1) / config.least_users
        drawn = float(torch.rand((), generator=self.rng, dtype=torch.float64))
        return min(config.most_users, int(config.least_users * ratio**drawn))


def scaled(config: LearnedKeys, slots: int, users: int) -> int:
    """Number of slots of `users` MUs with about as many MUs in all as `slots` slots of train_users MUs."""
    return max(1, round(slots * config.train_users / users))


def most_rows(config: LearnedKeys, slots: int) -> int:
    """Largest number of MUs that the slots of one draw have in all."""
    numbers = {config.train_users}
    if config.policy == "set":
        numbers |= set(range(config.least_users, config.most_users + 1))
    return max(users * scaled(config, slots, users) for users in numbers)
