"""`dtsim/Queues-v0`: Gymnasium's contract, its batched form, and the numbers of the tensor program and of the tasks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray
from torch import Tensor

from dtsim.allocation.gym.queue_environment import QueuesEnv, QueuesVectorEnv
from dtsim.allocation.gym.queue_frames import QueueRules, QueueSimulator, jobs_of
from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.learned.queue_observation import QUEUE_FEATURES, QueueActions, observe_queues, price_s
from dtsim.allocation.learned.queue_policy import Outlook, QueueCritic
from dtsim.allocation.problem import Frames
from dtsim.allocation.queues.queue_problem import serve_queues
from dtsim.physical.queues import TaskQueues
from tests.synthetic_source import SyntheticSource

SOURCE = SyntheticSource()
ACTIONS = QueueActions(compute_range=2.0, upload_range=2.0, training_range=2.0)
HEAVY: dict[str, Any] = {"load": (2.0, 60.0), "training": 0.5}


class OutOfReach(SyntheticSource):
    """Idle MUs and MUs without a link; BSs without MUs."""

    def frames(self, networks: int, users: int, generator: torch.Generator) -> Frames:
        frames = super().frames(networks, users, generator)
        lost = torch.rand(networks, users, generator=generator) < 0.3
        crowded = torch.rand(networks, 1, generator=generator) < 0.3
        return replace(
            frames,
            snr=torch.where(lost, 0.0, frames.snr),
            station=torch.where(crowded, 0, frames.station),
            captured_bytes=torch.tensor([0.0, 784.0, 23520.0]),
        )


class AtOnce(SyntheticSource):
    """Without a delay of the result's return, which an observation does not tell."""

    def frames(self, networks: int, users: int, generator: torch.Generator) -> Frames:
        return replace(super().frames(networks, users, generator), downlink_s=0.0)


def actions(steps: int, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *shape, 3)).astype(np.float32)


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_the_environment() -> None:
    check_env(gymnasium.make("dtsim/Queues-v0").unwrapped, skip_render_check=True)
    check_env(QueuesEnv(source=SOURCE, users=4, networks=8, **HEAVY), skip_render_check=True)
    check_env(QueuesEnv(source=OutOfReach(), users=1, networks=8, horizon=2), skip_render_check=True)


def rollout(env: QueuesEnv, seed: int, steps: int) -> list[NDArray[Any]]:
    observation, _ = env.reset(seed=seed)
    seen: list[tuple[object, object]] = [(observation, 0.0)]
    for action in actions(steps, 4):
        observation, reward, _, truncated, _ = env.step(action)
        seen.append((observation, reward))
        if truncated:
            seen.append((env.reset()[0], 0.0))
    return [np.array(values) for values in zip(*seen, strict=True)]


@pytest.mark.parametrize("horizon", [1, 40, 100])
def test_a_seed_repeats_the_episodes_and_another_does_not(horizon: int) -> None:
    def made() -> QueuesEnv:
        return QueuesEnv(source=SOURCE, users=4, networks=16, horizon=horizon, **HEAVY)

    env = made()
    first, again, fresh, other = (
        rollout(env, 7, 110),
        rollout(env, 7, 110),
        rollout(made(), 7, 110),
        rollout(env, 8, 110),
    )
    for one, two, three in zip(first, again, fresh, strict=True):
        assert (one == two).all() and (one == three).all()
    assert not (first[0] == other[0]).all()


