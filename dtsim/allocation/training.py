"""DDPG by Tianshou on the slots of a source: all that knows Tianshou. Imported only when a policy is trained."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from tianshou.algorithm import DDPG
from tianshou.algorithm.modelfree.ddpg import ContinuousDeterministicPolicy
from tianshou.algorithm.optim import AdamOptimizerFactory, LRSchedulerFactory
from tianshou.data import Collector, VectorReplayBuffer
from tianshou.exploration import BaseNoise
from tianshou.utils.torch_utils import policy_within_training_step
from torch import Tensor, nn

from dtsim.allocation.environment import SlotBatch, SlotSimulator
from dtsim.allocation.optimal import gap
from dtsim.allocation.policy import SetActor, SetCritic, decode, observe
from dtsim.allocation.problem import AllocationProblem, ProblemSource
from dtsim.progress import Progress
from dtsim.seeding import Streams

if TYPE_CHECKING:
    from dtsim.allocation.agents import Ddpg


class _Actor(nn.Module):
    """The actor as Tianshou calls it."""

    max_action = 1.0

    def __init__(self, actor: SetActor) -> None:
        super().__init__()
        self.actor = actor

    def forward(self, obs: Any, state: Any = None, info: Any = None) -> tuple[Tensor, Any]:
        return self.actor(torch.as_tensor(obs)), state


class _Critic(nn.Module):
    """The critic as Tianshou calls it."""

    def __init__(self, critic: SetCritic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, obs: Any, act: Any) -> Tensor:
        value: Tensor = self.critic(torch.as_tensor(obs), torch.as_tensor(act, dtype=torch.float32))
        return value


class _Noise(BaseNoise):
    """Gaussian noise from a generator of its own; Tianshou's draws from NumPy's global state."""

    def __init__(self, sigma: float, generator: np.random.Generator) -> None:
        self.sigma, self.generator = sigma, generator

    def reset(self) -> None:
        pass

    def __call__(self, size: Any) -> NDArray[Any]:
        return self.sigma * self.generator.standard_normal(size, dtype=np.float32)


class _Policy(ContinuousDeterministicPolicy):
    """Tianshou's policy, compiling its n-step returns (seconds) only where they are used."""

    @staticmethod
    def _compile() -> None:
        pass


class _Buffer(VectorReplayBuffer):
    """Tianshou's buffer, compiling its index arithmetic (seconds) only where it is used; seeded member by member."""

    def __init__(self, size: int, members: int, streams: Streams) -> None:
        super().__init__(size, members)
        for member, part in enumerate([self, *self.buffers]):  # all are seeded alike otherwise
            part._random_state = np.random.RandomState(streams.integer("allocator/replay", member) % 2**32)

    def _compile(self) -> None:
        pass


class _Ddpg(DDPG):
    """Tianshou's DDPG, without the target networks' passes where gamma = 0 leaves the reward as the whole return."""

    def _preprocess_batch(self, batch: Any, buffer: Any, indices: Any) -> Any:
        if self.gamma > 0:
            return super()._preprocess_batch(batch, buffer, indices)
        batch.returns = torch.as_tensor(batch.rew, dtype=torch.float32)
        return batch

    def _update_lagged_network_weights(self) -> None:
        if self.gamma > 0:
            super()._update_lagged_network_weights()


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (CPU), NumPy and Python, and leave them afterwards as they were."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - to protect it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def train(config: Ddpg, source: ProblemSource, progress: Progress) -> dict[str, Any]:
    """Train an actor on `source`.

    Returns:
        "actor": the weights with the smallest mean gap on held-out slots, "last": those at the end, "curve": rows of
        learning_curve.csv, "updates" and "cpu_s": what it took.
    """
    streams = Streams(config.seed)
    started_cpu_s = time.process_time()
    with isolated_randomness(streams.integer("allocator/weights")):
        actor = SetActor(config.hidden)
        held_out = HeldOut(config, source, streams.torch("allocator/held-out"))
        updates = _learn(config, actor, held_out, _environments(config, source, streams), streams, progress)
    return {
        "actor": held_out.best,
        "last": _copied(actor),
        "curve": held_out.curve,
        "updates": updates,
        "cpu_s": time.process_time() - started_cpu_s,
    }


