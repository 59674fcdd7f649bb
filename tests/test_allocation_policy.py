"""State, action and networks of the learned allocator, and its environment."""

from __future__ import annotations

import math
from dataclasses import replace

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from dtsim.allocation.environment import ShortTimescaleEnv, SlotBatch, SlotSimulator, reward_of
from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.policy import FEATURES, LOG_BOUND, SetActor, SetCritic, decode, observe
from dtsim.allocation.problem import station_sum, system_delay_s, user_delay_s
from tests.synthetic_source import SyntheticSource

SOURCE = SyntheticSource()


def sampled(slots=50, users=12, seed=3):
    return SOURCE.sample(slots, users, torch.Generator().manual_seed(seed))


def some_actor(hidden=16, seed=0):
    """An actor whose last layer is not zero, so that it says something."""
    actor = SetActor(hidden)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in actor.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return actor


def permuted(problem, order):
    names = ("captured_bytes", "rate_bps", "retrain_flop", "station", "mu_flops")
    return replace(problem, **{name: getattr(problem, name)[..., order] for name in names})


def test_observation_is_bounded_finite_and_names_its_columns():
    problem = sampled()
    observation = observe(problem)
    assert observation.shape == (50, 12, len(FEATURES))
    assert observation.dtype == torch.float32
    assert torch.isfinite(observation).all()
    assert (observation[..., :-1].abs() <= LOG_BOUND).all()
    assert (observation[..., -1] == problem.station).all()
    # The slowest MU of a BS has log ratio 0, and shares of a BS's work sum to 1.
    assert (
        torch.zeros(50, 3)
        .scatter_reduce(-1, problem.station, observation[..., 3], "amax", include_self=False)
        .abs()
        .max()
        < 1e-6
    )
    total = station_sum(observation[..., 2].exp(), problem)
    assert ((total - 1).abs() < 1e-5).logical_or(total == 0).all()


def test_observation_of_an_idle_or_unreachable_mu_is_finite():
    problem = sampled(slots=4)
    for name in ("captured_bytes", "rate_bps", "retrain_flop"):
        odd = replace(problem, **{name: torch.zeros_like(problem.captured_bytes)})
        assert torch.isfinite(observe(odd)).all()
    nothing = torch.zeros_like(problem.captured_bytes)
    assert torch.isfinite(observe(replace(problem, captured_bytes=nothing, retrain_flop=nothing))).all()


def test_observation_does_not_depend_on_the_unit_of_time():
    problem = sampled()
    slower = replace(
        problem,
        rate_bps=problem.rate_bps / 10,
        station_flops=problem.station_flops / 10,
        mu_flops=problem.mu_flops / 10,
        downlink_s=problem.downlink_s * 10,
    )
    torch.testing.assert_close(observe(slower), observe(problem), rtol=1e-4, atol=1e-4)


