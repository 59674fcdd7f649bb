"""What agents with a replay buffer have in common: Tianshou's policies and algorithms on tensors, and rounds.

Import it only for training: Tianshou takes seconds to import.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self, TypeVar, cast

import gymnasium
import torch
from tianshou.algorithm.modelfree.ddpg import (
    DDPG,
    ActorCriticOffPolicyAlgorithm,
    ContinuousDeterministicPolicy,
    DDPGTrainingStats,
)
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy, SACTrainingStats
from tianshou.algorithm.optim import LRSchedulerFactory, TorchOptimizerFactory
from tianshou.data import Batch, ReplayBuffer
from tianshou.data.types import (
    ActBatchProtocol,
    ActStateBatchProtocol,
    DistLogProbBatchProtocol,
    ObsBatchProtocol,
    RolloutBatchProtocol,
)
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from dtsim.allocation.learned.learner import State
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.learned.replay_buffer import SlotReplay
from dtsim.core.checked import checked

_Policy = TypeVar("_Policy", ContinuousDeterministicPolicy, SACPolicy)
_Decided = TypeVar("_Decided", ActBatchProtocol, DistLogProbBatchProtocol)


class Deterministic(ContinuousDeterministicPolicy):
    """Tianshou's policy for DDPG on tensors; it skips the slow compilation of n-step returns."""

    def forward(
        self, batch: ObsBatchProtocol, state: object = None, model: nn.Module | None = None, **_: object
    ) -> ActStateBatchProtocol:
        """See Tianshou."""
        return cast(ActStateBatchProtocol, Batch(act=(model or self.actor)(batch.obs)))

    @staticmethod
    def _compile() -> None:
        pass


class Stochastic(SACPolicy):
    """Tianshou's policy for SAC on tensors, with its own random generator.

    Log probabilities are averaged over the numbers of an action, so that entropies do not grow with the number of MUs.
    """

    def __init__(self, actor: Actor, noise: float, rng: torch.Generator, space: gymnasium.spaces.Box) -> None:
        super().__init__(actor=actor, action_space=space, action_scaling=False)
        self.usual, self.rng = math.log(noise), rng

    def forward(self, batch: ObsBatchProtocol, state: object = None, **_: object) -> DistLogProbBatchProtocol:
        """See Tianshou."""
        scores = cast(Actor, self.actor).scores(checked(batch.obs, Tensor, "obs"))
        columns = scores.shape[-1] // 2
        spread = (self.usual + scores[..., columns:]).clamp(-6.0, 1.0)  # log standard deviation
        normal = torch.randn(spread.shape, generator=self.rng)
        unbounded = scores[..., :columns] + spread.exp() * normal
        log_density = -0.5 * normal.square() - spread - 0.5 * math.log(2 * math.pi)
        # Log of 1 - tanh^2: the change of density caused by the tanh bound.
        squeeze = 2 * (math.log(2.0) - unbounded - nn.functional.softplus(-2 * unbounded))
        log_prob = self.averaged(log_density - squeeze)
        return cast(DistLogProbBatchProtocol, Batch(act=torch.tanh(unbounded), log_prob=log_prob))

    def averaged(self, log_prob: Tensor) -> Tensor:
        """Mean over the numbers of an action [n, K, columns]: [n, 1]."""
        return log_prob.flatten(1).mean(-1, keepdim=True)

    @staticmethod
    def _compile() -> None:
        pass


class Modeless(ActorCriticOffPolicyAlgorithm[_Policy, _Decided]):
    """An algorithm none of whose layers depends on the training mode."""

    def train(self, mode: bool = True) -> Self:
        """Do nothing: no layer here depends on the training mode, and walking all modules takes time."""
        return self


class LeanDdpg(DDPG):
    """Tianshou's DDPG with a cheaper step of the policy."""

    def _update_with_batch(self, batch: RolloutBatchProtocol) -> DDPGTrainingStats:
        """Tianshou's update, but without the unused gradients of the critic's weights in the policy's step."""
        _, critic_loss = self._minimize_critic_squared_loss(batch, self.critic, self.critic_optim)
        actor_loss = -self.critic(batch.obs, self.policy(batch).act).mean()
        policy_optim = self.policy_optim._optim
        policy_optim.zero_grad()
        actor_loss.backward(inputs=policy_optim.param_groups[0]["params"])
        policy_optim.step()
        self._update_lagged_network_weights()
        return DDPGTrainingStats(actor_loss=actor_loss.item(), critic_loss=critic_loss.item())


