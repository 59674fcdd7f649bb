"""Compiled loops that step many environments; they give the same numbers as `observe`, `decode` and `reward_of`.

A tensor program passes over memory once per operation and pays microseconds per call; these loops avoid both. One
environment and thousands run the same code and get the same numbers. Import this module late: importing numba takes a
second, and so does compiling the loops.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeAlias, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtsim.allocation.learned.observation import LOG_BOUND

Float: TypeAlias = NDArray[np.float32]
_EPS = 1e-30


class Networks(NamedTuple):
    """`Frames` as arrays."""

    station: NDArray[np.int64]  # [P, K]
    retrain_flop: Float  # [P, K]
    snr: Float  # [P, K]
    correlation: Float  # [P, K]
    innovation: Float  # [P, K], standard deviation of the new term in each part of h
    captured_bytes: Float  # [L]
    station_flops: Float  # [M]
    mu_flops: float
    flop_per_byte: float
    downlink_s: float
    bandwidth_hz: float
    fades: bool


class State(NamedTuple):
    """State of N environments."""

    network: NDArray[np.int64]  # [N]
    fading: Float  # [N, K, 2], real and imaginary part
    captured_bytes: Float  # [N, K]
    rate_bps: Float  # [N, K]
    share: NDArray[np.float64]  # [N, K], proportional share
    usual_s: NDArray[np.float64]  # [N, M], delay of each BS under the proportional share


_Loop = TypeVar("_Loop", bound=Callable[..., object])


def _compiled(loop: _Loop) -> _Loop:
    """`loop` compiled by numba, with the same signature."""
    compiled: _Loop = njit(cache=False, error_model="numpy")(loop)
    return compiled


@_compiled
def _remote(rate: float, retrain: float, compute: float, of: Networks) -> tuple[float, float]:
    """Time to upload one byte and retraining time of an MU, both in s; infinite without rate or compute."""
    inverse = 1.0 / compute
    return 8.0 / rate + of.flop_per_byte * inverse, retrain * inverse if retrain > 0 else 0.0


@_compiled
def _best_upload(captured: float, per_byte_s: float, retrain_s: float, of: Networks) -> float:
    """`problem.best_upload_bytes` of one MU."""
    local_s = of.flop_per_byte / of.mu_flops
    lead_s = max(local_s * captured - of.downlink_s - retrain_s, 0.0)
    return min(lead_s / (local_s + per_byte_s), captured)


@_compiled
def _delay(captured: float, upload: float, per_byte_s: float, retrain_s: float, of: Networks) -> float:
    """`problem.user_delay_s` of one MU."""
    remote_s = retrain_s + (upload * per_byte_s + of.downlink_s if upload > 0 else 0.0)
    return max((captured - upload) * (of.flop_per_byte / of.mu_flops), remote_s)


@_compiled
def _log_ratio(value: float, reference: float) -> float:
    ratio = math.log(max(value, _EPS) / max(reference, _EPS))
    return min(max(ratio, -LOG_BOUND), LOG_BOUND)


@_compiled
def advance(of: Networks, state: State, normals: Float, uniforms: Float, slot: int, fresh: bool) -> None:
    """Draw the next slot of every environment from `normals` [N, T, K, 2] and `uniforms` [N, T, K] at index `slot`.

    `fresh` marks the first slot of an episode.
    """
    law, bandwidth = len(of.captured_bytes), of.bandwidth_hz / math.log(2.0)
    for n in range(len(state.network)):
        p = state.network[n]
        for k in range(of.station.shape[1]):
            if of.fades:
                rho, scale = of.correlation[p, k], of.innovation[p, k]
                if fresh:
                    rho, scale = np.float32(0.0), np.float32(math.sqrt(0.5))
                for part in range(2):
                    before = state.fading[n, k, part]
                    state.fading[n, k, part] = rho * before + scale * normals[n, slot, k, part]
            power = state.fading[n, k, 0] ** 2 + state.fading[n, k, 1] ** 2
            state.rate_bps[n, k] = bandwidth * math.log1p(of.snr[p, k] * power)
            state.captured_bytes[n, k] = of.captured_bytes[int(law * np.float64(uniforms[n, slot, k]))]


@_compiled
def observe(of: Networks, state: State, observation: Float) -> None:
    """Write observations [N, K, F], eq. (17), and store the proportional allocation that they are based on."""
    users, stations = of.station.shape[1], len(of.station_flops)
    work, total, upload, delay = np.empty(users), np.empty(stations), np.empty(users), np.empty(users)
    log_scale, log_load, log_slot = np.empty(stations), np.empty(stations), np.empty(stations)
    for n in range(len(state.network)):
        p = state.network[n]
        total[:] = 0.0
        for k in range(users):
            work[k] = of.flop_per_byte * state.captured_bytes[n, k] + of.retrain_flop[p, k]
            total[of.station[p, k]] += work[k]
        usual = state.usual_s[n]
        usual[:] = 0.0
        for k in range(users):
            m = of.station[p, k]
            share = work[k] / total[m] if total[m] > 0 else 0.0
            state.share[n, k] = share
            captured, compute = state.captured_bytes[n, k], share * of.station_flops[m]
            per_byte_s, retrain_s = _remote(state.rate_bps[n, k], of.retrain_flop[p, k], compute, of)
            upload[k] = _best_upload(captured, per_byte_s, retrain_s, of)
            delay[k] = _delay(captured, upload[k], per_byte_s, retrain_s, of)
            usual[m] = max(usual[m], delay[k])
        longest = usual.max()
        for m in range(stations):
            log_scale[m] = math.log(max(usual[m], _EPS))
            log_load[m] = _log_ratio(total[m] / of.station_flops[m], usual[m])
            log_slot[m] = _log_ratio(usual[m], longest)
        for k in range(users):
            m = of.station[p, k]
            captured, row = state.captured_bytes[n, k], observation[n, k]
            data = of.flop_per_byte * captured
            upload_s = 8.0 * captured / max(state.rate_bps[n, k], _EPS)
            row[0] = min(max(math.log(max(data / of.mu_flops, _EPS)) - log_scale[m], -LOG_BOUND), LOG_BOUND)
            row[1] = min(max(math.log(max(upload_s, _EPS)) - log_scale[m], -LOG_BOUND), LOG_BOUND)
            row[2] = max(math.log(max(state.share[n, k], _EPS)), -LOG_BOUND)
            row[3] = _log_ratio(delay[k], usual[m])
            row[4] = log_load[m]
            row[5] = log_slot[m]
            row[6] = of.retrain_flop[p, k] / work[k] if work[k] > 0 else 0.0
            row[7] = upload[k] / captured if captured > 0 else 0.0
            row[8] = min(of.downlink_s / usual[m], 1.0) if usual[m] > 0 else 0.0
            row[9] = m


@_compiled
def pay(
    of: Networks,
    state: State,
    action: Float,
    compute_range: float,
    upload_range: float,
    per_station: bool,
    reward: NDArray[np.float64],
) -> None:
    """Write the rewards [N] of actions [N, K, 2], eqs. (18) and (19), for the slots last observed."""
    users, stations = of.station.shape[1], len(of.station_flops)
    weight, total, delay = np.empty(users), np.empty(stations), np.empty(stations)
    for n in range(len(state.network)):
        p = state.network[n]
        total[:] = 0.0
        delay[:] = 0.0
        for k in range(users):
            correction = min(max(np.float64(action[n, k, 0]), -1.0), 1.0)
            weight[k] = state.share[n, k] * math.exp(compute_range * correction)
            total[of.station[p, k]] += weight[k]
        for k in range(users):
            m = of.station[p, k]
            captured = state.captured_bytes[n, k]
            compute = weight[k] / total[m] * of.station_flops[m] if total[m] > 0 else 0.0
            per_byte_s, retrain_s = _remote(state.rate_bps[n, k], of.retrain_flop[p, k], compute, of)
            best = _best_upload(captured, per_byte_s, retrain_s, of) / captured if captured > 0 else 0.0
            odds = best * math.exp(upload_range * min(max(np.float64(action[n, k, 1]), -1.0), 1.0))
            upload = min(odds / (1.0 - best + odds), 1.0) * captured
            delay[m] = max(delay[m], _delay(captured, upload, per_byte_s, retrain_s, of))
        if per_station:
            gain, busy = 0.0, 0
            for m in range(stations):
                if state.usual_s[n, m] > 0:
                    gain -= min(math.log(delay[m] / state.usual_s[n, m]), LOG_BOUND)
                    busy += 1
            reward[n] = gain / max(busy, 1)
        else:
            longest = state.usual_s[n].max()
            reward[n] = -min(math.log(delay.max() / longest), LOG_BOUND) if longest > 0 else 0.0
