"""Compiled loops that step many environments; they give the same numbers as `observe`, `decode` and `reward_of`.

A tensor program passes over memory once per operation and pays microseconds per call; these loops avoid both. One
environment and thousands run the same code and get the same numbers. They compute in the precision of their inputs:
single in the environments. Import this module late: importing numba takes a part of a second, and compiling the loops
takes seconds in the first process that does it.
"""

from __future__ import annotations

import math
from typing import NamedTuple, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from dtsim.allocation.learned.observation import LOG_BOUND
from dtsim.core.compiled import compiled

Float: TypeAlias = NDArray[np.float32]


def single(value: float) -> float:
    """`value` in single precision: a double would make everything that it meets double."""
    return cast(float, np.float32(value))


# numba keeps their values in its cache, which only a change of this file empties.
_EPS, _ZERO, _ONE, _EIGHT, _BOUND = (single(value) for value in (1e-30, 0.0, 1.0, 8.0, LOG_BOUND))
_HALVINGS = 30  # the optimum ends at most 2^-30 of the proportional delay too high, less than single precision tells
_LOG2, _HALF_ROOT = single(math.log(2.0)), single(math.sqrt(0.5))


class Networks(NamedTuple):
    """`Frames` as arrays. Their numbers are single, like their arrays; tests pass doubles to hold the loops exactly."""

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
    share: NDArray[np.floating]  # [N, K], proportional share
    usual_s: NDArray[np.floating]  # [N, M], delay of each BS under the proportional share


@compiled
def _remote(rate: float, retrain: float, compute: float, of: Networks) -> tuple[float, float]:
    """Time to upload one byte and retraining time of an MU, both in s; infinite without rate or compute."""
    inverse = _ONE / compute
    return _EIGHT / rate + of.flop_per_byte * inverse, retrain * inverse if retrain > 0 else _ZERO


@compiled
def _best_upload(captured: float, per_byte_s: float, retrain_s: float, of: Networks) -> float:
    """`problem.best_upload_bytes` of one MU."""
    local_s = of.flop_per_byte / of.mu_flops
    lead_s = max(local_s * captured - of.downlink_s - retrain_s, _ZERO)
    return min(lead_s / (local_s + per_byte_s), captured)


@compiled
def _delay(captured: float, upload: float, per_byte_s: float, retrain_s: float, of: Networks) -> float:
    """`problem.user_delay_s` of one MU."""
    remote_s = retrain_s + (upload * per_byte_s + of.downlink_s if upload > 0 else _ZERO)
    return max((captured - upload) * (of.flop_per_byte / of.mu_flops), remote_s)


@compiled
def _bounded(value: float, bound: float) -> float:
    return min(max(value, -bound), bound)


@compiled
def _log_ratio(value: float, reference: float) -> float:
    return _bounded(math.log(max(value, _EPS) / max(reference, _EPS)), _BOUND)


@compiled
def advance(of: Networks, state: State, normals: Float, uniforms: Float, slot: int, fresh: bool) -> None:
    """Draw the next slot of every environment from `normals` [N, T, K, 2] and `uniforms` [N, T, K] at index `slot`.

    `fresh` marks the first slot of an episode.
    """
    law, bandwidth = len(of.captured_bytes), of.bandwidth_hz / _LOG2
    for n in range(len(state.network)):
        p = state.network[n]
        for k in range(of.station.shape[1]):
            if of.fades:
                rho, scale = of.correlation[p, k], of.innovation[p, k]
                if fresh:
                    rho, scale = _ZERO, _HALF_ROOT
                for part in range(2):
                    before = state.fading[n, k, part]
                    state.fading[n, k, part] = rho * before + scale * normals[n, slot, k, part]
            power = state.fading[n, k, 0] ** 2 + state.fading[n, k, 1] ** 2
            state.rate_bps[n, k] = bandwidth * math.log1p(of.snr[p, k] * power)
            state.captured_bytes[n, k] = of.captured_bytes[int(law * np.float64(uniforms[n, slot, k]))]


