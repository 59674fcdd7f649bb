"""The keys of the allocators that learn: what is trained, how, and on what."""

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
    """What all agents have in common."""

    agent: ClassVar[Agent]

    checkpoint: str | None = None
    """File of a trained policy to use; none: train one, or find it in the cache."""
    policy: NetworkKind = "set"
    """Network: one shared by all MUs, for any K and M, or one on all observations at once, for the K and M trained."""
    action: ActionKind = "residual"
    """What the network puts out: corrections of the proportional allocation, shares that sum to 1, or free shares."""
    train_users: int = Field(default=20, ge=1, le=1000)
    """Number of MUs in the slots that it is trained on."""
    environment_steps: int = Field(default=40000, ge=1)
    """Training slots."""
    hidden: int = Field(default=32, ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(default=2.0, gt=0.0)
    """A compute share is corrected by a factor of e^-range to e^range before normalisation."""
    upload_range: float = Field(default=1.0, gt=0.0)
    """The odds of the upload fraction are corrected by a factor of e^-range to e^range (residual)."""
    data_penalty: float = Field(default=1.0, ge=0.0)
    """λ1 of (19), for data left undone or done twice (raw); where it is low, it pays to leave all data undone."""
    compute_penalty: float = Field(default=1.0, ge=0.0)
    """λ2 of (19), for compute beyond a BS's capacity (raw)."""
    reward: Reward = "station_log_ratio"
    """Reward (19) over the slot's proportional delay: of every BS, or of the slowest only."""
    evaluate_every: int = Field(default=4000, ge=1)
    """Training slots between two measurements of the gap."""
    save_every: int = Field(default=4000, ge=1)
    """Training slots between two savings of the training's state, from which it goes on after a kill."""
    held_out_slots: int = Field(default=500, ge=1)
    """Slots that the gap is measured on; never trained on."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training, apart from a run's own: one policy serves all runs."""

    def __post_init__(self) -> None:
        """Keys that must fit each other are checked by the agents that have them."""

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


@part
class OffPolicyKeys(LearnedKeys):
    """Keys of the agents that learn a value network from a replay buffer."""

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
    sharpness: float = Field(default=50.0, gt=0.0)
    """Sharpness of the critic's smooth maximum over MUs (set)."""

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
class SacKeys(OffPolicyKeys):
    """Keys of soft actor-critic."""

    agent = "sac"

    noise: float = Field(default=0.05, gt=0.0)
    """Standard deviation of the policy at the start, before the tanh that bounds an action to [-1, 1]."""
    target_entropy: float = Field(default=-2.5, le=0.7)
    """Entropy in nat of each number of an action, that the weight of the entropy is steered to."""
    entropy_weight: float = Field(default=1.0e-3, gt=0.0)
    """Weight α of an action's entropy (per number) at the start."""
    entropy_learning_rate: float = Field(default=1.0e-3, gt=0.0)
    """Adam's step for log α."""


@part
class ApgKeys(LearnedKeys):
    """Keys of the analytic policy gradient."""

    agent = "apg"

    environment_steps: int = Field(default=400000, ge=1)
    """Training slots, each seen once."""
    hidden: int = Field(default=64, ge=1)
    """Width of the hidden layers."""
    evaluate_every: int = Field(default=20000, ge=1)
    """Training slots between two measurements of the gap."""
    save_every: int = Field(default=40000, ge=1)
    """Training slots between two savings of the training's state, from which it goes on after a kill."""
    least_users: int = Field(default=5, ge=1, le=1000)
    """Fewest MUs of a slot (set)."""
    most_users: int = Field(default=100, ge=1, le=1000)
    """Most MUs of a slot (set); every second update has train_users, the others any number in between."""
    unloaded_share: float = Field(default=0.25, ge=0.0, le=1.0)
    """Part of the slots that lose their retraining loads, or many MUs without any would never be seen."""
    batch_size: int = Field(default=64, ge=1)
    """Slots of train_users in a gradient update; in proportion fewer or more for another number."""
    learning_rate: float = Field(default=3.0e-3, gt=0.0)
    """Adam's step at the start; falls to 0 along half a cosine."""
    sharpness: float = Field(default=20.0, gt=0.0)
    """Sharpness of the smooth maximum over MUs at the start."""
    final_sharpness: float = Field(default=1000.0, gt=0.0)
    """Sharpness at the end, which is as good as the maximum itself."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.least_users > self.most_users:
            raise ValueError(f"least_users={self.least_users}: must be <= most_users")
