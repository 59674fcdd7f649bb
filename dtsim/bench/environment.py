"""Steps per CPU second of the environments and training samples per CPU second of DDPG, beside other libraries."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.gym.environment import ShortTimescaleEnv
from dtsim.allocation.gym.queue_environment import QueuesVectorEnv
from dtsim.allocation.gym.vector import ShortTimescaleVectorEnv
from dtsim.allocation.learned.agents import Ddpg
from dtsim.allocation.problem import FrameSource
from dtsim.bench import peers
from dtsim.bench.output import show, tell, write_csv
from dtsim.bench.timing import Contender, race
from dtsim.core.cache import Cache
from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Progress
from dtsim.core.seeding import single_thread
from dtsim.runner.jobs import plan
from dtsim.runner.parts import Parts, mirror_of

_SINGLE, _MOBILE_ENV = "single environment", "mobile-env"
_QUEUES_LOAD = 4.0
"""Factor of the data at which something waits; a step costs as much at any."""
_OURS, _FLAT, _TIANSHOU, _SB3 = "dtsim", "dtsim (MLP)", "Tianshou", "Stable-Baselines3 (MLP)"


def bench(
    *,
    users: int,
    batches: Sequence[int],
    steps: int,
    training_steps: int,
    repeats: int,
    overrides: Sequence[str],
    progress: Progress,
) -> Path:
    """Time environments of `users` MUs with random actions, then trainings; print two tables, return the CSV's path.

    A timed run is `steps` of the single environment, or an episode of 100 steps in every batch of `batches`
    environments. The trainings use the configured DDPG on `training_steps` slots of `users` MUs; 0 omits them.

    Raises:
        ConfigError: if a value is invalid.
    """
    single_thread()
    least = {"users": users, "steps": steps, "repeats": repeats, "batches": min(batches)}
    lines = [f"{name}={value}: must be >= 1" for name, value in least.items() if value < 1]
    lines += [f"training-steps={training_steps}: must be >= 0"] if training_steps < 0 else []
    if lines:
        raise ConfigError(lines)
    config = plan(overrides, runs=False).jobs[0].config
    agent = _agent(Parts(config).allocator, users, training_steps) if training_steps else None
    source = mirror_of(config)
    wanted = (peers.MOBILE_ENV, peers.STABLE_BASELINES3) if agent else (peers.MOBILE_ENV,)
    notes = [line for module in wanted if (line := peers.missing(module))]
    groups = [("environment steps", _environments(source, users, batches, steps), [_MOBILE_ENV])]
    if agent:
        groups.append(("training samples", _trainings(agent, source), [_TIANSHOU, _SB3]))
    for what, contenders, _ in groups:
        race(contenders, repeats, progress, what)
    path = Path(config.outputs) / "bench" / "environment.csv"
    write_csv(path, [row for what, contenders, _ in groups for row in _rows(what, contenders)])
    for what, contenders, references in groups:
        show(f"{what} per CPU second, K={users}", _shown(contenders, references))
    tell([*notes, f"written: {path}"])
    return path


def _agent(configured: Allocator, users: int, steps: int) -> Ddpg:
    """The configured agent for a short training, almost without measurements and saves."""
    if not isinstance(configured, Ddpg) or configured.action != "residual":
        raise ConfigError(
            ["allocator: must be a ddpg with action=residual, like the peers (--training-steps 0 omits the trainings)"]
        )
    return replace(
        configured,
        train_users=users,
        least_users=users,
        most_users=users,
        environment_steps=steps,
        evaluate_every=steps,
        save_every=steps,
        held_out_slots=1,
        checkpoint=None,
    )


def _environments(source: FrameSource, users: int, batches: Sequence[int], steps: int) -> list[Contender]:
    single = ShortTimescaleEnv(source=source, users=users, optimum=False)  # as training uses it
    contenders = [Contender(_SINGLE, steps, partial(_alone, single, steps))]
    for count in batches:
        batched = ShortTimescaleVectorEnv(num_envs=count, source=source, users=users)
        contenders.append(Contender(f"batched, {count} at once", count * 100, partial(_together, batched)))
    for count in batches:
        queues = QueuesVectorEnv(num_envs=count, source=source, users=users, load=_QUEUES_LOAD)
        contenders.append(Contender(f"queues, {count} at once", count * 100, partial(_together, queues)))
    if not peers.missing(peers.MOBILE_ENV):
        few = max(1, min(steps, 300))  # a step takes milliseconds
        contenders.append(Contender(_MOBILE_ENV, few, partial(_alone, peers.mobile_env(users), few)))
    return contenders


def _alone(env: gymnasium.Env[Any, Any], steps: int) -> Callable[[], None]:
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(min(steps, 100))]
    env.reset(seed=0)

    def run() -> None:
        for step in range(steps):
            *_, terminated, truncated, _ = env.step(actions[step % len(actions)])
            if terminated or truncated:
                env.reset()

    return run


def _together(env: ShortTimescaleVectorEnv | QueuesVectorEnv) -> Callable[[], None]:
    actions = np.random.default_rng(0).uniform(-1.0, 1.0, env.action_space.shape).astype(np.float32)
    env.reset(seed=0)

    def run() -> None:
        for _ in range(100):  # the last step starts new episodes
            env.step(actions)

    return run


def _trainings(agent: Ddpg, source: FrameSource) -> list[Contender]:
    steps = agent.rounds * agent.environments
    contenders = [
        Contender(_OURS, steps, lambda: partial(_train, agent, source)),
        Contender(_TIANSHOU, agent.environment_steps, partial(peers.tianshou, agent, source)),
    ]
    if agent.policy == "set":  # the peer below has two layers on all MUs at once
        flat = replace(agent, policy="flat")
        contenders.insert(1, Contender(_FLAT, steps, lambda: partial(_train, flat, source)))
    if not peers.missing(peers.STABLE_BASELINES3):
        contenders.append(Contender(_SB3, agent.environment_steps, partial(peers.stable_baselines3, agent, source)))
    return contenders


def _train(agent: Ddpg, source: FrameSource) -> None:
    with tempfile.TemporaryDirectory() as folder:  # an empty cache, so that every call trains
        agent.prepare(source, Cache(Path(folder)), QUIET)


def _rows(what: str, contenders: Sequence[Contender]) -> list[dict[str, Any]]:
    return [
        {"measured": what, "contender": contender.name, "repeat": repeat, "steps": contender.steps, "cpu_s": cpu_s}
        for contender in contenders
        for repeat, cpu_s in enumerate(contender.cpu_s)
    ]


def _shown(contenders: Sequence[Contender], references: Sequence[str]) -> list[dict[str, str]]:
    rates = {contender.name: contender.rate for contender in contenders}
    shown = []
    for contender in contenders:
        each = [contender.steps / cpu_s for cpu_s in contender.cpu_s]
        row = {"": contender.name, "median": f"{contender.rate:,.0f}", "range": f"{min(each):,.0f}–{max(each):,.0f}"}
        row |= {f"× {name}": f"{contender.rate / rates[name]:,.2f}" for name in references if name in rates}
        shown.append(row)
    return shown
