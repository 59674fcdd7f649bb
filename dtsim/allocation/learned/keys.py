"""The keys of the learned allocators: what is trained, how, and on which slots."""

from __future__ import annotations

import math
from typing import ClassVar

from pydantic import Field

from dtsim.allocation.learned.actions import ActionKind
from dtsim.allocation.learned.checkpoint import Agent, Design
from dtsim.allocation.learned.networks import NetworkKind
from dtsim.allocation.learned.observation import Reward
from dtsim.core.parts import part


@part
class LearnedKeys:
    """Keys that all agents share."""

    agent: ClassVar[Agent]

    checkpoint: str | None = None
    """File of a trained policy to use; if null, the policy is taken from the cache or trained."""
    policy: NetworkKind = "set"
    """Network: `set` is shared by all MUs and serves any K and M; `flat` sees all MUs at once, for one K and M."""
    action: ActionKind = "residual"
    """Meaning of the outputs: corrections of the proportional allocation, shares that sum to 1, or free shares."""
    train_users: int = Field(default=20, ge=1, le=1000)
    """Number of MUs in the training slots."""
    environment_steps: int = Field(default=40000, ge=1)
    """Training slots."""
    hidden: int = Field(default=32, ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(default=2.0, gt=0.0)
    """A compute share is multiplied by a factor from e^-range to e^range before normalisation."""
    upload_range: float = Field(default=1.0, gt=0.0)
    """The odds of the upload fraction are multiplied by a factor from e^-range to e^range (residual)."""
    data_penalty: float = Field(default=1.0, ge=0.0)
    """λ1 of (19), for data left undone or done twice (raw); if it is too low, leaving all data undone is best."""
    compute_penalty: float = Field(default=1.0, ge=0.0)
    """λ2 of (19), for compute beyond a BS's capacity (raw)."""
    reward: Reward = "station_log_ratio"
    """Reward (19) relative to the slot's proportional delay: of every BS, or of the slowest only."""
    evaluate_every: int = Field(default=4000, ge=1)
    """Training slots between two measurements of the gap."""
    save_every: int = Field(default=4000, ge=1)
    """Training slots between two saves of the training state, from which an interrupted training resumes."""
    held_out_slots: int = Field(default=500, ge=1)
    """Slots for measuring the gap; never used for training."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training, independent of the run's seed: one policy serves all runs."""

    def __post_init__(self) -> None:
        """Check keys that depend on each other; agents with such keys override this."""

    def design(self, stations: int) -> Design:
        """The design of the policy when the training slots have `stations` BSs."""
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


@part
class OffPolicyKeys(LearnedKeys):
    """Keys of the agents that learn a value network from a replay buffer."""

    warmup_steps: int = Field(default=8000, ge=0)
    """Training slots over which the policy's learning rate rises, so that the critic can learn first."""
    environments: int = Field(default=100, ge=1)
    """Slots collected at once between updates."""
    update_ratio: float = Field(default=0.1, gt=0.0)
    """Gradient updates per training slot."""
    batch_size: int = Field(default=64, ge=1)
    """Slots in a gradient update."""
    buffer_slots: int = Field(default=40000, ge=1)
    """Capacity of the replay buffer, in slots."""
    actor_learning_rate: float = Field(default=1.0e-3, gt=0.0)
    """Adam's learning rate for the policy after the warm-up; decreases linearly to 0."""
    critic_learning_rate: float = Field(default=8.0e-3, gt=0.0)
    """Adam's learning rate for the value network at the start; decreases linearly to 0."""
    noise: float = Field(default=0.03, ge=0.0)
    """Standard deviation of the exploration noise, in units of the action's range [-1, 1]."""
    gamma: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Discount; 0 is exact, since a slot's allocation changes nothing later."""
    sharpness: float = Field(default=50.0, gt=0.0)
    """Sharpness of the critic's smooth maximum over MUs (set)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update_ratio * self.rounds * self.environments < 1:
            raise ValueError(
                f"update_ratio={self.update_ratio}: must be >= 1 / environment_steps, or there is no update"
            )
        if self.buffer_slots < self.environments:
            raise ValueError(f"buffer_slots={self.buffer_slots}: must be >= environments")

    @property
    def rounds(self) -> int:
        """Number of collections of `environments` slots: covers environment_steps, rounded up."""
        return math.ceil(self.environment_steps / self.environments)


@part
class SacKeys(OffPolicyKeys):
    """Keys of soft actor-critic."""

    agent = "sac"

    noise: float = Field(default=0.05, gt=0.0)
    """Standard deviation of the policy at the start, before the tanh that bounds an action to [-1, 1]."""
    target_entropy: float = Field(default=-2.5, le=0.7)
    """Target entropy of each number of an action, in nat; the entropy weight is adjusted to reach it."""
    entropy_weight: float = Field(default=1.0e-3, gt=0.0)
    """Initial weight α of an action's entropy (per number)."""
    entropy_learning_rate: float = Field(default=1.0e-3, gt=0.0)
    """Adam's learning rate for log α."""


@part
class ApgKeys(LearnedKeys):
    """Keys of the analytic policy gradient."""

    agent = "apg"

    environment_steps: int = Field(default=400000, ge=1)
    """Training slots; each is used once."""
    hidden: int = Field(default=64, ge=1)
    """Width of the hidden layers."""
    evaluate_every: int = Field(default=20000, ge=1)
    """Training slots between two measurements of the gap."""
    save_every: int = Field(default=40000, ge=1)
    """Training slots between two saves of the training state, from which an interrupted training resumes."""
    least_users: int = Field(default=5, ge=1, le=1000)
    """Smallest number of MUs in a slot (set)."""
    most_users: int = Field(default=100, ge=1, le=1000)
    """Largest number of MUs in a slot (set); every second update has train_users, the others any number in between."""
    unloaded_share: float = Field(default=0.25, ge=0.0, le=1.0)
    """Fraction of the slots without retraining loads; otherwise large K without any load would never be seen."""
    batch_size: int = Field(default=64, ge=1)
    """Slots in a gradient update at train_users; scaled in inverse proportion for other numbers of MUs."""
    learning_rate: float = Field(default=3.0e-3, gt=0.0)
    """Adam's learning rate at the start; decreases to 0 along half a cosine."""
    sharpness: float = Field(default=20.0, gt=0.0)
    """Sharpness of the smooth maximum over MUs at the start."""
    final_sharpness: float = Field(default=1000.0, gt=0.0)
    """Sharpness at the end, where the smooth maximum is practically exact."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_users > self.most_users:
            raise ValueError(f"least_users={self.least_users}: must be <= most_users")
