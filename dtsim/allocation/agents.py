"""Allocators that learn."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import torch
from pydantic import Field

from dtsim.allocation.policy import Reward, SetActor, decode, observe
from dtsim.allocation.problem import Allocation, AllocationProblem, ProblemSource
from dtsim.cache import Cache
from dtsim.parts import part
from dtsim.progress import Progress

VERSION = 1
"""Raised when features, networks or training change, so that weights kept from before are not used."""


@part
class Ddpg:
    """Deep deterministic policy gradient: a network shared by all MUs corrects the proportional allocation.

    Trained on slots of the twin's copy of the network, kept under the digest of its keys and of that copy's
    description; one trained policy serves any number of MUs and BSs.
    """

    train_users: int = Field(default=20, ge=1, le=1000)
    """Number of MUs in the slots that it is trained on."""
    environment_steps: int = Field(default=40000, ge=1)
    """Training slots."""
    warmup_steps: int = Field(default=8000, ge=0)
    """Training slots over which the policy's learning rate rises, while the critic finds its feet."""
    environments: int = Field(default=100, ge=1)
    """Slots collected at once between updates."""
    update_ratio: float = Field(default=0.1, gt=0.0)
    """Gradient updates per training slot."""
    batch_size: int = Field(default=64, ge=1)
    """Slots in a gradient update."""
    buffer_slots: int = Field(default=40000, ge=1)
    """Slots that the replay buffer keeps."""
    actor_learning_rate: float = Field(default=1.0e-3, gt=0.0)
    """Adam's step for the policy after the warm-up; falls linearly to 0."""
    critic_learning_rate: float = Field(default=8.0e-3, gt=0.0)
    """Adam's step for the value network at the start; falls linearly to 0."""
    noise: float = Field(default=0.03, ge=0.0)
    """Standard deviation of the exploration noise, in units of the action's range [-1, 1]."""
    gamma: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Discount; 0 is exact, since a slot's allocation changes nothing later."""
    hidden: int = Field(default=32, ge=1)
    """Width of the hidden layers."""
    reward: Reward = "station_log_ratio"
    """Reward (19) over the slot's proportional delay: of every BS, or of the slowest only."""
    compute_range: float = Field(default=2.0, gt=0.0)
    """A compute share is corrected by a factor of e^-range to e^range before normalisation."""
    upload_range: float = Field(default=1.0, gt=0.0)
    """The odds of the upload fraction are corrected by a factor of e^-range to e^range."""
    sharpness: float = Field(default=50.0, gt=0.0)
    """Sharpness of the critic's smooth maximum over MUs."""
    evaluate_every: int = Field(default=4000, ge=1)
    """Training slots between two measurements of the gap."""
    held_out_slots: int = Field(default=500, ge=1)
    """Slots that the gap is measured on; never trained on."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training, apart from a run's own: one policy serves all runs."""

    def __post_init__(self) -> None:
        if self.update_ratio * self.rounds * self.environments < 1:
            raise ValueError(
                f"update_ratio={self.update_ratio}: must be >= 1 / environment_steps, or nothing is ever learned"
            )

    @property
    def rounds(self) -> int:
        """How often `environments` slots are collected: environment_steps, rounded up to whole rounds."""
        return math.ceil(self.environment_steps / self.environments)

    def prepare(self, source: ProblemSource, cache: Cache, progress: Progress) -> list[dict[str, Any]]:
        """Load the policy trained on `source`, or train it; returns the rows of its learning curve.

        The weights kept are those with the smallest mean gap on held-out slots.
        """

        def make() -> dict[str, Any]:
            from dtsim.allocation.training import train  # Tianshou takes seconds to import

            return train(self, source, progress)

        content = {
            "allocator": "ddpg",
            "version": VERSION,
            "keys": dataclasses.asdict(self),
            "source": source.description(),
        }
        entry = cache.get("policy", content, make)
        with torch.random.fork_rng(devices=[]):  # initial weights, replaced at once, draw from the global generator
            actor = SetActor(self.hidden)
        actor.load_state_dict(entry["actor"])
        self._trained["actor"] = actor.eval().requires_grad_(False)
        rows: list[dict[str, Any]] = entry["curve"]
        return rows

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The trained policy's allocation, any leading dimensions and any number of MUs and BSs.

        Raises:
            RuntimeError: where `prepare` was not called.
        """
        if "actor" not in self._trained:
            raise RuntimeError("the policy is not there yet: call prepare first")
        observation = observe(problem)
        actor = self._trained["actor"].to(observation.device)
        with torch.no_grad():
            action = actor(observation)
        return decode(problem, action, self.compute_range, self.upload_range)

    @cached_property
    def _trained(self) -> dict[str, SetActor]:
        return {}
