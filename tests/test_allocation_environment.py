"""The short-timescale environment: Gymnasium's contract, its batched form, and the numbers of the tensor program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.gym.environment import ShortTimescaleEnv
from dtsim.allocation.gym.vector import ShortTimescaleVectorEnv
from dtsim.allocation.learned.observation import FEATURES, Reward, decode, observe
from dtsim.allocation.learned.reward import reward_of
from dtsim.allocation.optimal import Optimal, gap
from dtsim.allocation.problem import Frames, ProblemSource, system_delay_s
from dtsim.core.cache import Cache
from dtsim.core.checked import checked
from dtsim.core.parts import ConfigError, part
from dtsim.core.progress import Progress
from dtsim.core.rows import Row
from dtsim.physical.channel import Channel, FreeSpace
from dtsim.physical.urban import UrbanMicro
from dtsim.runner.defaults import default_mirror
from tests.synthetic_source import SyntheticSource

SOURCE = SyntheticSource()
NAME = "dtsim/ShortTimescale-v0"


@dataclass(frozen=True)
class Edges(SyntheticSource):
    """Idle MUs, MUs out of reach and MUs that do both or neither; BSs without work or without MUs."""

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


def actions(steps: int, *shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *shape, 2)).astype(np.float32)


def rollout(env: ShortTimescaleEnv | ShortTimescaleVectorEnv, seed: int, steps: int = 50) -> list[NDArray[Any]]:
    """Observations, rewards and ends of an environment, single or batched, that is reset where it ends."""
    observation, _ = env.reset(seed=seed)
    seen: list[tuple[object, object, object]] = [(observation, 0.0, False)]
    for action in actions(steps, *(env.action_space.shape or ())[:-1]):
        observation, reward, _, truncated, _ = env.step(action)
        seen.append((observation, reward, truncated))
        if not isinstance(env, gymnasium.vector.VectorEnv) and truncated:
            observation, _ = env.reset()
            seen.append((observation, 0.0, False))
    return [np.array(values) for values in zip(*seen, strict=True)]


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_the_environment_made_without_arguments() -> None:
    check_env(gymnasium.make(NAME).unwrapped, skip_render_check=True)


@pytest.mark.filterwarnings("error")
def test_gymnasium_accepts_other_sources() -> None:
    check_env(ShortTimescaleEnv(source=SOURCE, users=4), skip_render_check=True)
    check_env(ShortTimescaleEnv(source=Edges(), users=1, horizon=2), skip_render_check=True)


def test_episodes_are_truncated_at_the_horizon() -> None:
    env = gymnasium.make(NAME, source=SOURCE, users=3, horizon=5)
    for _ in range(2):
        observation, _ = env.reset(seed=1)
        assert observation.shape == (3, len(FEATURES))
        assert observation.dtype == np.float32
        ends = [env.step(np.zeros((3, 2), dtype=np.float32))[2:4] for _ in range(5)]
        assert ends == [(False, False)] * 4 + [(False, True)]


@pytest.mark.parametrize("horizon", [1, 40, 100])  # one block of random numbers and several
def test_reset_with_a_seed_repeats_the_episodes_and_another_seed_does_not(horizon: int) -> None:
    env = ShortTimescaleEnv(source=SOURCE, users=4, horizon=horizon)
    first, again = rollout(env, 7, 120), rollout(env, 7, 120)
    fresh = rollout(ShortTimescaleEnv(source=SOURCE, users=4, horizon=horizon), 7, 120)
    other = rollout(env, 8, 120)
    for one, two, three in zip(first, again, fresh, strict=True):
        assert (one == two).all()
        assert (one == three).all()
    assert not (first[0] == other[0]).all()
    assert len(np.unique(first[0][:, 0, 1])) > 115  # another rate in every slot


@pytest.mark.parametrize("source", [SOURCE, Edges()], ids=["usual", "edges"])
@pytest.mark.parametrize("reward", ["station_log_ratio", "log_ratio"])
def test_numbers_are_those_of_the_tensor_program(source: SyntheticSource, reward: Reward) -> None:
    env = ShortTimescaleVectorEnv(num_envs=64, source=source, users=9, networks=200, reward=reward, horizon=3)
    observation, _ = env.reset(seed=0)
    for action in actions(7, 64, 9):  # across resets
        problem = env.simulator.problem()
        exact = problem.to(torch.float64)
        np.testing.assert_allclose(observation, observe(exact).numpy(), rtol=1e-5, atol=1e-5)
        expected = reward_of(exact, decode(exact, torch.as_tensor(action), 2.0, 1.0), reward)
        observation, got, *_ = env.step(action)
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("source", [SOURCE, Edges()], ids=["usual", "edges"])
def test_the_info_of_a_step_holds_delay_optimum_and_gap(source: SyntheticSource) -> None:
    env = ShortTimescaleEnv(source=source, users=6, networks=50)
    batch = ShortTimescaleVectorEnv(num_envs=3, source=source, users=6, networks=50, optimum=True)
    env.reset(seed=2)
    batch.reset(seed=[2, 3, 4])
    for action in actions(10, 6):
        problem = env.simulator.problem().to(torch.float64)
        allocation = decode(problem, torch.as_tensor(action)[None], 2.0, 1.0)
        *_, info = env.step(action)
        assert info == env.info and set(info) == {"delay_s", "optimum_s", "gap"}
        assert info["delay_s"] == pytest.approx(float(system_delay_s(problem, allocation, "makespan")), rel=1e-5)
        best = Optimal().allocate(problem)
        assert info["optimum_s"] == pytest.approx(float(system_delay_s(problem, best, "makespan")), rel=1e-5, abs=1e-9)
        assert info["gap"] == pytest.approx(float(gap(problem, allocation, "makespan")), rel=1e-3, abs=1e-5)
        infos: dict[str, Any] = batch.step(np.stack([action] * 3))[-1]
        assert infos["delay_s"][0] == info["delay_s"] and infos["gap"][0] == info["gap"]
    assert set(ShortTimescaleEnv(source=source, users=2, networks=2, optimum=False).info) == set()


def test_zero_action_earns_nothing() -> None:
    env = ShortTimescaleVectorEnv(num_envs=8, source=SOURCE, users=5)
    env.reset(seed=0)
    assert np.abs(env.step(np.zeros((8, 5, 2), dtype=np.float32))[1]).max() < 1e-9


@pytest.mark.parametrize("source", [SOURCE, Edges()], ids=["usual", "edges"])
def test_batched_environment_is_single_ones_side_by_side_bit_for_bit(source: SyntheticSource) -> None:
    keywords: dict[str, Any] = {"source": source, "users": 6, "horizon": 7, "networks": 50, "optimum": True}
    batched = gymnasium.make_vec(NAME, num_envs=5, vectorization_mode="vector_entry_point", **keywords)
    single = SyncVectorEnv(
        [partial(gymnasium.make, NAME, **keywords)] * 5, autoreset_mode=batched.metadata["autoreset_mode"]
    )
    assert batched.single_observation_space == single.single_observation_space
    assert batched.single_action_space == single.single_action_space
    assert batched.observation_space == single.observation_space
    assert batched.action_space == single.action_space
    seeds: tuple[Any, ...] = (3, None, [9, 1, 9, 2, 5])
    for seed in seeds:  # None: each goes on with its own random numbers
        one, two = batched.reset(seed=seed)[0], single.reset(seed=seed)[0]
        assert (one == two).all()
        for action in actions(30, 5, 6):  # four episodes
            got, expected = batched.step(action), single.step(action)
            for mine, theirs in zip(got[:4], expected[:4], strict=True):
                assert mine.dtype == theirs.dtype
                assert (mine == theirs).all()
            assert got[4].keys() == expected[4].keys()
            if "final_obs" in got[4]:
                assert (np.stack(got[4]["final_obs"]) == np.stack(expected[4]["final_obs"])).all()
                assert (got[4]["_final_obs"] == expected[4]["_final_obs"]).all()


def test_what_the_batched_environment_returns_stays_as_it_was() -> None:
    env = ShortTimescaleVectorEnv(num_envs=4, source=SOURCE, users=3, horizon=2)
    kept = [env.reset(seed=0)[0], *(env.step(action)[0] for action in actions(5, 4, 3))]
    copies = [row.copy() for row in kept]
    env.step(actions(1, 4, 3)[0])
    assert all((one == two).all() for one, two in zip(kept, copies, strict=True))
    assert env.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    assert all(env.observation_space.contains(row) for row in kept)
    with pytest.raises(ValueError, match="3 seeds must be 4"):
        env.reset(seed=[1, 2, 3])


def test_frames_stay_while_their_slots_go_by() -> None:
    env = ShortTimescaleVectorEnv(num_envs=2000, source=SOURCE, users=4, networks=300, horizon=3)
    env.reset(seed=0)
    state, rho = env.simulator.state, env.simulator.networks.correlation
    before, first = state.fading.copy(), env.simulator.problem()
    env.step(np.zeros((2000, 4, 2), dtype=np.float32))
    second = env.simulator.problem()
    assert (first.station == second.station).all()
    assert (first.retrain_flop == second.retrain_flop).all()
    assert (first.captured_bytes != second.captured_bytes).double().mean() > 0.9
    # E[h'h*] = rho and E|h|^2 = 1, link by link.
    product = (before * state.fading).sum(-1)
    assert np.abs((product - rho[state.network]).mean()) < 0.05
    slope = (product * rho[state.network]).mean() / (rho[state.network] ** 2).mean()
    assert slope == pytest.approx(1.0, abs=0.06)
    assert (state.fading**2).sum(-1).mean() == pytest.approx(1.0, abs=0.05)
    shown = set(first.captured_bytes.unique().tolist())
    assert shown == {784.0 * images for images in range(10, 31)}
    for _ in range(2):
        env.step(np.zeros((2000, 4, 2), dtype=np.float32))
    third = env.simulator.problem()  # another episode, another network
    assert (first.retrain_flop != third.retrain_flop).any()
    assert len(np.unique(state.network)) > 290


def test_the_mirror_s_frames_have_the_law_of_its_slots() -> None:
    mirror = default_mirror()
    frames = mirror.frames(3000, 20, torch.Generator().manual_seed(0))
    again = mirror.frames(3000, 20, torch.Generator().manual_seed(0))
    slots = mirror.sample(3000, 20, torch.Generator().manual_seed(1))
    assert torch.equal(frames.station, again.station)
    assert torch.equal(frames.snr, again.snr)
    env = ShortTimescaleVectorEnv(num_envs=3000, source=mirror, networks=3000)
    env.reset(seed=0)
    drawn = env.simulator.problem()
    for name in ("captured_bytes", "rate_bps", "retrain_flop"):
        one, two = getattr(drawn, name).double().mean().item(), getattr(slots, name).double().mean().item()
        assert one == pytest.approx(two, rel=0.03), name
    assert drawn.station_flops.tolist() == slots.station_flops.tolist()
    assert (drawn.flop_per_byte, drawn.downlink_s) == (slots.flop_per_byte, slots.downlink_s)
    zero = torch.zeros(3000, 20, 2)
    delays = [system_delay_s(p, decode(p, zero, 2.0, 1.0), "makespan").mean().item() for p in (drawn, slots)]
    assert delays[0] == pytest.approx(delays[1], rel=0.05)


def test_without_fading_rates_stay_in_a_frame() -> None:
    mirror = default_mirror()
    still = replace(mirror, network=replace(mirror.network, channel=FreeSpace(fading="none")))
    env = ShortTimescaleVectorEnv(num_envs=3, source=still, users=4, networks=10)
    env.reset(seed=0)
    before = env.simulator.problem().rate_bps
    env.step(np.zeros((3, 4, 2), dtype=np.float32))
    assert torch.equal(env.simulator.problem().rate_bps, before)
    assert (before > 0).all()


def test_default_source_is_what_a_run_trains_on(tiny: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from dtsim.runner import assembly
    from dtsim.runner.defaults import default_config

    seen: list[ProblemSource] = []

    def prepared(allocator: Allocator, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
        seen.append(source)
        return []

    monkeypatch.setattr(assembly, "prepared", prepared)
    assembly.assemble(default_config([o for o in tiny if "traffic" not in o and "slots_per_frame" not in o]))
    run, default = seen[0].description(), default_mirror().description()
    assert run.keys() == default.keys()
    assert {key for key in run if run[key] != default[key]} == {"update_flop"}  # `tiny` retrains on fewer images
    assert default["update_flop"] == checked(run["update_flop"], float, "update_flop") * 1200 / 60


@pytest.mark.parametrize("name", ["users", "networks", "horizon"])
def test_numbers_out_of_range_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name}=0: must be >= 1"):
        ShortTimescaleEnv(source=SOURCE, **cast(Any, {name: 0}))


def test_misuse_is_refused() -> None:
    env = ShortTimescaleVectorEnv(num_envs=2, source=SOURCE, users=3)
    with pytest.raises(RuntimeError, match="reset"):
        env.step(np.zeros((2, 3, 2), dtype=np.float32))
    env.reset(seed=0)
    for shape in ((2, 2), (3, 1), (4, 2)):
        with pytest.raises(ValueError, match=r"must be \(2, 3, 2\)"):
            env.step(np.zeros((2, *shape), dtype=np.float32))
    frames = SOURCE.frames(4, 3, torch.Generator())
    odds: tuple[dict[str, Any], ...] = (
        {"station": frames.station + 3},
        {"snr": frames.snr[:, :2]},
        {"captured_bytes": torch.zeros(0)},
    )
    for odd in odds:
        with pytest.raises(ValueError, match=next(iter(odd))):
            replace(frames, **odd)


def test_frames_of_an_unknown_channel_are_refused() -> None:
    @part
    class Other:
        downlink_s: float = 0.0

    mirror = default_mirror()
    odd = replace(mirror, network=replace(mirror.network, channel=cast(Channel, Other())))
    with pytest.raises(ConfigError, match="channel=Other"):
        ShortTimescaleEnv(source=odd)
    direct = replace(mirror, network=replace(mirror.network, channel=FreeSpace(fading="rician")))
    with pytest.raises(ConfigError, match=r"channel.fading=rician"):
        ShortTimescaleEnv(source=direct)


def test_frames_and_slots_of_an_urban_channel_have_the_same_rates() -> None:
    mirror = default_mirror()
    urban = replace(mirror, network=replace(mirror.network, channel=UrbanMicro(fading="rayleigh")))
    slots = urban.sample(4000, 5, torch.Generator().manual_seed(0)).rate_bps
    assert slots.min() > 0
    assert slots.isfinite().all()
    env = ShortTimescaleVectorEnv(num_envs=4000, source=urban, users=5, networks=4000)
    env.reset(seed=1)
    drawn = env.simulator.problem().rate_bps
    for quantile in (0.05, 0.5, 0.95):
        assert drawn.quantile(quantile).item() == pytest.approx(slots.quantile(quantile).item(), rel=0.12)


def test_stable_baselines3_trains_on_it() -> None:
    sb3 = pytest.importorskip("stable_baselines3")
    env = gymnasium.make(NAME, source=SOURCE, users=4, horizon=20)
    model = sb3.DDPG(
        "MlpPolicy", env, seed=0, device="cpu", learning_starts=50, batch_size=32, policy_kwargs={"net_arch": [16]}
    )
    before = [weight.clone() for weight in model.actor.parameters()]
    model.learn(300)
    assert model.num_timesteps == 300
    assert model.replay_buffer.size() == 300
    assert any((one != two).any() for one, two in zip(before, model.actor.parameters(), strict=True))
    action, _ = model.predict(env.reset(seed=0)[0], deterministic=True)
    assert env.action_space.contains(action)


def test_a_slot_is_drawn_as_it_was_allocated(monkeypatch: pytest.MonkeyPatch) -> None:
    env = ShortTimescaleEnv(source=SOURCE, users=6, networks=4, horizon=5, render_mode="rgb_array")
    with pytest.raises(RuntimeError, match="call reset first"):
        env.render()
    env.reset(seed=0)
    before = env.render()
    assert before is not None and before.dtype == np.uint8 and before.shape[2] == 3 and before.std() > 10
    seen: list[float] = []
    monkeypatch.setattr(
        "dtsim.allocation.gym.render.picture",
        lambda problem, allocation: seen.append(float(system_delay_s(problem, allocation, "makespan"))),
    )
    for action in actions(3, 6):
        *_, info = env.step(action)
        env.render()
        assert seen[-1] == pytest.approx(info["delay_s"], rel=1e-4)
    assert ShortTimescaleEnv(source=SOURCE, users=6, networks=4).render() is None
    with pytest.raises(ValueError, match="render_mode='human': must be rgb_array or None"):
        ShortTimescaleEnv(source=SOURCE, users=6, networks=4, render_mode="human")  # type: ignore[arg-type]
