"""State, action, reward and networks of the learned allocators."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.learned.actions import ActionKind, Actions
from dtsim.allocation.learned.apg import smooth_log_ratio
from dtsim.allocation.learned.networks import Actor, FlatActor, FlatCritic, SetActor, SetCritic
from dtsim.allocation.learned.observation import FEATURES, LOG_BOUND, Reward, decode, observe
from dtsim.allocation.learned.reward import delay_reward, delay_scores, reward_of
from dtsim.allocation.problem import AllocationProblem, station_sum, system_delay_s, user_delay_s
from tests.synthetic_source import SyntheticSource

SOURCE = SyntheticSource()


def sampled(slots: int = 50, users: int = 12, seed: int = 3) -> AllocationProblem:
    return SOURCE.sample(slots, users, torch.Generator().manual_seed(seed))


def acting(kind: ActionKind) -> Actions:
    return Actions(kind=kind, compute_range=3.0, upload_range=1.0)


def some_actor(hidden: int = 16, seed: int = 0, actor: Actor | None = None) -> Actor:
    """An actor whose last layer is not zero, so that it says something."""
    actor = actor or SetActor(hidden)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in actor.parameters():
            weight.copy_(0.3 * torch.randn(weight.shape, generator=generator))
    return actor


def permuted(problem: AllocationProblem, order: torch.Tensor) -> AllocationProblem:
    names = ("captured_bytes", "rate_bps", "retrain_flop", "station", "mu_flops")
    return replace(problem, **{name: getattr(problem, name)[..., order] for name in names})


def test_observation_is_bounded_finite_and_names_its_columns() -> None:
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


def test_observation_of_an_idle_or_unreachable_mu_is_finite() -> None:
    problem = sampled(slots=4)
    for name in ("captured_bytes", "rate_bps", "retrain_flop"):
        none: Any = {name: torch.zeros_like(problem.captured_bytes)}
        odd = replace(problem, **none)
        assert torch.isfinite(observe(odd)).all()
    nothing = torch.zeros_like(problem.captured_bytes)
    assert torch.isfinite(observe(replace(problem, captured_bytes=nothing, retrain_flop=nothing))).all()


def test_observation_does_not_depend_on_the_unit_of_time() -> None:
    problem = sampled()
    slower = replace(
        problem,
        rate_bps=problem.rate_bps / 10,
        station_flops=problem.station_flops / 10,
        mu_flops=problem.mu_flops / 10,
        downlink_s=problem.downlink_s * 10,
    )
    torch.testing.assert_close(observe(slower), observe(problem), rtol=1e-4, atol=1e-4)


def test_zero_action_is_the_proportional_allocation() -> None:
    problem = sampled()
    usual = Proportional().allocate(problem)
    zero = decode(problem, torch.zeros(50, 12, 2), 3.0, 1.0)
    torch.testing.assert_close(zero.compute_flops, usual.compute_flops)
    torch.testing.assert_close(zero.upload_bytes, usual.upload_bytes, rtol=1e-5, atol=1e-3)
    untrained = SetActor(16)(observe(problem))
    assert (untrained == 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_no_action_breaks_a_constraint(dtype: torch.dtype, scale: float) -> None:
    problem = sampled(slots=300).to(dtype)
    action = scale * torch.randn(300, 12, 2, generator=torch.Generator().manual_seed(5))
    allocation = decode(problem, action, 3.0, 2.0)
    load = station_sum(allocation.compute_flops.double(), problem)
    assert (load <= problem.station_flops).all()
    assert (load >= problem.station_flops * (1 - 1e-5)).logical_or(load == 0).all()
    assert (allocation.compute_flops >= 0).all()
    assert (allocation.upload_bytes >= 0).all()
    assert (allocation.upload_bytes <= problem.captured_bytes).all()


def test_an_action_moves_shares_by_the_factor_it_says() -> None:
    problem = replace(sampled(slots=1, users=2), station=torch.zeros(1, 2, dtype=torch.int64))
    before = Proportional().allocate(problem).compute_flops[0]
    action = torch.zeros(1, 2, 2)
    action[0, 0, 0] = 0.5
    after = decode(problem, action, 3.0, 1.0).compute_flops[0]
    moved = (after[0] / after[1]) / (before[0] / before[1])
    assert moved.item() == pytest.approx(math.exp(1.5), rel=1e-4)


@pytest.mark.parametrize(("users", "stations"), [(1, 1), (5, 3), (20, 3), (40, 7)])
def test_one_network_serves_any_number_of_mus_and_bss(users: int, stations: int) -> None:
    problem = sampled(slots=6, users=users)
    generator = torch.Generator().manual_seed(0)
    problem = replace(
        problem,
        station=torch.randint(stations, (6, users), generator=generator),
        station_flops=torch.full((stations,), 50e9),
    )
    actor, critic = some_actor(), SetCritic(16, acting("residual"), "station", 20.0)
    action = actor(observe(problem))
    assert action.shape == (6, users, 2)
    assert critic(observe(problem), action).shape == (6, 1)
    allocation = decode(problem, action, 3.0, 1.0)
    assert torch.isfinite(user_delay_s(problem, allocation)).all()


def test_policy_follows_its_mus_and_ignores_the_names_of_bss() -> None:
    problem = sampled()
    actor = some_actor()
    action = actor(observe(problem))
    assert action.std() > 0.05
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(actor(observe(permuted(problem, order))), action[:, order], rtol=1e-4, atol=1e-5)
    renamed = replace(problem, station=2 - problem.station)
    torch.testing.assert_close(actor(observe(renamed)), action, rtol=1e-4, atol=1e-5)


def test_other_bss_do_not_disturb_an_mu() -> None:
    """What happens at another BS reaches an MU only through the slot's longest delay."""
    problem = sampled()
    elsewhere = problem.station != problem.station[:, :1]
    changed = replace(problem, captured_bytes=torch.where(elsewhere, 1.0, problem.captured_bytes))
    columns = [column for column in range(len(FEATURES)) if column != 5]
    torch.testing.assert_close(observe(changed)[:, 0, columns], observe(problem)[:, 0, columns])


