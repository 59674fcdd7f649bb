"""Environments and trainings of other libraries, used as their authors intend. All are optional."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

from dtsim.allocation.gym.environment import ShortTimescaleEnv
from dtsim.allocation.learned.agents import Ddpg
from dtsim.allocation.learned.checkpoint import Design
from dtsim.allocation.learned.networks import FlatCritic, SetCritic
from dtsim.allocation.problem import FrameSource

MOBILE_ENV, STABLE_BASELINES3 = "mobile_env", "stable_baselines3"


def missing(module: str) -> str | None:
    """If `module` is not installed, a line that says how to install it."""
    if find_spec(module):
        return None
    return f"{module.replace('_', '-')} is not installed: its row is left out (pip install 'dtsim[bench]')"


def mobile_env(users: int) -> gymnasium.Env[Any, Any]:
    """mobile-env's network of three BSs, placed as in its smallest scenario, with `users` MUs."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    from mobile_env.core.base import MComCore
    from mobile_env.core.entities import BaseStation, UserEquipment
    from mobile_env.handlers.central import MComCentralHandler

    keys = MComCore.default_config()
    places = [(110, 130), (65, 80), (120, 30)]
    stations = [BaseStation(number, place, **keys["bs"]) for number, place in enumerate(places)]
    equipment = [UserEquipment(number, **keys["ue"]) for number in range(users)]
    env: gymnasium.Env[Any, Any] = MComCore(stations, equipment, {"handler": MComCentralHandler})
    return env


class _Actor(nn.Module):
    """An actor with Tianshou's interface."""

    max_action = 1.0

    def __init__(self, actor: nn.Module) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        return self.actor(torch.as_tensor(obs)), state


class _Critic(nn.Module):
    """A critic with Tianshou's interface."""

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, obs: Any, act: Any, info: Any = None) -> Tensor:
        value: Tensor = self.critic(torch.as_tensor(obs), torch.as_tensor(act, dtype=torch.float32))
        return value


def tianshou(config: Ddpg, source: FrameSource, environments: int = 10) -> Callable[[], object]:
    """Tianshou's DDPG, collector, buffer and trainer on `environments` single environments behind a DummyVectorEnv."""
    from tianshou.algorithm.modelfree.ddpg import DDPG, ContinuousDeterministicPolicy
    from tianshou.algorithm.optim import AdamOptimizerFactory
    from tianshou.data import Collector, VectorReplayBuffer
    from tianshou.env import DummyVectorEnv
    from tianshou.exploration import GaussianNoise
    from tianshou.trainer import OffPolicyTrainerParams

    make = partial(ShortTimescaleEnv, source=source, users=config.train_users, reward=config.reward, optimum=False)
    batch = DummyVectorEnv([make] * environments)
    design = config.design(batch.get_env_attr("simulator", [0])[0].shape[1])
    algorithm: Any = DDPG(
        policy=ContinuousDeterministicPolicy(
            actor=_Actor(design.build()),  # type: ignore[arg-type]
            exploration_noise=GaussianNoise(sigma=config.noise),
            action_space=batch.action_space[0],
            action_scaling=False,
            action_bound_method="clip",
        ),
        policy_optim=AdamOptimizerFactory(lr=config.actor_learning_rate),
        critic=_Critic(_network(config, design)),
        critic_optim=AdamOptimizerFactory(lr=config.critic_learning_rate),
        gamma=config.gamma,
    )
    buffer = VectorReplayBuffer(config.buffer_slots, environments)
    collector: Any = Collector(algorithm, batch, buffer, exploration_noise=True)
    collector.reset()
    params = OffPolicyTrainerParams(
        training_collector=collector,
        max_epochs=1,
        epoch_num_steps=config.environment_steps,
        collection_step_num_env_steps=environments,
        update_step_num_gradient_steps_per_sample=config.update_ratio,
        batch_size=config.batch_size,
        verbose=False,
        show_progress=False,
    )
    return partial(algorithm.run_training, params)


def _network(config: Ddpg, design: Design) -> nn.Module:
    """The value network that dtsim trains for this design."""
    if design.policy == "flat":
        return FlatCritic(config.hidden, design.actions.columns, design.users, design.stations)
    pool = "station" if config.reward == "station_log_ratio" else "slot"
    return SetCritic(config.hidden, design.actions, pool, config.sharpness)


def stable_baselines3(config: Ddpg, source: FrameSource) -> Callable[[], object]:
    """Stable-Baselines3's DDPG with its two-layer perceptron on one environment, at the same updates per step."""
    from stable_baselines3 import DDPG
    from stable_baselines3.common.noise import NormalActionNoise

    env = ShortTimescaleEnv(source=source, users=config.train_users, reward=config.reward, optimum=False)
    shape = env.action_space.shape or ()
    every = round(1 / config.update_ratio)
    model = DDPG(
        "MlpPolicy",
        env,
        learning_rate=config.actor_learning_rate,
        buffer_size=config.buffer_slots,
        learning_starts=every,
        batch_size=config.batch_size,
        gamma=config.gamma,
        train_freq=(every, "step"),
        gradient_steps=1,
        action_noise=NormalActionNoise(np.zeros(shape), np.full(shape, config.noise)),
        policy_kwargs={"net_arch": [config.hidden, config.hidden]},
        device="cpu",
        seed=config.seed,
    )
    return partial(model.learn, config.environment_steps)
