"""Allocators that learn among queues: each has its keys, trains or loads a policy, and allocates with it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cached_property
from typing import cast

from dtsim.allocation.learned.checkpoint import load_as
from dtsim.allocation.learned.queue_keys import QueueKeys, QueueSacKeys
from dtsim.allocation.learned.queue_policy import QueuePolicy, queue_policy_of
from dtsim.allocation.problem import Allocation, AllocationProblem, FrameSource, ProblemSource
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem
from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError, part
from dtsim.core.progress import Progress
from dtsim.core.rows import Row

VERSION = 1
"""Increase this when features, networks or training change, so that old cached weights are not used."""

_NOT_IN_DIGEST = ("checkpoint", "save_every", "min_upload")


@dataclass
class _InUse:
    policy: QueuePolicy | None = None
    curve: list[Row] = field(default_factory=list)


@part
class QueueLearned(QueueKeys):
    """A policy trained in `dtsim/Queues-v0` on the twin's copy of the network; the base class of its agents.

    Kept in the cache and loaded from a `checkpoint` as those of `agents.Learned`.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.checkpoint is not None:
            try:
                self._in_use.policy, self._in_use.curve = load_as(queue_policy_of, self.checkpoint, self.agent)
            except ValueError as error:
                raise ValueError(f"checkpoint={self.checkpoint!r}: {error}") from None

    def prepare(self, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
        """Load the policy trained on the frames of `source`, or train it; returns the rows of its learning curve.

        The policy with the largest mean reward in held-out episodes is kept. An interrupted training resumes from its
        last saved state and ends with the same weights as an uninterrupted one.

        Raises:
            ConfigError: if `source` has no frames.
            TrainingDiverged: if the policy's actions are not finite.
        """
        if self.checkpoint is None:
            if not hasattr(source, "frames"):
                raise ConfigError([f"allocator={self.agent}: needs a network whose slots come in frames"])
            keys = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_IN_DIGEST}
            content = {"allocator": self.agent, "version": VERSION, "keys": keys, "source": source.description()}
            path = cache.path("policy", content)
            state_file = path.with_suffix(".training")

            def make() -> dict[str, object]:
                from dtsim.allocation.learned.queue_training import train_queues  # Tianshou takes seconds to import

                made = train_queues(self, cast(FrameSource, source), state_file, progress)
                progress.say(f"policy kept: {path} (allocator.checkpoint={path} uses it anywhere)")
                return {**made, "content": content}

            entry = cache.get("policy", content, make)
            state_file.unlink(missing_ok=True)  # not needed once the policy is cached
            self._in_use.policy, self._in_use.curve = queue_policy_of(entry)
        return self._in_use.curve

    def serve(self, problem: QueueProblem) -> QueueAllocation:
        """The trained policy's allocation, any leading dimensions, any number of MUs and BSs.

        Raises:
            RuntimeError: if `prepare` was not called.
        """
        if self._in_use.policy is None:
            raise RuntimeError("the policy is not there yet: call prepare first")
        return self._in_use.policy.serve(problem)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Refuse: without queues there is nothing for this policy to see.

        Raises:
            ConfigError: always.
        """
        raise ConfigError([f"allocator={self.agent}: decides among queues, needs time.mode=contiguous"])

    @cached_property
    def _in_use(self) -> _InUse:
        return _InUse()


@part
class QueueDdpg(QueueLearned):
    """Deep deterministic policy gradient among queues."""

    agent = "queue_ddpg"


@part
class QueueSac(QueueSacKeys, QueueLearned):
    """Soft actor-critic among queues."""