@pytest.mark.parametrize("pool", ["station", "slot"])
def test_critic_starts_from_the_observed_delays(pool: str) -> None:
    """Before training it values every action as the proportional one: log ratio 0, up to the smooth maximum."""
    problem = sampled()
    critic = SetCritic(16, acting("residual"), pool, 200.0)
    value = critic(observe(problem), torch.zeros(50, 12, 2))
    assert value.shape == (50, 1)
    assert (value >= 0).all()
    assert value.max() < 0.02


@pytest.mark.parametrize("pool", ["station", "slot"])
def test_critic_takes_the_slowest_mu_of_each_bs_or_of_the_slot(pool: str) -> None:
    problem = sampled()
    problem = replace(problem, station=problem.station.clamp(max=1))  # the last BS has no MU
    critic = SetCritic(16, acting("residual"), pool, 1e4)
    for seed, weight in enumerate(critic.parameters()):
        weight.data.normal_(std=0.3, generator=torch.Generator().manual_seed(seed))
    observation, action = observe(problem), 0.1 * torch.ones(50, 12, 2)
    scores = critic.scores(observation, action)
    if pool == "slot":
        expected = (scores + observation[..., 5]).amax(-1)
    else:
        slowest = torch.full((50, 2), -torch.inf).scatter_reduce(-1, problem.station, scores, "amax")
        expected = slowest.sum(-1) / 2
        assert (slowest > -torch.inf).all()
    torch.testing.assert_close(critic(observation, action)[:, 0], -expected, rtol=1e-3, atol=1e-3)


def test_critic_knows_others_only_by_what_they_take_from_an_mu() -> None:
    """Its score of an MU changes with another's share of the same BS's compute, not with the other's upload."""
    problem = replace(sampled(), station=torch.zeros(50, 12, dtype=torch.int64))
    critic = SetCritic(16, acting("residual"), "station", 20.0)
    for seed, weight in enumerate(critic.parameters()):
        weight.data.normal_(generator=torch.Generator().manual_seed(seed))
    observation, action = observe(problem), torch.zeros(50, 12, 2)
    before = critic.scores(observation, action)[:, 0]
    for column, same in ((0, False), (1, True)):
        moved = action.clone()
        moved[:, 5, column] = 1.0
        assert torch.equal(critic.scores(observation, moved)[:, 0], before) == same


def test_the_slowest_score_of_a_bs_is_its_part_of_the_reward() -> None:
    problem = sampled()
    delay_s = user_delay_s(problem, Equal().allocate(problem))
    scores = delay_scores(problem, delay_s)
    assert scores.dtype == torch.float32
    slowest = torch.full((50, 3), -torch.inf).scatter_reduce(-1, problem.station, scores, "amax")
    busy = slowest > -torch.inf
    mean = torch.where(busy, slowest, 0.0).sum(-1) / busy.sum(-1)
    torch.testing.assert_close(-mean, delay_reward(problem, delay_s, "station_log_ratio"), rtol=1e-4, atol=1e-5)


def test_reward_compares_with_the_proportional_allocation() -> None:
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


