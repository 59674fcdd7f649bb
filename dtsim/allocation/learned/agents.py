"""Learned allocators: each has its keys, trains or loads a policy, and allocates with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property

from dtsim.allocation.learned.checkpoint import TrainedPolicy, load, policy_of
from dtsim.allocation.learned.keys import ApgKeys, LearnedKeys, OffPolicyKeys, SacKeys
from dtsim.allocation.problem import Allocation, AllocationProblem, ProblemSource
from dtsim.core.cache import Cache
from dtsim.core.parts import part
from dtsim.core.progress import Progress
from dtsim.core.rows import Row

VERSION = 3
"""Increase this when features, networks or training change, so that old cached weights are not used."""

# Keys that do not affect the trained policy: it is trained without a least upload, and meets it when it allocates.
_NOT_IN_DIGEST = ("checkpoint", "save_every", "min_upload")


@dataclass
class _Ready:
    """The policy in use, from `prepare` or a checkpoint."""

    policy: TrainedPolicy | None = None
    curve: list[Row] = field(default_factory=list)


@part
class Learned(LearnedKeys):
    """A policy trained on slots of the twin's copy of the network; the base class of all agents.

    The cache stores it under the digest of its keys and of that copy's description: it is trained once and used by
    every run with the same digest. With `checkpoint` the policy comes from a file instead, and the keys of its design
    (policy, action, hidden, ranges) come from the file too.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint is not None:
            try:
                self._ready.policy, self._ready.curve = load(self.checkpoint, self.agent)
            except ValueError as error:
                raise ValueError(f"checkpoint={self.checkpoint!r}: {error}") from None

    def prepare(self, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
        """Load the policy trained on `source`, or train it; returns the rows of its learning curve.

        The policy with the smallest mean gap on held-out slots is kept. An interrupted training resumes from its last
        saved state and ends with the same weights as an uninterrupted one.

        Raises:
            TrainingDiverged: if the policy's actions are not finite.
        """
        if self.checkpoint is None:
            keys = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_IN_DIGEST}
            content = {"allocator": self.agent, "version": VERSION, "keys": keys, "source": source.description()}
            path = cache.path("policy", content)
            state_file = path.with_suffix(".training")

            def make() -> dict[str, object]:
                # Tianshou takes seconds to import.
                from dtsim.allocation.learned.build import learner_of
                from dtsim.allocation.learned.training import train

                made = train(self, source, state_file, progress, learner_of(self))
                progress.say(f"policy kept: {path} (allocator.checkpoint={path} uses it anywhere)")
                return {**made, "content": content}

            entry = cache.get("policy", content, make)
            if state_file.exists():  # not needed once the policy is cached
                state_file.unlink(missing_ok=True)
            self._ready.policy, self._ready.curve = policy_of(entry)
        return self._ready.curve

    def check_fits(self, *, users: int, stations: int) -> None:
        """Check that the policy can serve this number of MUs and BSs.

        Raises:
            ConfigError: if a `flat` policy is trained with another number of MUs or BSs.
        """
        design = self.design(stations) if self._ready.policy is None else self._ready.policy.design
        design.check_fits(users, stations)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The trained policy's allocation, any leading dimensions; `set` policies serve any number of MUs and BSs.

        Raises:
            RuntimeError: if `prepare` was not called.
            ConfigError: if a `flat` policy was trained with another number of MUs or BSs.
        """
        if self._ready.policy is None:
            raise RuntimeError("the policy is not there yet: call prepare first")
        return self._ready.policy.allocate(problem)

    @cached_property
    def _ready(self) -> _Ready:
        return _Ready()


@part
class Ddpg(OffPolicyKeys, Learned):
    """Deep deterministic policy gradient."""

    agent = "ddpg"


@part
class Sac(SacKeys, Learned):
    """Soft actor-critic: a stochastic policy whose reward includes the entropy of its actions."""


@part
class Apg(ApgKeys, Learned):
    """Analytic policy gradient: the delay of a slot is differentiable, so its gradient trains the policy directly."""