@compiled
def observe(of: Networks, state: State, observation: Float) -> None:
    """Write observations [N, K, F], eq. (17), and store the proportional allocation that they are based on."""
    users, stations, real = of.station.shape[1], len(of.station_flops), state.share.dtype
    work, upload, delay = np.empty(users, real), np.empty(users, real), np.empty(users, real)
    total, log_scale = np.empty(stations, real), np.empty(stations, real)
    log_load, log_slot = np.empty(stations, real), np.empty(stations, real)
    for n in range(len(state.network)):
        p = state.network[n]
        total[:] = _ZERO
        for k in range(users):
            work[k] = of.flop_per_byte * state.captured_bytes[n, k] + of.retrain_flop[p, k]
            total[of.station[p, k]] += work[k]
        usual = state.usual_s[n]
        usual[:] = _ZERO
        for k in range(users):
            m = of.station[p, k]
            share = work[k] / total[m] if total[m] > 0 else _ZERO
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
            upload_s = _EIGHT * captured / max(state.rate_bps[n, k], _EPS)
            row[0] = _bounded(math.log(max(data / of.mu_flops, _EPS)) - log_scale[m], _BOUND)
            row[1] = _bounded(math.log(max(upload_s, _EPS)) - log_scale[m], _BOUND)
            row[2] = max(math.log(max(state.share[n, k], _EPS)), -_BOUND)
            row[3] = _log_ratio(delay[k], usual[m])
            row[4] = log_load[m]
            row[5] = log_slot[m]
            row[6] = of.retrain_flop[p, k] / work[k] if work[k] > 0 else _ZERO
            row[7] = upload[k] / captured if captured > 0 else _ZERO
            row[8] = min(of.downlink_s / usual[m], _ONE) if usual[m] > 0 else _ZERO
            row[9] = m


@compiled
def pay(
    of: Networks,
    state: State,
    action: Float,
    compute_range: float,
    upload_range: float,
    per_station: bool,
    reward: NDArray[np.float64],
    delay_s: NDArray[np.float64],
) -> None:
    """Write the rewards [N] of actions [N, K, 2], eqs. (18) and (19), for the slots last observed, and the delay of
    the slowest MU [N]."""
    users, stations, real = of.station.shape[1], len(of.station_flops), state.share.dtype
    weight, total, delay = np.empty(users, real), np.empty(stations, real), np.empty(stations, real)
    for n in range(len(state.network)):
        p = state.network[n]
        total[:] = _ZERO
        delay[:] = _ZERO
        for k in range(users):
            correction = _bounded(action[n, k, 0], _ONE)
            weight[k] = state.share[n, k] * math.exp(compute_range * correction)
            total[of.station[p, k]] += weight[k]
        for k in range(users):
            m = of.station[p, k]
            captured = state.captured_bytes[n, k]
            compute = weight[k] / total[m] * of.station_flops[m] if total[m] > 0 else _ZERO
            per_byte_s, retrain_s = _remote(state.rate_bps[n, k], of.retrain_flop[p, k], compute, of)
            best = _best_upload(captured, per_byte_s, retrain_s, of) / captured if captured > 0 else _ZERO
            odds = best * math.exp(upload_range * _bounded(action[n, k, 1], _ONE))
            upload = min(odds / (_ONE - best + odds), _ONE) * captured
            delay[m] = max(delay[m], _delay(captured, upload, per_byte_s, retrain_s, of))
        delay_s[n] = delay.max()
        if per_station:
            gain, busy = _ZERO, 0
            for m in range(stations):
                if state.usual_s[n, m] > 0:
                    gain -= min(math.log(delay[m] / state.usual_s[n, m]), _BOUND)
                    busy += 1
            reward[n] = gain / max(busy, 1)
        else:
            longest = state.usual_s[n].max()
            reward[n] = -min(math.log(delay.max() / longest), _BOUND) if longest > 0 else _ZERO


@compiled
def optimum(of: Networks, state: State, least_s: NDArray[np.float64]) -> None:
    """Write the least delay of the slowest MU [N] for the slots last observed: `optimal.Optimal`, in double precision.

    Bisection on the delay of each BS, between 0 and that of the proportional share.
    """
    stations = len(of.station_flops)
    low, high, needed = np.empty(stations), np.empty(stations), np.empty(stations)
    for n in range(len(state.network)):
        p = state.network[n]
        for m in range(stations):
            low[m] = 0.0
            high[m] = np.float64(state.usual_s[n, m]) * (1 + 1e-6)  # feasible, even after rounding
        for _ in range(_HALVINGS):
            needed[:] = 0.0
            for k in range(of.station.shape[1]):
                m = of.station[p, k]
                needed[m] += _needed((low[m] + high[m]) / 2, n, p, k, of, state)
            for m in range(stations):
                if needed[m] <= of.station_flops[m]:
                    high[m] = (low[m] + high[m]) / 2
                else:
                    low[m] = (low[m] + high[m]) / 2
        least_s[n] = high.max()


@compiled
def _needed(within_s: float, n: int, p: int, k: int, of: Networks, state: State) -> float:
    """`optimal.needed_flops` of one MU."""
    captured, rate = np.float64(state.captured_bytes[n, k]), np.float64(state.rate_bps[n, k])
    retrain, per_byte = np.float64(of.retrain_flop[p, k]), np.float64(of.flop_per_byte)
    upload = max(captured - within_s * np.float64(of.mu_flops) / per_byte, 0.0)
    work = per_byte * upload + retrain
    if work <= 0:
        return 0.0
    left_s = within_s - (8.0 * upload / rate + np.float64(of.downlink_s) if upload > 0 else 0.0)
    return work / left_s if left_s > 0 else np.inf
