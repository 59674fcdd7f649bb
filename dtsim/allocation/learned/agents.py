"""Allocators that learn."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from dtsim.allocation.learned.actions import ActionKind
from dtsim.allocation.learned.checkpoint import Agent, Design, TrainedPolicy, load
from dtsim.allocation.learned.networks import NetworkKind
from dtsim.allocation.learned.observation import Reward
from dtsim.allocation.problem import Allocation, AllocationProblem, ProblemSource
from dtsim.core.cache import Cache
from dtsim.core.parts import part, validated
from dtsim.core.progress import Progress

VERSION = 2
"""Raised when features, networks or training change, so that weights kept from before are not used."""

# Keys that do not change what is learned.
_NOT_IN_DIGEST = ("checkpoint", "save_every")


@part
class Learned:
    """A policy trained on slots of the twin's copy of the network, and what all agents have in common.

    It is kept under the digest of its keys and of that copy's description: trained once, used by every run that asks
    for the same. With `checkpoint` a policy is taken from a file instead, whatever it was trained on, and the keys of
    its design (policy, action, hidden, ranges) are those of the file.
    """

    agent: ClassVar[Agent]

    checkpoint: str | None = None
    """File of a trained policy [path], used whatever it was trained on; null: train one, or find it in the cache."""
    policy: NetworkKind = "set"
    """`set`: one network shared by all MUs, for any K and M; `flat`: one perceptron on all of them, for the K and M
    trained."""
    action: ActionKind = "residual"
    """`residual` corrects the proportional shares; `simplex` is a softmax (try compute_range 4); `raw` shares are free,
    pay penalties and are projected when used."""
    train_users: int = Field(default=20, ge=1, le=1000)
    """MUs in the slots that it is trained on; a set policy then serves any number, a flat one this number only."""
    environment_steps: int = Field(default=40000, ge=1)
    """Length of the training [slots]; APG sees each slot once."""
    hidden: int = Field(default=32, ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(default=2.0, gt=0.0)
    """A compute share is corrected by a factor of e^-range to e^range before normalisation."""
    upload_range: float = Field(default=1.0, gt=0.0)
    """The odds of the upload fraction are corrected by a factor of e^-range to e^range (residual)."""
    data_penalty: float = Field(default=1.0, ge=0.0)
    """λ1 of (19), per MU and fraction of its data left undone or done twice (raw); where it is low, leaving all undone
    pays."""
    compute_penalty: float = Field(default=1.0, ge=0.0)
    """λ2 of (19), per BS and fraction of its capacity exceeded (raw)."""
    reward: Reward = "station_log_ratio"
    """`station_log_ratio`: mean over BSs of -log(delay / proportional's delay); `log_ratio`: the same of the
    makespan."""
    evaluate_every: int = Field(default=4000, ge=1)
    """Training between two measurements of the gap to the optimum [slots]."""
    save_every: int = Field(default=4000, ge=1)
    """Training between two savings of its state [slots]; a training that was killed goes on from the last."""
    held_out_slots: int = Field(default=500, ge=1)
    """Size of the held-out set that the gap is measured on, never trained on [slots]."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training, apart from a run's own: one policy serves all runs."""

    def __post_init__(self) -> None:
        if self.checkpoint is not None:
            try:
                self._trained["policy"], self._trained["curve"] = load(self.checkpoint, self.agent)
            except ValueError as error:
                raise ValueError(f"checkpoint={self.checkpoint!r}: {error}") from None

    def prepare(self, source: ProblemSource, cache: Cache, progress: Progress) -> list[dict[str, Any]]:
        """Load the policy trained on `source`, or train it; returns the rows of its learning curve.

        The weights kept are those with the smallest mean gap on held-out slots. A training that was killed goes on
        where its state was last saved, and ends with the same weights as if it had not been.

        Raises:
            TrainingDiverged: where the policy's actions are no longer numbers.
        """
        if self.checkpoint is None:
            keys = {name: value for name, value in dataclasses.asdict(self).items() if name not in _NOT_IN_DIGEST}
            content = {"allocator": self.agent, "version": VERSION, "keys": keys, "source": source.description()}
            path = cache.path("policy", content)
            state_file = path.with_suffix(".training")

            def make() -> dict[str, Any]:
                from dtsim.allocation.learned.training import train  # Tianshou takes seconds to import

                made = train(self, source, state_file, progress)
                progress.say(f"policy kept: {path} (allocator.checkpoint={path} uses it anywhere)")
                return made | {"content": content}

            entry = cache.get("policy", content, make)
            if state_file.exists():  # of no use once the policy is kept
                state_file.unlink(missing_ok=True)
            self._trained["policy"] = TrainedPolicy(validated(Design, entry["design"]), entry["actor"])
            self._trained["curve"] = entry["curve"]
        rows: list[dict[str, Any]] = self._trained["curve"]
        return rows

    def check_fits(self, *, users: int, stations: int) -> None:
        """Refuse a number of MUs or BSs that the policy could not serve.

        Raises:
            ConfigError: where a `flat` policy meets another number of MUs or BSs than it is trained with.
        """
        policy: TrainedPolicy | None = self._trained.get("policy")
        design = self.design(stations) if policy is None else policy.design
        design.check_fits(users, stations)

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The trained policy's allocation, any leading dimensions; `set` policies serve any number of MUs and BSs.

        Raises:
            RuntimeError: where `prepare` was not called.
            ConfigError: where a `flat` policy meets another number of MUs or BSs than it was trained with.
        """
        if "policy" not in self._trained:
            raise RuntimeError("the policy is not there yet: call prepare first")
        policy: TrainedPolicy = self._trained["policy"]
        return policy.allocate(problem)

    def design(self, stations: int) -> Design:
        """What the policy is built from where the slots trained on have `stations` BSs."""
        return Design(
            agent=self.agent,
            policy=self.policy,
            action=self.action,
            hidden=self.hidden,
            compute_range=self.compute_range,
            upload_range=self.upload_range,
            users=self.train_users,
            stations=stations,
        )

    @cached_property
    def _trained(self) -> dict[str, Any]:
        return {}


@part
class OffPolicy(Learned):
    """Keys of the agents that learn a value network from a replay buffer."""

    warmup_steps: int = Field(default=8000, ge=0)
    """Training over which the policy's learning rate rises, while the critic starts to learn [slots]."""
    environments: int = Field(default=100, ge=1)
    """Slots collected at once between updates."""
    update_ratio: float = Field(default=0.1, gt=0.0)
    """Gradient updates per training slot [1/slot]."""
    batch_size: int = Field(default=64, ge=1)
    """Size of a gradient update's batch [slots]."""
    buffer_slots: int = Field(default=40000, ge=1)
    """Size of the replay buffer [slots]."""
    actor_learning_rate: float = Field(default=1.0e-3, gt=0.0)
    """Adam's step for the policy after the warm-up; falls linearly to 0."""
    critic_learning_rate: float = Field(default=8.0e-3, gt=0.0)
    """Adam's step for the value network at the start; falls linearly to 0."""
    noise: float = Field(default=0.03, ge=0.0)
    """Standard deviation of the exploration noise; actions reach from -1 to 1."""
    gamma: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Discount; 0 is exact, since a slot's allocation changes nothing later."""
    sharpness: float = Field(default=50.0, gt=0.0)
    """Sharpness of the critic's smooth maximum over MUs; higher is closer to the maximum (set)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update_ratio * self.rounds * self.environments < 1:
            raise ValueError(
                f"update_ratio={self.update_ratio}: must be >= 1 / environment_steps, or nothing is ever learned"
            )
        if self.buffer_slots < self.environments:
            raise ValueError(f"buffer_slots={self.buffer_slots}: must be >= environments")

    @property
    def rounds(self) -> int:
        """How often `environments` slots are collected: environment_steps, rounded up to whole rounds."""
        return math.ceil(self.environment_steps / self.environments)


@part
class Ddpg(OffPolicy):
    """Deep deterministic policy gradient."""

    agent = "ddpg"


@part
class Sac(OffPolicy):
    """Soft actor-critic: its policy explores by a spread of its own, whose entropy it is paid for."""

    agent = "sac"

    noise: float = Field(default=0.05, gt=0.0)
    """Standard deviation of the policy at the start, before the tanh that bounds an action to -1 … 1."""
    target_entropy: float = Field(default=-2.5, le=0.7)
    """Entropy of each number of an action that the entropy's weight is steered to [nat]."""
    entropy_weight: float = Field(default=1.0e-3, gt=0.0)
    """Weight α of an action's entropy, per number, at the start."""
    entropy_learning_rate: float = Field(default=1.0e-3, gt=0.0)
    """Adam's step for log α."""


@part
class Apg(Learned):
    """Analytic policy gradient: the delay of a slot is differentiable, so the policy is trained through it."""

    agent = "apg"

    environment_steps: int = Field(default=400000, ge=1)
    hidden: int = Field(default=64, ge=1)
    evaluate_every: int = Field(default=20000, ge=1)
    save_every: int = Field(default=40000, ge=1)
    least_users: int = Field(default=5, ge=1, le=1000)
    """Fewest MUs of a training slot (set)."""
    most_users: int = Field(default=100, ge=1, le=1000)
    """Most MUs of a training slot (set); every second update has train_users, the others any number in between."""
    unloaded_share: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of the training slots that lose their retraining loads; without it, many MUs with no load would never be
    seen."""
    batch_size: int = Field(default=64, ge=1)
    """Slots of train_users MUs in a gradient update; in proportion fewer or more for another number."""
    learning_rate: float = Field(default=3.0e-3, gt=0.0)
    """Adam's step at the start; falls to 0 along half a cosine."""
    sharpness: float = Field(default=20.0, gt=0.0)
    """Sharpness of the smooth maximum over MUs at the start."""
    final_sharpness: float = Field(default=1000.0, gt=0.0)
    """Sharpness of the smooth maximum over MUs at the end, when it is as good as the maximum itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_users > self.most_users:
            raise ValueError(f"least_users={self.least_users}: must be <= most_users")