def test_a_batch_makes_the_steps_of_single_environments_bit_for_bit() -> None:
    keys: dict[str, Any] = {"source": SOURCE, "users": 5, "networks": 16, "horizon": 7, **HEAVY}
    many = QueuesVectorEnv(num_envs=6, **keys)
    single = SyncVectorEnv([lambda: QueuesEnv(**keys)] * 6, autoreset_mode=AutoresetMode.SAME_STEP)
    assert many.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    np.testing.assert_array_equal(many.reset(seed=3)[0], single.reset(seed=3)[0])
    for action in actions(20, 6, 5):
        own, theirs = many.step(action), single.step(action)
        for one, other in zip(own[:4], theirs[:4], strict=True):
            np.testing.assert_array_equal(one, other)
        ended: dict[str, Any] = own[4]
        wanted: dict[str, Any] = theirs[4]
        if own[3].any():
            np.testing.assert_array_equal(np.stack(ended["final_obs"]), np.stack(wanted["final_obs"]))
            ended, wanted = ended["final_info"], wanted["final_info"]
        for name in ("delay_s", "backlog_flop", "overdue_flop"):
            np.testing.assert_array_equal(ended[name], wanted[name])


@pytest.mark.parametrize("source", [SOURCE, OutOfReach()], ids=["usual", "out of reach"])
def test_observations_prices_and_pay_are_those_of_the_tensor_program(source: SyntheticSource) -> None:
    rules = QueueRules(horizon=30, overdue_weight=0.7, energy_weight=0.01, tx_w=0.5, mu_j_per_flop=1e-9, **HEAVY)
    simulator = QueueSimulator(source=source, users=9, count=40, networks=40, rules=rules)
    observation = simulator.reset([np.random.default_rng(n) for n in range(40)])
    for step, action in enumerate(actions(30, 40, 9)):
        problem = simulator.problem()
        assert bool((problem.training_flop > 0).any()) and bool((problem.due_flop > 0).any())
        np.testing.assert_allclose(observation, observe_queues(problem).numpy(), rtol=1e-5, atol=2e-6)
        assert (observation[..., :14] <= 8).all() and (observation[..., -1] == problem.station.numpy()).all()
        action = action * (step % 3 > 0)  # every third one is zero
        answer = ACTIONS.allocation(problem, torch.from_numpy(action))
        price = price_s(problem, answer)
        trained = torch.minimum(answer.training_flops * 0.1, problem.training_flop)
        overdue = (problem.due_flop - trained).clamp(min=0)
        capacity = problem.station_flops.gather(-1, problem.station) * 0.1
        observation, reward, _ = simulator.step(action)
        info = simulator.measured()
        np.testing.assert_allclose(info["delay_s"], price.mean(-1).numpy(), rtol=1e-9)
        np.testing.assert_allclose(info["overdue_flop"], overdue.mean(-1).numpy(), rtol=1e-7, atol=1.0)
        terms = (price / 0.1).log1p().clamp(max=8) + 0.7 * (overdue / capacity).log1p().clamp(max=8)
        joule = -(simulator.user_reward.mean(-1) + terms.mean(-1).numpy()) / 0.01
        assert (joule > -0.001).all() and (joule < 0.5 * 0.1 + 1e-9 * 0.1e9 + 0.001).all()
        np.testing.assert_allclose(reward, simulator.user_reward.mean(-1), rtol=1e-5)


def test_the_zero_action_is_the_proportional_rule() -> None:
    simulator = QueueSimulator(source=SOURCE, users=9, count=30, networks=30, rules=QueueRules(**HEAVY))
    simulator.reset([np.random.default_rng(n) for n in range(30)])
    for _ in range(20):
        problem = simulator.problem()
        usual = serve_queues(Proportional(), problem)
        zero = ACTIONS.allocation(problem, torch.zeros(30, 9, 3))
        for name in ("upload_bytes", "inference_flops", "training_flops"):
            torch.testing.assert_close(getattr(zero, name), getattr(usual, name), rtol=1e-9, atol=1e-3)
        simulator.step(np.zeros((30, 9, 3)))


