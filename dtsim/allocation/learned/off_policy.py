"""DDPG and SAC by Tianshou on the slots of a source. Only this module uses Tianshou; import it only for training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TypeVar, cast

import gymnasium
import numpy as np
import torch
from tianshou.algorithm.algorithm_base import Algorithm
from tianshou.algorithm.modelfree.ddpg import (
    ActorCriticOffPolicyAlgorithm,
    ContinuousDeterministicPolicy,
)
from tianshou.algorithm.modelfree.sac import SAC, AutoAlpha, SACPolicy, SACTrainingStats
from tianshou.data import Batch, ReplayBuffer
from tianshou.data.types import (
    ActBatchProtocol,
    DistLogProbBatchProtocol,
    RolloutBatchProtocol,
)
from torch import Tensor, nn

from dtsim.allocation.learned.checkpoint import Design
from dtsim.allocation.learned.keys import OffPolicyKeys, SacKeys
from dtsim.allocation.learned.learner import State
from dtsim.allocation.learned.networks import Actor, FlatCritic, SetCritic
from dtsim.allocation.learned.observation import observe
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
from dtsim.allocation.learned.reward import delay_reward, delay_scores
from dtsim.allocation.learned.slots import TrainingSlots, most_rows
from dtsim.allocation.problem import ProblemSource
from dtsim.core.checked import checked
from dtsim.core.seeding import Streams

_Policy = TypeVar("_Policy", ContinuousDeterministicPolicy, SACPolicy)
_Decided = TypeVar("_Decided", ActBatchProtocol, DistLogProbBatchProtocol)


class _Returns(Modeless[_Policy, _Decided]):
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


class _Ddpg(_Returns[ContinuousDeterministicPolicy, ActBatchProtocol], LeanDdpg):
    pass


class _Sac(_Returns[SACPolicy, DistLogProbBatchProtocol], SAC[SACTrainingStats]):
    pass


class OffPolicyLearner(ReplayLearner):
    """Collects a round of slots with exploration, then updates from the replay buffer."""

    def __init__(self, config: OffPolicyKeys, design: Design, source: ProblemSource, streams: Streams) -> None:
        self.config, self.design = config, design
        self.slots = TrainingSlots(config, source, streams.torch("allocator/slots"))
        noise, actor = streams.torch("allocator/noise"), design.build()
        replay = SlotReplay(
            config.buffer_slots // config.environments,
            most_rows(config, config.environments),
            streams.torch("allocator/replay"),
        )
        super().__init__(
            actor=actor,
            algorithm=_algorithm(config, design, actor, noise),
            replay=replay,
            noise=noise,
            total=config.rounds * config.environments,
            exploration=Exploration(config.noise, config.update_ratio, config.batch_size * config.train_users),
        )

    def round(self) -> None:
        """See `Learner`."""
        config, actions = self.config, self.design.actions
        problem = self.slots.draw(self.steps // config.environments, config.environments)
        observation = observe(problem)
        with torch.no_grad():
            action = self.explore(observation)
            delay_s = actions.delay_s(problem, action)
            penalty = actions.penalty(problem, action, config.data_penalty, config.compute_penalty)
            reward = delay_reward(problem, delay_s, config.reward) - penalty
        scores = {"scores": delay_scores(problem, delay_s)} if config.fits_delays else {}
        self.replay.add({"obs": observation, "act": action} | scores, reward)
        self.learn(config.environments)

    def state_dict(self) -> State:
        """See `Learner`."""
        return super().state_dict() | {"slots": self.slots.rng.get_state()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """See `Learner`."""
        super().load_state_dict(state)
        self.slots.rng.set_state(checked(state["slots"], Tensor, "slots"))


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
