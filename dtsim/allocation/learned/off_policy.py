"""DDPG and SAC by Tianshou on the slots of a source. Only this module uses Tianshou; import it only for training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Self, TypeVar, cast

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import Algorithm
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

from dtsim.allocation.learned.checkpoint import Design
from dtsim.allocation.learned.keys import OffPolicyKeys, SacKeys
from dtsim.allocation.learned.learner import State
from dtsim.allocation.learned.networks import Actor, FlatCritic, SetCritic
from dtsim.allocation.learned.observation import observe
from dtsim.allocation.learned.replay_buffer import SlotReplay
from dtsim.allocation.learned.reward import delay_reward, delay_scores
from dtsim.allocation.learned.slots import TrainingSlots, most_rows
from dtsim.allocation.problem import ProblemSource
from dtsim.core.checked import checked
from dtsim.core.seeding import Streams

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


class _Returns(ActorCriticOffPolicyAlgorithm[_Policy, _Decided]):
    """One-step returns for Tianshou: episodes never end at a slot, and gamma = 0 needs no target networks."""

    def _preprocess_batch(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        slots = cast(Batch, batch)
        slots.returns = slots.rew
        if self.gamma > 0:
            with torch.no_grad():
                # Slots are independent of each other: the next one is like any other of the batch.
                following = Batch(obs=slots.obs.roll(1, 0))
                value = self._target_q_compute_value(following, self._target_q_compute_action(following))
            slots.returns = slots.rew + self.gamma * value.flatten()
        return batch

    @staticmethod
    def _minimize_critic_squared_loss(
        batch: RolloutBatchProtocol, critic: nn.Module, optimizer: Algorithm.Optimizer
    ) -> tuple[Tensor, Tensor]:
        """Fit the critic to the delay of every MU if the batch has them, else to the reward as Tianshou does.

        A delay counts by the square of its ratio to the usual one of its BS: a short one decides nothing.
        """
        slots = cast(Batch, batch)
        if "scores" not in slots:
            return ActorCriticOffPolicyAlgorithm._minimize_critic_squared_loss(batch, critic, optimizer)
        error = checked(critic, SetCritic, "critic").scores(slots.obs, slots.act) - slots.scores
        loss = (error.square() * (2 * slots.scores).clamp(max=0.0).exp()).mean()
        optimizer.step(loss)
        return error, loss

    def _update_lagged_network_weights(self) -> None:
        if self.gamma > 0:
            self._lagged_networks.polyak_parameter_update(self.tau)

    def train(self, mode: bool = True) -> Self:
        """Do nothing: no layer here depends on the training mode, and walking all modules takes time."""
        return self


class _Ddpg(_Returns[ContinuousDeterministicPolicy, ActBatchProtocol], DDPG):
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


class _Sac(_Returns[SACPolicy, DistLogProbBatchProtocol], SAC[SACTrainingStats]):
    pass


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


class OffPolicyLearner:
    """Collects a round of slots with exploration, then updates from the replay buffer.

    This replaces Tianshou's collector and trainer, which copy through NumPy and scan the whole buffer every round.
    """

    def __init__(self, config: OffPolicyKeys, design: Design, source: ProblemSource, streams: Streams) -> None:
        self.config, self.design = config, design
        self.total, self.steps, self.updates = config.rounds * config.environments, 0, 0
        self.slots = TrainingSlots(config, source, streams.torch("allocator/slots"))
        self.noise = streams.torch("allocator/noise")
        self.actor = design.build()
        self.algorithm = _algorithm(config, design, self.actor, self.noise)
        self.replay = SlotReplay(
            config.buffer_slots // config.environments,
            most_rows(config, config.environments),
            streams.torch("allocator/replay"),
        )

    def round(self) -> None:
        """See `Learner`."""
        config, actions = self.config, self.design.actions
        problem = self.slots.draw(self.steps // config.environments, config.environments)
        observation = observe(problem)
        with torch.no_grad():
            action = self._explore(observation)
            delay_s = actions.delay_s(problem, action)
            penalty = actions.penalty(problem, action, config.data_penalty, config.compute_penalty)
            reward = delay_reward(problem, delay_s, config.reward) - penalty
        scores = {"scores": delay_scores(problem, delay_s)} if config.fits_delays else {}
        self.replay.add({"obs": observation, "act": action} | scores, reward)
        self.steps += config.environments
        with policy_within_training_step(self.algorithm.policy):
            while self.updates + 1 <= config.update_ratio * self.steps:
                buffer = cast(ReplayBuffer, self.replay)  # Tianshou only calls `sample`
                self.algorithm.update(buffer=buffer, sample_size=config.batch_size * config.train_users)
                self.updates += 1

    def _explore(self, observation: Tensor) -> Tensor:
        if isinstance(self.algorithm, _Sac):
            action: Tensor = self.algorithm.policy(Batch(obs=observation)).act
            return action
        action = self.actor(observation)
        noise = torch.randn(action.shape, generator=self.noise)
        return (action + self.config.noise * noise).clamp(-1.0, 1.0)

    def state_dict(self) -> State:
        """See `Learner`."""
        algorithm: nn.Module = self.algorithm  # Tianshou declares no type for its state
        return {
            "steps": self.steps,
            "updates": self.updates,
            "algorithm": dict(algorithm.state_dict()),
            "schedulers": [scheduler.state_dict() for scheduler in self.algorithm.lr_schedulers],
            "entropy_optimiser": self._entropy_optimiser.state_dict() if self._entropy_optimiser else {},
            "replay": self.replay.state_dict(),
            "slots": self.slots.rng.get_state(),
            "noise": self.noise.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See `Learner`."""
        self.steps, self.updates = (checked(state[name], int, name) for name in ("steps", "updates"))
        self.algorithm.load_state_dict(checked(state["algorithm"], dict, "algorithm"))
        schedulers = checked(state["schedulers"], list, "schedulers")
        for scheduler, kept in zip(self.algorithm.lr_schedulers, schedulers, strict=True):
            scheduler.load_state_dict(kept)
        if self._entropy_optimiser:
            self._entropy_optimiser.load_state_dict(checked(state["entropy_optimiser"], dict, "entropy_optimiser"))
        self.replay.load_state_dict(checked(state["replay"], dict, "replay"))
        self.slots.rng.set_state(checked(state["slots"], Tensor, "slots"))
        self.noise.set_state(checked(state["noise"], Tensor, "noise"))

    @property
    def _entropy_optimiser(self) -> torch.optim.Optimizer | None:
        """The optimiser of SAC's entropy weight, which Tianshou omits from its state."""
        alpha = getattr(self.algorithm, "alpha", None)
        return alpha._optim if isinstance(alpha, AutoAlpha) else None