def test_each_column_of_an_action_moves_what_it_says() -> None:
    simulator = QueueSimulator(source=SOURCE, users=9, count=30, networks=30, rules=QueueRules(**HEAVY))
    simulator.reset([np.random.default_rng(n) for n in range(30)])
    simulator.step(np.zeros((30, 9, 3)))
    problem = simulator.problem()
    zero = ACTIONS.allocation(problem, torch.zeros(30, 9, 3))

    def with_column(column: int, value: float) -> Tensor:
        action = torch.zeros(30, 9, 3)
        action[:, 0, column] = value
        answer = ACTIONS.allocation(problem, action)
        return torch.stack([answer.upload_bytes, answer.inference_flops, answer.training_flops])[:, :, 0]

    usual = torch.stack([zero.upload_bytes, zero.inference_flops, zero.training_flops])[:, :, 0]
    between = (usual[0] > 0) & (usual[0] < problem.captured_bytes[:, 0])
    assert between.any() and (usual[2] > 0).any()
    alone = (problem.station == problem.station[:, :1]).sum(-1) == 1
    more = with_column(0, 1.0)
    assert ((more[1] + more[2] > usual[1] + usual[2]) | alone).all()
    assert (with_column(1, 1.0)[0] > usual[0])[between].all() and (with_column(1, -1.0)[0] < usual[0])[between].all()
    job = (usual[2] > 0) & (usual[1] > 0)
    assert (with_column(2, 1.0)[2] > usual[2])[job].all() and (with_column(2, -1.0)[2] < usual[2])[job].all()


def test_queues_move_as_those_of_tasks() -> None:
    """Amounts are those that following every task gives, as long as a slot's upload is not left under way."""
    simulator = QueueSimulator(source=SOURCE, users=6, count=20, networks=20, rules=QueueRules(horizon=40, **HEAVY))
    simulator.reset([np.random.default_rng(n) for n in range(20)])
    tasks = TaskQueues((20, 6), 0.1)
    whole = np.ones((20, 6), dtype=bool)
    waiting = 0
    for action in actions(40, 20, 6):
        problem = simulator.problem()
        answer = ACTIONS.allocation(problem, torch.from_numpy(action))
        per_byte, upload = problem.flop_per_byte, answer.upload_bytes
        tasks.arrive(per_byte * (problem.captured_bytes - upload), 8 * upload, per_byte * upload)
        tasks.advance(problem.mu_flops, problem.rate_bps, answer.inference_flops)
        simulator.step(action)
        state = simulator.state
        local, bits, there = (values.numpy() for values in tasks.waiting)
        np.testing.assert_allclose(state.local_flop, local, rtol=1e-6, atol=10)
        np.testing.assert_allclose(state.uplink_bits, bits, rtol=1e-6, atol=10)
        whole &= bits == 0
        np.testing.assert_allclose(state.station_flop[whole], there[whole], rtol=1e-6, atol=100)
        waiting += int((there[whole] > 0).sum())
    assert waiting > 300 and (bits > 0).any() and (local > 0).any()


def test_work_is_neither_lost_nor_made() -> None:
    rules = QueueRules(horizon=60, **HEAVY)
    simulator = QueueSimulator(source=SOURCE, users=6, count=20, networks=20, rules=rules)
    simulator.reset([np.random.default_rng(n) for n in range(20)])
    state, per_byte = simulator.state, simulator.networks.flop_per_byte
    grown = 0.0
    for action in actions(60, 20, 6):
        before = (state.local_flop + per_byte * state.uplink_bits / 8 + state.station_flop).copy()
        new, left = per_byte * state.captured_bytes, state.training_flop.copy()
        problem = simulator.problem()
        answer = ACTIONS.allocation(problem, torch.from_numpy(action))
        simulator.step(action)
        after = state.local_flop + per_byte * state.uplink_bits / 8 + state.station_flop
        most = problem.mu_flops.numpy() * 0.1 + answer.inference_flops.numpy() * 0.1
        done = before + new - after
        assert (done >= -1e3).all() and (done <= most * (1 + 1e-9) + 1e3).all()
        trained = left - state.training_flop
        np.testing.assert_allclose(trained, np.minimum(left, answer.training_flops.numpy() * 0.1), rtol=1e-6, atol=10)
        assert (state.due_flop <= state.training_flop + 1).all()
        grown = max(grown, float(after.max()))
    assert grown > 1e9  # something waited


