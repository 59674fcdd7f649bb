"""DDPG and SAC by Tianshou among queues. Import it only for training: Tianshou takes seconds to import."""

from __future__ import annotations

import math
from typing import TypeVar, cast

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import Algorithm
from tianshou.algorithm.modelfree.ddpg import (
    ContinuousDeterministicPolicy,
)
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy, SACTrainingStats
from tianshou.data import Batch, ReplayBuffer
from tianshou.data.types import ActBatchProtocol, DistLogProbBatchProtocol, RolloutBatchProtocol
from torch import Tensor, nn

from dtsim.allocation.gym.queue_frames import QueueSimulator
from dtsim.allocation.learned.queue_keys import QueueKeys, QueueSacKeys
from dtsim.allocation.learned.queue_policy import Outlook, QueueCritic
from dtsim.allocation.learned.replay_buffer import SlotReplay
from dtsim.allocation.learned.replay_learner import (
    Deterministic,
    Exploration,
    Falling,
    LeanDdpg,
    Modeless,
    ReplayLearner,
    Stochastic,
    adam,
)
from dtsim.allocation.problem import FrameSource
from dtsim.core.seeding import Streams

_Policy = TypeVar("_Policy", ContinuousDeterministicPolicy, SACPolicy)
_Decided = TypeVar("_Decided", ActBatchProtocol, DistLogProbBatchProtocol)


class _Following(Modeless[_Policy, _Decided]):
    """One-step returns of every MU with the slot that really followed; no episode ends in a state of its own.

    Critics give values [n, K] and are fitted to every MU's: the reward is a mean of what MUs are paid.
    """

    def _preprocess_batch(
        self, batch: RolloutBatchProtocol, buffer: ReplayBuffer, indices: np.ndarray
    ) -> RolloutBatchProtocol:
        slots = cast(Batch, batch)
        with torch.no_grad():
            following = Batch(obs=slots.obs_next)
            value = self._target_q_compute_value(following, self._target_q_compute_action(following))
            # Times 1 - gamma, so that a value is as large as a reward.
            slots.returns = (1 - self.gamma) * slots.paid + self.gamma * value
        return batch

    @staticmethod
    def _minimize_critic_squared_loss(
        batch: RolloutBatchProtocol, critic: nn.Module, optimizer: Algorithm.Optimizer
    ) -> tuple[Tensor, Tensor]:
        slots = cast(Batch, batch)
        error = critic(slots.obs, slots.act) - slots.returns
        loss = error.square().mean()
        optimizer.step(loss)
        return error, loss


class _QueueDdpg(_Following[ContinuousDeterministicPolicy, ActBatchProtocol], LeanDdpg):
    pass


class _QueueSac(_Following[SACPolicy, DistLogProbBatchProtocol], SAC[SACTrainingStats]):
    pass


class _OfUsers(Stochastic):
    """SAC's policy with the log probability of every MU's own action, as its values are."""

    def averaged(self, log_prob: Tensor) -> Tensor:
        return log_prob.mean(-1)


class QueueLearner(ReplayLearner):
    """Passes episodes with exploration and updates from the replay buffer; a round is an episode."""

    def __init__(self, config: QueueKeys, source: FrameSource, streams: Streams) -> None:
        self.config, self.streams = config, streams
        self.simulator = QueueSimulator(
            source=source,
            users=config.train_users,
            count=config.environments,
            networks=config.networks,
            rules=config.rules,
        )
        noise, actor = streams.torch("allocator/noise"), config.design.build()
        replay = SlotReplay(
            config.buffer_slots // config.environments,
            config.environments * config.train_users,
            streams.torch("allocator/replay"),
        )
        super().__init__(
            actor=actor,
            algorithm=_algorithm(config, actor, noise),
            replay=replay,
            noise=noise,
            total=config.rounds * config.environments * config.horizon,
            exploration=Exploration(config.noise, config.update_ratio, config.batch_size * config.train_users),
        )

    def round(self) -> None:
        """Pass one episode in every environment and learn from it."""
        config, simulator = self.config, self.simulator
        # Every episode has streams of its own, so that a training that was killed goes on with the same ones.
        episode = self.steps // config.horizon
        rngs = [self.streams.numpy("allocator/episodes", episode + n) for n in range(config.environments)]
        observation = torch.from_numpy(simulator.reset(rngs))
        over = False
        while not over:
            with torch.no_grad():
                action = self.explore(observation)
            following, reward, over = simulator.step(action.numpy())
            after = torch.from_numpy(following)
            paid = torch.from_numpy(simulator.user_reward.copy())
            kept = {"obs": observation, "act": action, "obs_next": after, "paid": paid}
            self.replay.add(kept, torch.from_numpy(reward).float())
            observation = after
            self.learn(config.environments)


def _algorithm(config: QueueKeys, actor: nn.Module, noise: torch.Generator) -> _QueueDdpg | _QueueSac:
    total = config.update_ratio * config.rounds * config.environments * config.horizon
    space = gymnasium.spaces.Box(-1.0, 1.0, (config.train_users, 3), dtype=np.float32)
    # The policy starts with a low learning rate: early values of the critic are unreliable.
    policy_optim = adam(config.actor_learning_rate).with_lr_scheduler_factory(
        Falling(config.update_ratio * config.warmup_steps, total)
    )
    critic_optim = adam(config.critic_learning_rate).with_lr_scheduler_factory(Falling(1.0, total))

    def critic() -> QueueCritic:
        outlook = Outlook(config.gamma, config.slot_s / config.deadline_s, config.overdue_weight)
        return QueueCritic(config.hidden, config.design.actions, outlook)

    if isinstance(config, QueueSacKeys):
        return _QueueSac(
            policy=_OfUsers(actor, config.noise, noise, space),  # type: ignore[arg-type]
            policy_optim=policy_optim,
            critic=critic(),
            critic_optim=critic_optim,
            critic2=critic(),
            gamma=config.gamma,
            alpha=AutoAlpha(config.target_entropy, math.log(config.entropy_weight), adam(config.entropy_learning_rate)),
        )
    return _QueueDdpg(
        policy=Deterministic(actor=actor, action_space=space, action_scaling=False),  # type: ignore[arg-type]
        policy_optim=policy_optim,
        critic=critic(),
        critic_optim=critic_optim,
        gamma=config.gamma,
    )