def _algorithm(config: OffPolicyKeys, design: Design, actor: Actor, noise: torch.Generator) -> _Ddpg | _Sac:
    total = config.update_ratio * config.rounds * config.environments
    space = gymnasium.spaces.Box(-1.0, 1.0, (config.train_users, design.actions.columns), dtype=np.float32)
    # The policy starts with a low learning rate: early values of the critic are unreliable.
    policy_optim = adam(config.actor_learning_rate).with_lr_scheduler_factory(
        Falling(config.update_ratio * config.warmup_steps, total)
    )
    critic_optim = adam(config.critic_learning_rate).with_lr_scheduler_factory(Falling(1.0, total))
    critic = _critic(config, design)
    if isinstance(config, SacKeys):
        return _Sac(
            policy=Stochastic(actor, config.noise, noise, space),
            policy_optim=policy_optim,
            critic=critic,
            critic_optim=critic_optim,
            critic2=_critic(config, design),
            gamma=config.gamma,
            alpha=AutoAlpha(
                config.target_entropy,
                math.log(config.entropy_weight),
                adam(config.entropy_learning_rate),
            ),
        )
    return _Ddpg(
        policy=Deterministic(actor=actor, action_space=space, action_scaling=False),  # type: ignore[arg-type]
        policy_optim=policy_optim,
        critic=critic,
        critic_optim=critic_optim,
        gamma=config.gamma,
    )


def _critic(config: OffPolicyKeys, design: Design) -> nn.Module:
    if design.policy == "flat":
        return FlatCritic(config.hidden, design.actions.columns, design.users, design.stations)
    pool = "station" if config.reward == "station_log_ratio" else "slot"
    return SetCritic(config.hidden, design.actions, pool, config.sharpness)
