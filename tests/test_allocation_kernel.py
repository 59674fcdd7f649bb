"""The compiled loops are held to the tensor program: same delays, observations and rewards for any slot."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dtsim.allocation.gym import kernel
from dtsim.allocation.heuristics import proportional_share
from dtsim.allocation.learned.observation import FEATURES, Reward, decode, observe
from dtsim.allocation.learned.reward import reward_of
from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import (
    Allocation,
    AllocationProblem,
    best_upload_bytes,
    serving,
    split_delay_s,
    station_delay_s,
    system_delay_s,
    user_delay_s,
)

RANGES = (2.0, 1.0)


@dataclass(frozen=True)
class Slots:
    """Slots as the kernel has them and as an allocation problem, in double precision; N environments."""

    networks: kernel.Networks
    state: kernel.State
    problem: AllocationProblem


def some(low: float, high: float) -> st.SearchStrategy[float]:
    """0, which every quantity may be, or a number between the two."""
    return st.just(0.0) | st.floats(low, high, width=32)


@st.composite
def slots(draw: st.DrawFn) -> Slots:
    """MUs without data, without rate, without compute of their BS's, without retraining; BSs without MUs."""
    environments, users, stations = (draw(st.integers(1, most)) for most in (3, 6, 4))

    def drawn(low: float, high: float) -> np.ndarray:
        return draw(arrays(np.float32, (environments, users), elements=some(low, high)))

    networks = kernel.Networks(
        station=draw(arrays(np.int64, (environments, users), elements=st.integers(0, stations - 1))),
        retrain_flop=drawn(2.0**10, 2.0**36),
        snr=drawn(2.0**-10, 2.0**10),
        correlation=np.zeros((environments, users), np.float32),
        innovation=np.zeros((environments, users), np.float32),
        captured_bytes=np.zeros(1, np.float32),
        station_flops=draw(arrays(np.float32, stations, elements=st.floats(2.0**20, 2.0**40, width=32))),
        mu_flops=draw(st.floats(2.0**20, 2.0**36)),
        flop_per_byte=draw(st.floats(1.0, 2.0**14)),
        downlink_s=draw(st.just(0.0) | st.floats(2.0**-20, 1.0)),
        bandwidth_hz=20e6,
        fades=False,
    )
    state = kernel.State(
        network=np.arange(environments),
        fading=np.zeros((environments, users, 2), np.float32),
        captured_bytes=drawn(1.0, 2.0**20).astype(np.float64),
        rate_bps=drawn(2.0**10, 2.0**30).astype(np.float64),
        share=np.zeros((environments, users)),
        usual_s=np.zeros((environments, stations)),
    )
    problem = AllocationProblem(
        captured_bytes=torch.from_numpy(state.captured_bytes),
        rate_bps=torch.from_numpy(state.rate_bps),
        retrain_flop=torch.from_numpy(networks.retrain_flop).double(),
        station=torch.from_numpy(networks.station),
        station_flops=torch.from_numpy(networks.station_flops).double(),
        mu_flops=networks.mu_flops,
        flop_per_byte=networks.flop_per_byte,
        downlink_s=networks.downlink_s,
    )
    return Slots(networks, state, problem)


@settings(max_examples=60, deadline=None)  # the first example waits for the compiler
@given(slots(), st.data())
def test_delays_are_the_tensors(drawn: Slots, data: st.DataObject) -> None:
    problem, of = drawn.problem, drawn.networks
    shape = tuple(problem.station.shape)
    share = data.draw(arrays(np.float64, shape, elements=st.just(0.0) | st.floats(2.0**-20, 1.0)))
    part = data.draw(arrays(np.float64, shape, elements=st.just(0.0) | st.floats(2.0**-20, 1.0)))
    compute = torch.from_numpy(share) * serving(problem.station_flops, problem)
    upload = torch.from_numpy(part) * problem.captured_bytes
    best, got = np.empty(shape), np.empty(shape)
    for n, k in np.ndindex(shape):
        captured, rate = (float(values[n, k]) for values in (problem.captured_bytes, problem.rate_bps))
        retrain = float(problem.retrain_flop[n, k])
        per_byte_s, retrain_s = kernel._remote(rate, retrain, float(compute[n, k]), of)
        best[n, k] = kernel._best_upload(captured, per_byte_s, retrain_s, of)
        got[n, k] = kernel._delay(captured, float(upload[n, k]), per_byte_s, retrain_s, of)
    expected = user_delay_s(problem, Allocation(compute_flops=compute, upload_bytes=upload))
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-9)
    least = split_delay_s(problem, problem.captured_bytes - torch.from_numpy(best), torch.from_numpy(best), compute)
    best_split = best_upload_bytes(problem, compute)
    exact = user_delay_s(problem, Allocation(compute_flops=compute, upload_bytes=best_split))
    np.testing.assert_allclose(least.numpy(), exact.numpy(), rtol=1e-9)
    np.testing.assert_allclose(best, best_split.numpy(), rtol=1e-6, atol=1e-9 * float(problem.captured_bytes.max()))