def adam(lr: float) -> TorchOptimizerFactory:
    """Adam in one fused kernel: for networks this small, call overhead dominates."""
    return TorchOptimizerFactory(torch.optim.Adam, lr=lr, fused=True)


class Falling(LRSchedulerFactory):
    """A learning rate that rises over the first `rising` of `total` updates, times a linear decay to 0 over `total`."""

    def __init__(self, rising: float, total: float) -> None:
        self.rising, self.total = max(rising, 1.0), total

    def create_scheduler(self, optim: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the scheduler, which Tianshou steps after each update."""
        rising, total = self.rising, self.total
        return torch.optim.lr_scheduler.LambdaLR(
            optim, lambda update: min(1.0, (update + 1) / rising) * max(0.0, 1.0 - update / total)
        )


@dataclass(frozen=True)
class Exploration:
    """How actions are explored and how often is learned."""

    noise: float
    """Standard deviation of the noise of an agent whose policy has none of its own."""
    update_ratio: float
    """Gradient updates per slot."""
    sample_size: int
    """Rows of a gradient update's batch."""


class ReplayLearner:
    """Explores, learns from a replay buffer, and can be saved and restored.

    This replaces Tianshou's collector and trainer, which copy through NumPy and scan the whole buffer every round.
    """

    def __init__(
        self,
        *,
        actor: Actor,
        algorithm: DDPG | SAC[SACTrainingStats],
        replay: SlotReplay,
        noise: torch.Generator,
        total: int,
        exploration: Exploration,
    ) -> None:
        self.actor, self.algorithm, self.replay, self.noise = actor, algorithm, replay, noise
        self.total, self.steps, self.updates = total, 0, 0
        self.exploration = exploration

    def explore(self, observation: Tensor) -> Tensor:
        """Actions with exploration."""
        if isinstance(self.algorithm, SAC):
            drawn: Tensor = self.algorithm.policy(Batch(obs=observation)).act
            return drawn
        action: Tensor = self.actor(observation)
        noise = torch.randn(action.shape, generator=self.noise)
        return (action + self.exploration.noise * noise).clamp(-1.0, 1.0)

    def learn(self, slots: int) -> None:
        """Learn as often as is due after `slots` more slots."""
        self.steps += slots
        with policy_within_training_step(self.algorithm.policy):
            while self.updates + 1 <= self.exploration.update_ratio * self.steps:
                buffer = cast(ReplayBuffer, self.replay)  # Tianshou only calls `sample`
                self.algorithm.update(buffer=buffer, sample_size=self.exploration.sample_size)
                self.updates += 1

    def state_dict(self) -> State:
        """All state that affects the next rounds."""
        algorithm: nn.Module = self.algorithm  # Tianshou declares no type for its state
        return {
            "steps": self.steps,
            "updates": self.updates,
            "algorithm": dict(algorithm.state_dict()),
            "schedulers": [scheduler.state_dict() for scheduler in self.algorithm.lr_schedulers],
            "entropy_optimiser": self._entropy_optimiser.state_dict() if self._entropy_optimiser else {},
            "replay": self.replay.state_dict(),
            "noise": self.noise.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the state that `state_dict` returned."""
        self.steps, self.updates = (checked(state[name], int, name) for name in ("steps", "updates"))
        self.algorithm.load_state_dict(checked(state["algorithm"], dict, "algorithm"))
        schedulers = checked(state["schedulers"], list, "schedulers")
        for scheduler, kept in zip(self.algorithm.lr_schedulers, schedulers, strict=True):
            scheduler.load_state_dict(kept)
        if self._entropy_optimiser:
            self._entropy_optimiser.load_state_dict(checked(state["entropy_optimiser"], dict, "entropy_optimiser"))
        self.replay.load_state_dict(checked(state["replay"], dict, "replay"))
        self.noise.set_state(checked(state["noise"], Tensor, "noise"))

    @property
    def _entropy_optimiser(self) -> torch.optim.Optimizer | None:
        """The optimiser of SAC's entropy weight, which Tianshou omits from its state."""
        alpha = getattr(self.algorithm, "alpha", None)
        return alpha._optim if isinstance(alpha, AutoAlpha) else None