def test_zero_action_is_the_proportional_allocation():
    problem = sampled()
    usual = Proportional().allocate(problem)
    zero = decode(problem, torch.zeros(50, 12, 2), 3.0, 1.0)
    torch.testing.assert_close(zero.compute_flops, usual.compute_flops)
    torch.testing.assert_close(zero.upload_bytes, usual.upload_bytes, rtol=1e-5, atol=1e-3)
    untrained = SetActor(16)(observe(problem))
    assert (untrained == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_no_action_breaks_a_constraint(dtype, scale):
    problem = sampled(slots=300).to(dtype)
    action = scale * torch.randn(300, 12, 2, generator=torch.Generator().manual_seed(5))
    allocation = decode(problem, action, 3.0, 2.0)
    load = station_sum(allocation.compute_flops.double(), problem)
    assert (load <= problem.station_flops).all()
    assert (load >= problem.station_flops * (1 - 1e-5)).logical_or(load == 0).all()
    assert (allocation.compute_flops >= 0).all()
    assert (allocation.upload_bytes >= 0).all()
    assert (allocation.upload_bytes <= problem.captured_bytes).all()


def test_an_action_moves_shares_by_the_factor_it_says():
    problem = replace(sampled(slots=1, users=2), station=torch.zeros(1, 2, dtype=torch.int64))
    before = Proportional().allocate(problem).compute_flops[0]
    action = torch.zeros(1, 2, 2)
    action[0, 0, 0] = 0.5
    after = decode(problem, action, 3.0, 1.0).compute_flops[0]
    moved = (after[0] / after[1]) / (before[0] / before[1])
    assert moved.item() == pytest.approx(math.exp(1.5), rel=1e-4)


@pytest.mark.parametrize(("users", "stations"), [(1, 1), (5, 3), (20, 3), (40, 7)])
def test_one_network_serves_any_number_of_mus_and_bss(users, stations):
    problem = sampled(slots=6, users=users)
    generator = torch.Generator().manual_seed(0)
    problem = replace(
        problem,
        station=torch.randint(stations, (6, users), generator=generator),
        station_flops=torch.full((stations,), 50e9),
    )
    actor, critic = some_actor(), SetCritic(16, 3.0, "station", 20.0)
    action = actor(observe(problem))
    assert action.shape == (6, users, 2)
    assert critic(observe(problem), action).shape == (6, 1)
    allocation = decode(problem, action, 3.0, 1.0)
    assert torch.isfinite(user_delay_s(problem, allocation)).all()


def test_policy_follows_its_mus_and_ignores_the_names_of_bss():
    problem = sampled()
    actor = some_actor()
    action = actor(observe(problem))
    assert action.std() > 0.05
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(actor(observe(permuted(problem, order))), action[:, order], rtol=1e-4, atol=1e-5)
    renamed = replace(problem, station=2 - problem.station)
    torch.testing.assert_close(actor(observe(renamed)), action, rtol=1e-4, atol=1e-5)


def test_other_bss_do_not_disturb_an_mu():
    """What happens at another BS reaches an MU only through the slot's longest delay."""
    problem = sampled()
    elsewhere = problem.station != problem.station[:, :1]
    changed = replace(problem, captured_bytes=torch.where(elsewhere, 1.0, problem.captured_bytes))
    columns = [column for column in range(len(FEATURES)) if column != 5]
    torch.testing.assert_close(observe(changed)[:, 0, columns], observe(problem)[:, 0, columns])


@pytest.mark.parametrize("pool", ["station", "slot"])
def test_critic_starts_from_the_observed_delays(pool):
    """Before training it values every action as the proportional one: log ratio 0, up to the smooth maximum."""
    problem = sampled()
    critic = SetCritic(16, 3.0, pool, 200.0)
    value = critic(observe(problem), torch.zeros(50, 12, 2))
    assert value.shape == (50, 1)
    assert (value >= 0).all()
    assert value.max() < 0.02


def test_reward_compares_with_the_proportional_allocation():
    problem = sampled()
    usual, equal = Proportional().allocate(problem), Equal().allocate(problem)
    for reward in ("station_log_ratio", "log_ratio"):
        assert reward_of(problem, usual, reward).abs().max() == 0.0
    ratio = system_delay_s(problem, equal, "makespan") / system_delay_s(problem, usual, "makespan")
    torch.testing.assert_close(reward_of(problem, equal, "log_ratio"), -ratio.log())
    # One BS with all the MUs: both rewards say the same.
    crowded = replace(problem, station=torch.zeros_like(problem.station))
    given = Equal().allocate(crowded)
    torch.testing.assert_close(reward_of(crowded, given, "station_log_ratio"), reward_of(crowded, given, "log_ratio"))


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_the_environment():
    check_env(ShortTimescaleEnv(source=SOURCE, users=4), skip_render_check=True)


def test_environment_by_its_registered_name():
    env = gymnasium.make("dtsim/ShortTimescale-v0", source=SOURCE, users=3, horizon=5)
    observation, _ = env.reset(seed=1)
    assert observation.shape == (3, len(FEATURES))
    ends = [env.step(np.zeros((3, 2), dtype=np.float32))[2:4] for _ in range(5)]
    assert ends == [(False, False)] * 4 + [(False, True)]


def test_reset_with_a_seed_repeats_the_slots_and_another_seed_does_not():
    def rollout(env, seed):
        first, _ = env.reset(seed=seed)
        steps = [env.step(np.full((4, 2), 0.3, dtype=np.float32)) for _ in range(200)]
        return np.stack([first, *(step[0] for step in steps)]), np.array([step[1] for step in steps])

    env = ShortTimescaleEnv(source=SOURCE, users=4)
    one, rewards = rollout(env, 7)
    again, rewards_again = rollout(ShortTimescaleEnv(source=SOURCE, users=4), 7)
    repeated, _ = rollout(env, 7)
    other, _ = rollout(env, 8)
    assert (one == again).all()
    assert (one == repeated).all()
    assert (rewards == rewards_again).all()
    assert not (one == other).all()
    assert len(np.unique(one[:, 0, 1])) > 190  # a new slot every step


def test_environment_pays_what_the_problem_says():
    env = ShortTimescaleEnv(source=SOURCE, users=5, reward="log_ratio")
    env.reset(seed=0)
    problem = env.simulator.current.slots(slice(None)).to(torch.float64)
    action = np.random.default_rng(0).uniform(-1, 1, (5, 2)).astype(np.float32)
    expected = reward_of(problem, decode(problem, torch.as_tensor(action)[None], 2.0, 1.0), "log_ratio")
    assert env.step(action)[1] == pytest.approx(expected.item(), abs=1e-5)


def test_batch_of_environments_steps_and_resets_in_part():
    simulator = SlotSimulator(
        source=SOURCE,
        users=4,
        count=6,
        reward="log_ratio",
        compute_range=3.0,
        upload_range=1.0,
        generator=torch.Generator().manual_seed(0),
        block=8,
    )
    batch = SlotBatch(simulator)
    before, infos = batch.reset()
    assert before.shape == (6, 4, len(FEATURES))
    assert infos.dtype == object
    assert len({id(info) for info in infos}) == 6
    after, reward, terminated, truncated, _ = batch.step(np.zeros((2, 4, 2), dtype=np.float32), np.array([1, 4]))
    assert np.abs(reward).max() < 1e-6
    assert not terminated.any()
    assert not truncated.any()
    now = simulator.observation()
    assert (now[[1, 4]] == after).all()
    assert (now[[0, 2, 3, 5]] == before[[0, 2, 3, 5]]).all()
    assert (now[[1, 4]] != before[[1, 4]]).any()
    reset, _ = batch.reset(env_id=[3])
    assert (simulator.observation()[3] == reset[0]).all()
    for _ in range(10):  # across several blocks of slots
        batch.step(np.zeros((6, 4, 2), dtype=np.float32))
    assert all(space.contains(row) for space, row in zip(batch.observation_space, simulator.observation(), strict=True))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_agrees_with_cpu():
    problem = sampled()
    actor = some_actor()
    here = decode(problem, actor(observe(problem)), 2.0, 1.0)
    there = problem.to("cuda")
    assert observe(there).device.type == "cuda"
    moved = decode(there, actor.to("cuda")(observe(there)), 2.0, 1.0)
    torch.testing.assert_close(moved.compute_flops.cpu(), here.compute_flops, rtol=1e-3, atol=1.0)
    torch.testing.assert_close(moved.upload_bytes.cpu(), here.upload_bytes, rtol=1e-3, atol=1.0)