@settings(max_examples=60, deadline=None)
@given(slots(), st.data())
def test_observations_and_rewards_are_the_tensors(drawn: Slots, data: st.DataObject) -> None:
    problem, of, state = drawn.problem, drawn.networks, drawn.state
    shape = tuple(problem.station.shape)
    observation = np.empty((*shape, len(FEATURES)), dtype=np.float32)
    kernel.observe(of, state, observation)
    np.testing.assert_allclose(observation, observe(problem).numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(state.share, proportional_share(problem).numpy(), rtol=1e-12)
    action = data.draw(arrays(np.float32, (*shape, 2), elements=st.floats(-1.5, 1.5, width=32)))  # cut at 1
    usual = decode(problem, torch.zeros(*shape, 2), *RANGES)
    np.testing.assert_allclose(state.usual_s, station_delay_s(problem, user_delay_s(problem, usual)).numpy(), rtol=1e-9)
    asked = decode(problem, torch.from_numpy(action), *RANGES)
    reward: Reward
    for reward in get_args(Reward):
        got = np.empty(shape[0])
        slot_s = np.empty(shape[0])
        kernel.pay(of, state, action, *RANGES, reward == "station_log_ratio", got, slot_s)
        np.testing.assert_allclose(slot_s, system_delay_s(problem, asked, "makespan").numpy(), rtol=1e-9)
        np.testing.assert_allclose(got, reward_of(problem, asked, reward).numpy(), rtol=1e-6, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(slots())
def test_the_optimum_is_that_of_the_tensor_program(drawn: Slots) -> None:
    kernel.observe(drawn.networks, drawn.state, np.empty((*drawn.problem.station.shape, len(FEATURES)), np.float32))
    least_s = np.empty(len(drawn.state.network))
    kernel.optimum(drawn.networks, drawn.state, least_s)
    expected = system_delay_s(drawn.problem, Optimal().allocate(drawn.problem), "makespan").numpy()
    usual = drawn.state.usual_s.max(axis=1)
    np.testing.assert_allclose(least_s, expected, rtol=2e-6, atol=float(2e-9 * usual.max()))


@settings(max_examples=30, deadline=None)
@given(slots(), st.data())
def test_rates_and_data_are_drawn_as_frames_say(drawn: Slots, data: st.DataObject) -> None:
    """h' = rho h + innovation w, the rate of eq. (2) at the SNR (1), and one of the draws of data, each as likely."""
    shape = tuple(drawn.problem.station.shape)
    unit = st.floats(-1.0, 1.0, width=32)
    rho = data.draw(arrays(np.float32, shape, elements=unit))
    innovation = np.sqrt((1 - rho**2) / 2)
    law = np.arange(1.0, 8.0, dtype=np.float32)
    of = drawn.networks._replace(correlation=rho, innovation=innovation, captured_bytes=law, fades=True)
    h = data.draw(arrays(np.float32, (*shape, 2), elements=unit))
    drawn.state.fading[:] = h
    normals = data.draw(arrays(np.float32, (shape[0], 2, shape[1], 2), elements=st.floats(-4.0, 4.0, width=32)))
    uniforms = data.draw(
        arrays(np.float32, (shape[0], 2, shape[1]), elements=st.floats(0.0, 1.0, width=32, exclude_max=True))
    )
    kernel.advance(of, drawn.state, normals, uniforms, 1, False)
    after = rho[..., None].astype(np.float64) * h + innovation[..., None].astype(np.float64) * normals[:, 1]
    np.testing.assert_allclose(drawn.state.fading, after, rtol=1e-5, atol=1e-6)
    power = (drawn.state.fading.astype(np.float64) ** 2).sum(-1)
    np.testing.assert_allclose(drawn.state.rate_bps, 20e6 * np.log2(1 + of.snr * power), rtol=1e-5, atol=1e-3)
    np.testing.assert_array_equal(
        drawn.state.captured_bytes, law[np.floor(7 * uniforms[:, 1].astype(float)).astype(int)]
    )
    kernel.advance(of, drawn.state, normals, uniforms, 1, True)  # a new episode starts from CN(0, 1)
    np.testing.assert_allclose(drawn.state.fading, np.sqrt(0.5) * normals[:, 1], rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_later_processes_load_what_one_compiled(tmp_path: Path) -> None:
    code = """
import numpy as np
from dtsim.allocation.gym import kernel
from dtsim.allocation.gym.environment import ShortTimescaleEnv
from tests.synthetic_source import SyntheticSource
env = ShortTimescaleEnv(source=SyntheticSource(), users=4, networks=2)
env.reset(seed=0)
env.step(np.zeros((4, 2), np.float32))
loops = (kernel.advance, kernel.observe, kernel.pay, kernel.optimum)
print(sum(sum(loop.stats.cache_hits.values()) for loop in loops), sum(len(loop.signatures) for loop in loops))
"""
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)},
            cwd=Path(__file__).parents[1],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split()
        for _ in range(2)
    ]
    assert told == [["0", "4"], ["4", "4"]]
