"""The keys of the learned allocators: what is trained, how, and on which slots."""

from __future__ import annotations

import math
from typing import ClassVar, Literal

from pydantic import Field

from dtsim.allocation.allocator import AllocatorKeys
from dtsim.allocation.learned.actions import ActionKind
from dtsim.allocation.learned.checkpoint import Agent, Design
from dtsim.allocation.learned.networks import NetworkKind
from dtsim.allocation.learned.observation import Reward
from dtsim.core.parts import part


@part
class LearnedKeys(AllocatorKeys):
    """Keys that all agents share."""

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
    least_users: int = Field(default=5, ge=1, le=1000)
    """Fewest MUs of a training slot (set)."""
    most_users: int = Field(default=100, ge=1, le=1000)
    """Most MUs of a training slot (set); every second draw of slots has train_users, the others any number in
    between."""
    unloaded_share: float = Field(default=0.25, ge=0.0, le=1.0)
    """Share of the training slots that lose their retraining loads; without it, many MUs with no load would never be
    seen."""
    environment_steps: int = Field(default=60000, ge=1)
    """Length of the training [slots]; APG sees each slot once. The other agents count slots of train_users MUs."""
    hidden: int = Field(default=32, ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(default=2.0, gt=0.0, le=20.0)
    """A compute share is multiplied by a factor from e^-range to e^range before normalisation."""
    upload_range: float = Field(default=1.0, gt=0.0, le=20.0)
    """The odds of the upload fraction are multiplied by a factor from e^-range to e^range (residual)."""
    data_penalty: float = Field(default=1.0, ge=0.0, le=1e6)
    """λ1 of (19), per MU and fraction of its data left undone or done twice (raw); where it is low, leaving all undone
    pays."""
    compute_penalty: float = Field(default=1.0, ge=0.0, le=1e6)
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
    """Seed of the training, independent of the run's seed: one policy serves all runs."""

    def __post_init__(self) -> None:
        if self.least_users > self.most_users:
            raise ValueError(f"least_users={self.least_users}: must be <= most_users")

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
    """Training over which the policy's learning rate rises, while the critic starts to learn [slots]."""
    environments: int = Field(default=100, ge=1)
    """Slots of train_users MUs collected at once between updates; in proportion fewer or more for another number."""
    update_ratio: float = Field(default=0.1, gt=0.0, le=100.0)
    """Gradient updates per training slot [1/slot]."""
    batch_size: int = Field(default=64, ge=1)
    """Size of a gradient update's batch [slots of train_users MUs]; in proportion fewer or more for another number."""
    buffer_slots: int = Field(default=40000, ge=1)
    """Size of the replay buffer [slots of train_users MUs]."""
    actor_learning_rate: float = Field(default=2.0e-3, gt=0.0, le=100.0)
    """Adam's learning rate for the policy after the warm-up; decreases linearly to 0."""
    critic_learning_rate: float = Field(default=8.0e-3, gt=0.0, le=100.0)
    """Adam's learning rate for the value network at the start; decreases linearly to 0."""
    noise: float = Field(default=0.1, ge=0.0, le=100.0)
    """Standard deviation of the exploration noise; actions reach from -1 to 1."""
    gamma: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Discount; 0 is exact for the delay, since a slot's allocation changes no later delay of P3."""
    fit: Literal["delays", "reward"] = "delays"
    """What the value network is fitted to. `delays`: the delay of every MU, of which it then takes the slowest; needs a
    set policy, gamma 0 and actions that are not raw, else it is as `reward`: the slot's reward alone."""
    sharpness: float = Field(default=100.0, gt=0.0, le=1e6)
    """Sharpness of the critic's smooth maximum over MUs; higher is closer to the maximum (set)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.update_ratio * self.rounds * self.environments < 1:
            raise ValueError(
                f"update_ratio={self.update_ratio}: must be >= 1 / environment_steps, or there is no update"
            )
        if self.buffer_slots < self.environments:
            raise ValueError(f"buffer_slots={self.buffer_slots}: must be >= environments")

    @property
    def fits_delays(self) -> bool:
        """Whether the value network is fitted to the delays of MUs."""
        return self.fit == "delays" and self.policy == "set" and self.gamma == 0 and self.action != "raw"

    @property
    def rounds(self) -> int:
        """Number of collections of `environments` slots: covers environment_steps, rounded up."""
        return math.ceil(self.environment_steps / self.environments)


@part
class SacKeys(OffPolicyKeys):
    """Keys of soft actor-critic."""

    agent = "sac"

    noise: float = Field(default=0.05, gt=0.0, le=100.0)
    """Standard deviation of the policy at the start, before the tanh that bounds an action to -1 … 1."""
    target_entropy: float = Field(default=-2.5, ge=-1000.0, le=0.7)
    """Entropy of each number of an action that the entropy's weight is steered to [nat]."""
    entropy_weight: float = Field(default=1.0e-3, gt=0.0, le=1000.0)
    """Weight α of an action's entropy, per number, at the start."""
    entropy_learning_rate: float = Field(default=1.0e-3, gt=0.0, le=100.0)
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
    batch_size: int = Field(default=64, ge=1)
    """Slots of train_users MUs in a gradient update; in proportion fewer or more for another number."""
    learning_rate: float = Field(default=3.0e-3, gt=0.0, le=100.0)
    """Adam's learning rate at the start; decreases to 0 along half a cosine."""
    sharpness: float = Field(default=20.0, gt=0.0, le=1e6)
    """Sharpness of the smooth maximum over MUs at the start."""
    final_sharpness: float = Field(default=1000.0, gt=0.0, le=1e6)
    """Sharpness of the smooth maximum over MUs at the end, when it is as good as the maximum itself."""