def _learn(
    config: Ddpg, actor: SetActor, held_out: HeldOut, environments: SlotBatch, streams: Streams, progress: Progress
) -> int:
    """Collect a round of slots, update, and again; returns the number of updates.

    Tianshou's own trainer scans the whole buffer every round and prints a bar of its own.
    """
    algorithm = _algorithm(config, actor, environments, streams)
    buffer = _Buffer(config.buffer_slots, config.environments, streams)
    interface: Any = environments  # a collector needs BaseVectorEnv's methods, not its workers
    collector: Any = Collector(algorithm, interface, buffer, exploration_noise=True, raise_on_nan_in_buffer=False)
    collector.reset()
    rounds = config.rounds
    updates = due = 0
    with progress.phase("DRL training", rounds * config.environments) as phase:
        for finished in range(rounds + 1):
            steps = finished * config.environments
            if steps >= due or finished == rounds:
                phase.advance(0, f"gap {held_out.measure(actor, steps):.2%}")
                due += config.evaluate_every
            if finished == rounds:
                return updates
            with policy_within_training_step(algorithm.policy):
                collector.collect(n_step=config.environments)
                while updates + 1 <= config.update_ratio * (steps + config.environments):
                    algorithm.update(sample_size=config.batch_size, buffer=buffer)
                    updates += 1
            phase.advance(config.environments)
    raise AssertionError  # the loop returns


def _environments(config: Ddpg, source: ProblemSource, streams: Streams) -> SlotBatch:
    return SlotBatch(
        SlotSimulator(
            source=source,
            users=config.train_users,
            count=config.environments,
            reward=config.reward,
            compute_range=config.compute_range,
            upload_range=config.upload_range,
            generator=streams.torch("allocator/slots"),
        )
    )


class _Falling(LRSchedulerFactory):
    """A learning rate that rises over the first `rising` of `total` updates and falls to 0 over all of them."""

    def __init__(self, rising: float, total: float) -> None:
        self.rising, self.total = max(rising, 1.0), total

    def factor(self, update: int) -> float:
        """Of the learning rate, at an update."""
        return min(1.0, (update + 1) / self.rising) * max(0.0, 1.0 - update / self.total)

    def create_scheduler(self, optim: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """For Tianshou, which steps it after each update."""
        return torch.optim.lr_scheduler.LambdaLR(optim, self.factor)


def _algorithm(config: Ddpg, actor: SetActor, environments: SlotBatch, streams: Streams) -> _Ddpg:
    pool = "station" if config.reward == "station_log_ratio" else "slot"
    total = config.update_ratio * config.rounds * config.environments
    policy = _Policy(
        actor=_Actor(actor),  # type: ignore[arg-type]
        exploration_noise=_Noise(config.noise, streams.numpy("allocator/noise")),
        action_space=environments.action_space[0],
        observation_space=environments.observation_space[0],
        action_scaling=False,
        action_bound_method="clip",
    )
    return _Ddpg(
        policy=policy,
        # The policy starts slowly: it would only follow the critic's first guesses.
        policy_optim=AdamOptimizerFactory(lr=config.actor_learning_rate).with_lr_scheduler_factory(
            _Falling(config.update_ratio * config.warmup_steps, total)
        ),
        critic=_Critic(SetCritic(config.hidden, config.compute_range, pool, config.sharpness)),
        critic_optim=AdamOptimizerFactory(lr=config.critic_learning_rate).with_lr_scheduler_factory(
            _Falling(1.0, total)
        ),
        gamma=config.gamma,
    )


def _copied(actor: SetActor) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in actor.state_dict().items()}


class HeldOut:
    """Slots that training never sees, their optima, and how the actor did on them so far."""

    def __init__(self, config: Ddpg, source: ProblemSource, generator: torch.Generator) -> None:
        self.ranges = (config.compute_range, config.upload_range)
        self.problem: AllocationProblem = source.sample(config.held_out_slots, config.train_users, generator)
        self.observation = observe(self.problem)
        self.started_s = time.perf_counter()
        self.curve: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    def gap(self, actor: SetActor) -> float:
        """Mean gap of the actor's makespan to the optimum."""
        with torch.no_grad():
            allocation = decode(self.problem, actor(self.observation), *self.ranges)
        return float(gap(self.problem, allocation, "makespan").mean())

    def measure(self, actor: SetActor, step: int) -> float:
        """Note the gap after `step` training slots, and the weights if they are the best so far."""
        value = self.gap(actor)
        if not self.curve or value < min(row["value"] for row in self.curve):
            self.best = _copied(actor)
        seconds = time.perf_counter() - self.started_s
        self.curve.append(
            {"phase": "allocator", "user": "", "step": step, "seconds": seconds, "metric": "gap", "value": value}
        )
        return value