def test_jobs_come_once_an_episode_and_ask_for_their_part_of_the_compute() -> None:
    rules = QueueRules(horizon=50, training=0.4)
    frames = SOURCE.frames(300, 10, torch.Generator().manual_seed(0))
    jobs = jobs_of(frames, rules)
    assert jobs.sum(axis=1).mean() == pytest.approx(0.4 * 3 * 50e9 * 50 * 0.1)
    assert ((jobs > 0) == (frames.retrain_flop > 0).numpy()).all()
    simulator = QueueSimulator(source=SOURCE, users=4, count=5, networks=9, rules=rules)
    rngs = [np.random.default_rng(n) for n in range(5)]
    for _ in range(2):  # the second episode begins as empty as the first
        simulator.reset(rngs)
        state, of = simulator.state, simulator.networks
        assert (state.training_flop == of.job_flop[state.network]).all()
        assert not state.local_flop.any() and not state.station_flop.any() and not state.uplink_bits.any()
        np.testing.assert_allclose(state.due_flop, state.training_flop / 50)
        for _ in range(50):
            simulator.step(-np.ones((5, 4, 3)))
        np.testing.assert_allclose(state.due_flop, state.training_flop)  # all that is left is due at the end


def test_load_multiplies_what_is_captured() -> None:
    once, thrice = (QueuesEnv(source=SOURCE, users=5, networks=4, load=load) for load in (1.0, 3.0))
    for env in (once, thrice):
        env.reset(seed=4)
    np.testing.assert_allclose(3 * once.simulator.state.captured_bytes, thrice.simulator.state.captured_bytes)
    many = QueuesVectorEnv(num_envs=200, source=SOURCE, users=2, networks=4, load=(1.0, 9.0))
    many.reset(seed=0)
    drawn = many.simulator.state.load
    assert drawn.min() >= 1 and drawn.max() <= 9 and np.median(drawn) == pytest.approx(3.0, rel=0.3)


def test_a_critic_knows_what_the_slot_pays() -> None:
    """Without a discount an untrained critic's value is the reward, of the split and shares that are executed."""
    rules = QueueRules(load=(1.0, 10.0), overdue_weight=0.8, deadline_s=0.05)
    simulator = QueueSimulator(source=AtOnce(), users=8, count=40, networks=40, rules=rules)
    observation = torch.from_numpy(simulator.reset([np.random.default_rng(n) for n in range(40)]))
    critic = QueueCritic(4, ACTIONS, Outlook(gamma=0.0, slots_per_deadline=2.0, overdue_weight=0.8))
    for action in actions(10, 40, 8):
        with torch.no_grad():
            value = critic(observation, torch.from_numpy(action))
        observation = torch.from_numpy(simulator.step(action)[0])
        torch.testing.assert_close(value, torch.from_numpy(simulator.user_reward), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"load": 0.0}, r"load=0.0: must be > 0"),
        ({"load": (3.0, 1.0)}, r"load=\(3.0, 1.0\): must be > 0"),
        ({"slot_s": 0.0}, "slot_s=0.0: must be > 0"),
        ({"horizon": 0}, "horizon=0: must be >= 1"),
        ({"training": -1.0}, "training=-1.0: must be >= 0"),
        ({"users": 0}, "users=0: must be >= 1"),
    ],
)
def test_bad_keywords_are_named(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        QueuesEnv(source=SOURCE, **{"networks": 2, **keys})


def test_misuse_is_refused() -> None:
    env = QueuesEnv(source=SOURCE, users=3, networks=2)
    with pytest.raises(RuntimeError, match="call reset first"):
        env.step(np.zeros((3, 3), np.float32))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action: shape \(1, 3, 2\) must be \(1, 3, 3\)"):
        env.step(np.zeros((3, 2), np.float32))
    assert len(QUEUE_FEATURES) == env.observation_space.shape[-1]  # type: ignore[index]