KINDS = ["residual", "simplex", "raw"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [0.1, 1.0, 1e3])
def test_what_is_carried_out_breaks_no_constraint_whatever_the_kind_of_action(
    kind: ActionKind, dtype: torch.dtype, scale: float
) -> None:
    problem = sampled(slots=200).to(dtype)
    problem = replace(problem, rate_bps=torch.where(problem.station == 0, 0.0, problem.rate_bps))
    action = scale * torch.randn(200, 12, acting(kind).columns, generator=torch.Generator().manual_seed(5))
    allocation = acting(kind).allocation(problem, action)
    assert allocation.compute_flops.dtype == dtype
    assert (station_sum(allocation.compute_flops.double(), problem) <= problem.station_flops).all()
    assert ((allocation.upload_bytes >= 0) & (allocation.upload_bytes <= problem.captured_bytes)).all()
    assert torch.isfinite(user_delay_s(problem, allocation)).all()
    assert torch.isfinite(acting(kind).delay_s(problem, action)).all()


def test_simplex_shares_are_a_softmax_and_its_uploads_fractions() -> None:
    problem = sampled(slots=4)
    action = torch.randn(4, 12, 2, generator=torch.Generator().manual_seed(1)).clamp(-1, 1)
    allocation = acting("simplex").allocation(problem, action)
    share = allocation.compute_flops / problem.station_flops[..., :1]
    for slot, station in [(0, 0), (3, 2)]:
        mine = problem.station[slot] == station
        expected = torch.softmax(3.0 * action[slot, mine, 0], -1)
        torch.testing.assert_close(share[slot, mine], expected, rtol=1e-4, atol=0.0)
    torch.testing.assert_close(allocation.upload_bytes / problem.captured_bytes, (action[..., 1] + 1) / 2)


def test_raw_actions_are_free_priced_as_asked_and_pay_for_what_they_break() -> None:
    problem = replace(sampled(slots=1, users=2), station=torch.zeros(1, 2, dtype=torch.int64))
    raw = acting("raw")
    asked = torch.tensor([[[1.0, 0.0, 0.5], [1.0, 0.0, 0.0]]])  # all of the BS for each; (0.5, 0.75) and (0.5, 0.5)
    penalty = raw.penalty(problem, asked, 2.0, 5.0)
    assert penalty.item() == pytest.approx(2.0 * 0.25 + 5.0 * 1.0, rel=1e-5)
    assert raw.penalty(problem, torch.zeros(1, 2, 3), 2.0, 5.0).item() == pytest.approx(5.0 * 1e-3, rel=1e-3)
    carried = raw.allocation(problem, asked)
    torch.testing.assert_close(carried.compute_flops, torch.full((1, 2), 25e9), rtol=1e-5, atol=0.0)
    # Twice the compute that can be given, and data done twice.
    remote = 8 * 0.5 * problem.captured_bytes / problem.rate_bps + problem.downlink_s
    remote = remote + (problem.flop_per_byte * 0.5 * problem.captured_bytes + problem.retrain_flop) / 50e9
    local = torch.tensor([[0.75, 0.5]]) * problem.captured_bytes * problem.flop_per_byte / problem.mu_flops
    torch.testing.assert_close(raw.delay_s(problem, asked), torch.maximum(remote, local), rtol=1e-5, atol=0.0)
    for kind in ("residual", "simplex"):
        action = torch.randn(1, 2, 2)
        assert acting(kind).penalty(problem, action, 2.0, 5.0).item() == 0.0
        same = user_delay_s(problem, acting(kind).allocation(problem, action))
        assert torch.equal(acting(kind).delay_s(problem, action), same)


