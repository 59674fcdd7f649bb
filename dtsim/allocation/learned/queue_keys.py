"""The keys of the allocators that learn among queues: what is trained, how, and on which slots."""

from __future__ import annotations

import math
from typing import ClassVar, Literal, TypeAlias

from pydantic import Field

from dtsim.allocation.allocator import AllocatorKeys
from dtsim.allocation.gym.queue_frames import QueueRules
from dtsim.allocation.learned.queue_policy import QueueAgent, QueueDesign
from dtsim.core.parts import part

Loads: TypeAlias = tuple[float, float]


@part
class QueueKeys(AllocatorKeys):
    """Keys that agents among queues share."""

    agent: ClassVar[QueueAgent]
    contiguous_only: ClassVar[Literal[True]] = True
    """They see what waits, and cannot decide where nothing does (`time.mode=snapshots`)."""

    checkpoint: str | None = None
    """File of a trained policy [path], used whatever it was trained on; null: train one, or find it in the cache."""
    train_users: int = Field(default=20, ge=1, le=1000)
    """MUs of the networks that it is trained on; the policy then serves any number."""
    environment_steps: int = Field(default=60000, ge=1)
    """Length of the training [slots]."""
    horizon: int = Field(default=100, ge=2, le=100000)
    """Slots of an episode, in which the training jobs that come at its start are due."""
    slot_s: float = Field(default=0.1, gt=0.0, le=1e6)
    """Length of these slots [s]."""
    networks: int = Field(default=512, ge=1, le=100000)
    """Networks that episodes take place in."""
    least_load: float = Field(default=1.0, gt=0.0, le=1e6)
    """Least factor of the captured data in an episode."""
    most_load: float = Field(default=10.0, gt=0.0, le=1e6)
    """Largest factor of the captured data in an episode; all scales in between are equally likely."""
    training: float = Field(default=0.3, ge=0.0, le=100.0)
    """Part of the BSs' compute that training jobs ask for on average."""
    deadline_s: float = Field(default=0.1, gt=0.0, le=1e6)
    """Unit of delays in the reward [s]: a slot pays -log(1 + delay / deadline_s), mean over MUs."""
    overdue_weight: float = Field(default=1.0, ge=0.0, le=1e6)
    """What training that is overdue counts in the reward: the slot pays -log(1 + that, in slots of its BS) times it."""
    hidden: int = Field(default=48, ge=1)
    """Width of the hidden layers."""
    compute_range: float = Field(default=2.0, gt=0.0, le=20.0)
    """A compute share is multiplied by a factor from e^-range to e^range before normalisation."""
    upload_range: float = Field(default=2.0, gt=0.0, le=20.0)
    """The odds of the upload fraction are multiplied by a factor from e^-range to e^range."""
    training_range: float = Field(default=2.0, gt=0.0, le=20.0)
    """The weight of due training beside inference is multiplied by a factor from e^-range to e^range."""
    gamma: float = Field(default=0.8, ge=0.0, lt=1.0)
    """Discount: what is left undone in a slot delays the tasks of later ones."""
    environments: int = Field(default=20, ge=1)
    """Environments that step at once between updates."""
    update_ratio: float = Field(default=0.1, gt=0.0, le=100.0)
    """Gradient updates per training slot [1/slot]."""
    batch_size: int = Field(default=64, ge=1)
    """Size of a gradient update's batch [slots]."""
    buffer_slots: int = Field(default=20000, ge=1)
    """Size of the replay buffer [slots]."""
    warmup_steps: int = Field(default=6000, ge=0)
    """Training over which the policy's learning rate rises, while the critic starts to learn [slots]."""
    actor_learning_rate: float = Field(default=1.0e-3, gt=0.0, le=100.0)
    """Adam's learning rate for the policy after the warm-up; decreases linearly to 0."""
    critic_learning_rate: float = Field(default=1.0e-3, gt=0.0, le=100.0)
    """Adam's learning rate for the value network at the start; decreases linearly to 0."""
    noise: float = Field(default=0.2, ge=0.0, le=100.0)
    """Standard deviation of the exploration noise; actions reach from -1 to 1."""
    evaluate_every: int = Field(default=10000, ge=1)
    """Training between two measurements of the reward on held-out episodes [slots]; the best policy is kept."""
    save_every: int = Field(default=10000, ge=1)
    """Training between two savings of its state [slots]; a training that was killed goes on from the last."""
    held_out_episodes: int = Field(default=32, ge=1)
    """Number of held-out episodes, never trained on."""
    seed: int = Field(default=0, ge=0)
    """Seed of the training, independent of the run's seed: one policy serves all runs."""

    def __post_init__(self) -> None:
        if self.least_load > self.most_load:
            raise ValueError(f"least_load={self.least_load}: must be <= most_load")
        if self.buffer_slots < self.environments:
            raise ValueError(f"buffer_slots={self.buffer_slots}: must be >= environments")

    @property
    def rules(self) -> QueueRules:
        """The episodes that it is trained on."""
        return QueueRules(
            horizon=self.horizon,
            slot_s=self.slot_s,
            load=(self.least_load, self.most_load),
            training=self.training,
            deadline_s=self.deadline_s,
            overdue_weight=self.overdue_weight,
            compute_range=self.compute_range,
            upload_range=self.upload_range,
            training_range=self.training_range,
        )

    @property
    def rounds(self) -> int:
        """Number of episodes of all environments: covers environment_steps, rounded up."""
        return math.ceil(self.environment_steps / (self.environments * self.horizon))

    @property
    def design(self) -> QueueDesign:
        """The design of the policy."""
        return QueueDesign(
            agent=self.agent,
            hidden=self.hidden,
            compute_range=self.compute_range,
            upload_range=self.upload_range,
            training_range=self.training_range,
        )


@part
class QueueSacKeys(QueueKeys):
    """Keys of soft actor-critic among queues."""

    agent = "queue_sac"

    environment_steps: int = Field(default=50000, ge=1)
    """Length of the training [slots]."""
    noise: float = Field(default=0.2, gt=0.0, le=100.0)
    """Standard deviation of the policy at the start, before the tanh that bounds an action to -1 … 1."""
    target_entropy: float = Field(default=-0.2, ge=-1000.0, le=0.7)
    """Entropy of each number of an action that the entropy's weight is steered to [nat]."""
    entropy_weight: float = Field(default=1.0e-3, gt=0.0, le=1000.0)
    """Weight α of an action's entropy, per number, at the start."""
    entropy_learning_rate: float = Field(default=1.0e-3, gt=0.0, le=100.0)
    """Adam's learning rate for log α."""