@pytest.mark.parametrize("reward", ["station_log_ratio", "log_ratio"])
def test_leaving_all_data_undone_is_fast_but_does_not_pay(reward: Reward) -> None:
    problem = replace(sampled(), retrain_flop=torch.zeros(50, 12))
    nothing = torch.tensor([-0.8, -1.0, -1.0]).expand(50, 12, 3)
    raw = acting("raw")
    fast = delay_reward(problem, raw.delay_s(problem, nothing), reward)
    assert (fast == LOG_BOUND).all()
    assert (fast - raw.penalty(problem, nothing, 1.0, 1.0) < 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_critic_is_told_the_share_that_an_action_gives(kind: ActionKind) -> None:
    problem = sampled(slots=20)
    action = torch.rand(20, 12, acting(kind).columns, generator=torch.Generator().manual_seed(2)) * 2 - 1
    if kind == "raw":
        action[..., 0] = -0.9  # no BS is overloaded, so nothing is scaled down
        problem = replace(problem, station=torch.arange(12).expand(20, 12) % 3)
    members = torch.nn.functional.one_hot(problem.station, 3).to(torch.float32)
    gain = acting(kind).log_gain(observe(problem), action, members)
    usual = Proportional().allocate(problem).compute_flops
    given = acting(kind).allocation(problem, action).compute_flops
    torch.testing.assert_close(gain, (given / usual).log(), rtol=1e-3, atol=1e-4)
    critic = SetCritic(8, acting(kind), "station", 50.0)
    assert critic(observe(problem), action).shape == (20, 1)


def test_flat_networks_see_all_mus_at_once() -> None:
    problem = sampled(slots=6)
    observation = observe(problem)
    actor = some_actor(actor=FlatActor(16, 3, 12, 3))
    action = actor(observation)
    assert action.shape == (6, 12, 3)
    assert (FlatActor(16, 3, 12, 3)(observation) == 0).all()
    elsewhere = replace(problem, station=(problem.station + (torch.arange(12) == 11)) % 3)
    assert (actor(observe(elsewhere))[:, 0] != action[:, 0]).any()  # an MU's action hangs on every other MU
    assert FlatCritic(16, 3, 12, 3)(observation, action).shape == (6, 1)


@pytest.mark.parametrize("reward", ["station_log_ratio", "log_ratio"])
def test_smooth_maximum_is_the_reward_in_the_limit_and_has_finite_gradients(reward: Reward) -> None:
    problem = sampled()
    action = torch.randn(50, 12, 2, generator=torch.Generator().manual_seed(5)).requires_grad_()
    delay_s = acting("residual").delay_s(problem, action)
    exact = -delay_reward(problem, delay_s, reward)
    torch.testing.assert_close(smooth_log_ratio(problem, delay_s, reward, 1e5), exact, rtol=1e-3, atol=1e-4)
    soft = smooth_log_ratio(problem, delay_s, reward, 20.0)
    assert ((soft >= exact - 1e-5) & (soft <= exact + math.log(12) / 20 + 1e-5)).all()
    (gradient,) = torch.autograd.grad(soft.sum(), action)
    assert torch.isfinite(gradient).all()
    assert gradient.any()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_where_there_is_nothing_to_do_or_no_rate(kind: ActionKind) -> None:
    problem = sampled(slots=4)
    nothing = torch.zeros_like(problem.captured_bytes)
    idle = torch.arange(12) < 6
    for odd in (
        replace(problem, captured_bytes=nothing, retrain_flop=nothing),
        replace(problem, captured_bytes=torch.where(idle, 0.0, problem.captured_bytes), retrain_flop=nothing),
        replace(problem, rate_bps=nothing),
    ):
        action = torch.zeros(4, 12, acting(kind).columns, requires_grad=True)
        loss = smooth_log_ratio(odd, acting(kind).delay_s(odd, action), "station_log_ratio", 20.0)
        (gradient,) = torch.autograd.grad(loss.sum(), action)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_agrees_with_cpu() -> None:
    problem = sampled()
    actor = some_actor()
    here = decode(problem, actor(observe(problem)), 2.0, 1.0)
    there = problem.to("cuda")
    assert observe(there).device.type == "cuda"
    moved = decode(there, actor.to("cuda")(observe(there)), 2.0, 1.0)
    torch.testing.assert_close(moved.compute_flops.cpu(), here.compute_flops, rtol=1e-3, atol=1.0)
    torch.testing.assert_close(moved.upload_bytes.cpu(), here.upload_bytes, rtol=1e-3, atol=1.0)


@pytest.mark.parametrize("kind", ["residual", "simplex", "raw"])
def test_every_kind_of_action_meets_a_least_upload_and_keeps_its_gradient(kind: ActionKind) -> None:
    problem = sampled().to(torch.float64)
    least = torch.where(problem.rate_bps > 0, 0.6 * problem.captured_bytes, 0.0)
    bounded = replace(problem, least_upload_bytes=least)
    actions = acting(kind)
    shape = (*problem.captured_bytes.shape, actions.columns)
    action = torch.empty(shape).uniform_(-1, 1, generator=torch.Generator().manual_seed(0)).requires_grad_()
    free, held = actions.allocation(problem, action), actions.allocation(bounded, action)
    assert (free.upload_bytes < least).any()
    assert (held.upload_bytes >= least).all() and (held.upload_bytes <= problem.captured_bytes * (1 + 1e-12)).all()
    if kind != "residual":  # which splits the data anew for each least upload
        assert torch.equal(held.upload_bytes, torch.maximum(free.upload_bytes, least))
    (slope,) = torch.autograd.grad(held.upload_bytes.sum(), action)
    assert torch.isfinite(slope).all()
