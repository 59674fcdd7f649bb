"""Compiled loops that step many environments with queues; `observe_queues` and `QueueActions` in other words.

One environment and thousands run the same code and get the same numbers. Amounts are double, observations single.
Import this module late, as `kernel`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from dtsim.allocation.learned.observation import LOG_BOUND
from dtsim.core.compiled import compiled

Single: TypeAlias = NDArray[np.float32]
Double: TypeAlias = NDArray[np.float64]

if TYPE_CHECKING:

    def single(value: float) -> float:
        """`value` in single precision."""
        ...
else:
    single = np.float32

_ZERO, _ONE, _BOUND, _LEAST = single(0.0), single(1.0), single(LOG_BOUND), single(1e-30)
_HALF_ROOT = math.sqrt(0.5)
_EPS = float(np.finfo(np.float64).eps)


class QueueNetworks(NamedTuple):
    """What stays in an episode."""

    station: NDArray[np.int64]  # [P, K]
    job_flop: Double  # [P, K], training job that arrives with the episode
    snr: Double  # [P, K]
    correlation: Double  # [P, K]
    captured_bytes: Double  # [L]
    station_flops: Double  # [M]
    mu_flops: float
    flop_per_byte: float
    downlink_s: float
    bandwidth_hz: float
    fades: bool
    slot_s: float
    horizon: int


class QueueState(NamedTuple):
    """State of N environments, [N, K] but for `network` and `load`."""

    network: NDArray[np.int64]  # [N]
    load: Double  # [N], factor of captured data
    fading: Double  # [N, K, 2]
    captured_bytes: Double
    rate_bps: Double
    local_flop: Double
    uplink_bits: Double
    station_flop: Double
    training_flop: Double
    due_flop: Double
    share: Double  # proportional share


class Pay(NamedTuple):
    """Ranges of actions and the terms of the reward."""

    compute_range: float
    upload_range: float
    training_range: float
    deadline_s: float
    overdue_weight: float
    energy_weight: float
    tx_w: float
    mu_j_per_flop: float
    station_j_per_flop: float


@compiled
def start(of: QueueNetworks, state: QueueState) -> None:
    """Begin an episode in every environment: empty queues and new jobs."""
    for n in range(len(state.network)):
        for k in range(of.station.shape[1]):
            state.local_flop[n, k] = 0.0
            state.uplink_bits[n, k] = 0.0
            state.station_flop[n, k] = 0.0
            state.training_flop[n, k] = of.job_flop[state.network[n], k]


@compiled
def arrive(of: QueueNetworks, state: QueueState, normals: Single, uniforms: Single, place: int, slot: int) -> None:
    """Draw captured data and rates of slot number `slot` from `normals` [N, T, K, 2] and `uniforms` [N, T, K] at
    `place`, and say what training is due by its end."""
    law, bandwidth = len(of.captured_bytes), of.bandwidth_hz / math.log(2.0)
    paid = (slot + 1.0) / of.horizon
    for n in range(len(state.network)):
        p = state.network[n]
        for k in range(of.station.shape[1]):
            if of.fades:
                rho = of.correlation[p, k]
                scale = math.sqrt(max(1.0 - rho * rho, 0.0)) * _HALF_ROOT
                if slot == 0:
                    rho, scale = 0.0, _HALF_ROOT
                for part in range(2):
                    state.fading[n, k, part] = rho * state.fading[n, k, part] + scale * normals[n, place, k, part]
            power = state.fading[n, k, 0] ** 2 + state.fading[n, k, 1] ** 2
            state.rate_bps[n, k] = bandwidth * math.log1p(of.snr[p, k] * power)
            drawn = of.captured_bytes[int(law * np.float64(uniforms[n, place, k]))]
            state.captured_bytes[n, k] = state.load[n] * drawn
            left, job = state.training_flop[n, k], of.job_flop[p, k]
            state.due_flop[n, k] = min(max(paid * job - (job - left), 0.0), left)


@compiled
def _amount(value: float, unit: float) -> float:
    """`queue_observation._amount` in single precision."""
    if value <= 0:
        return _ZERO
    return min(math.log(_ONE + single(value / unit)), _BOUND)


@compiled
def _best_upload(whole: float, least: float, rate: float, retrain: float, compute: float, of: QueueNetworks) -> float:
    """`problem.best_upload_bytes` of one MU; `whole` and `least` in byte."""
    local_s = of.flop_per_byte / of.mu_flops
    lead_s = local_s * whole - of.downlink_s - (retrain / compute if retrain > 0 else 0.0)
    upload = max(lead_s, 0.0) / (local_s + 8.0 / rate + of.flop_per_byte / compute)
    best: float = min(max(upload, least), whole)
    return best


@compiled
def _uploaded(n: int, k: int, compute: float, odds: float, of: QueueNetworks, state: QueueState) -> float:
    """New data that an MU uploads, whose best odds for `compute` are multiplied by `odds`, byte."""
    captured, rate = state.captured_bytes[n, k], state.rate_bps[n, k]
    if captured <= 0 or rate <= 0:
        return 0.0
    waiting = state.uplink_bits[n, k] / 8.0
    whole = captured + waiting + state.local_flop[n, k] / of.flop_per_byte
    retrain = state.station_flop[n, k] + state.due_flop[n, k]
    best = _best_upload(whole, waiting, rate, retrain, compute, of) - waiting
    best = min(max(best / captured, 0.0), 1.0)
    upload: float = min(best * odds / (1.0 - best + best * odds), 1.0) * captured
    return upload


@compiled
def _price(n: int, k: int, upload: float, inference: float, of: QueueNetworks, state: QueueState) -> float:
    """`queue_observation.price_s` of one MU."""
    local = state.local_flop[n, k] + of.flop_per_byte * (state.captured_bytes[n, k] - upload)
    data = upload + state.uplink_bits[n, k] / 8.0
    remote_s = 8.0 * data / state.rate_bps[n, k] + of.downlink_s if data > 0 else 0.0
    work = state.station_flop[n, k] + of.flop_per_byte * data
    if work > 0:
        remote_s += work / inference
    price: float = max(local / of.mu_flops, remote_s)
    return price


@compiled
def observe(of: QueueNetworks, state: QueueState, observation: Single) -> None:
    """Write observations [N, K, F], and store the proportional shares that actions correct."""
    users, stations, slot_s = of.station.shape[1], len(of.station_flops), of.slot_s
    work, price, part = np.empty(users), np.empty(users), np.empty(users)
    total, due, dearest = np.empty(stations), np.empty(stations), np.empty(stations)
    log_total, log_due, log_price = (
        np.empty(stations, np.float32),
        np.empty(stations, np.float32),
        np.empty(stations, np.float32),
    )
    margin = 1.0 - users * _EPS
    for n in range(len(state.network)):
        p = state.network[n]
        total[:] = 0.0
        due[:] = 0.0
        dearest[:] = 0.0
        for k in range(users):
            m = of.station[p, k]
            data = state.captured_bytes[n, k] + state.uplink_bits[n, k] / 8.0
            work[k] = of.flop_per_byte * data + state.local_flop[n, k]
            work[k] += state.station_flop[n, k] + state.due_flop[n, k]
            total[m] += work[k]
            due[m] += state.due_flop[n, k]
        for k in range(users):
            m = of.station[p, k]
            share = work[k] / total[m] if total[m] > 0 else 0.0
            state.share[n, k] = share
            compute = share * of.station_flops[m] * margin
            upload = _uploaded(n, k, compute, 1.0, of, state)
            waits = state.station_flop[n, k] + of.flop_per_byte * (upload + state.uplink_bits[n, k] / 8.0)
            inference = compute * waits / (waits + state.due_flop[n, k]) if waits > 0 else 0.0
            price[k] = _price(n, k, upload, inference, of, state)
            part[k] = upload / state.captured_bytes[n, k] if state.captured_bytes[n, k] > 0 else 0.0
            dearest[m] = max(dearest[m], price[k])
        for m in range(stations):
            capacity = of.station_flops[m] * slot_s
            log_total[m] = _amount(total[m], capacity)
            log_due[m] = _amount(due[m], capacity)
            log_price[m] = _amount(dearest[m], slot_s)
        here = of.mu_flops * slot_s
        for k in range(users):
            m = of.station[p, k]
            row = observation[n, k]
            capacity, sendable = of.station_flops[m] * slot_s, state.rate_bps[n, k] * slot_s
            new = of.flop_per_byte * state.captured_bytes[n, k]
            row[0] = _amount(state.local_flop[n, k], here)
            row[1] = _amount(new, here)
            row[2] = _amount(state.uplink_bits[n, k], sendable)
            row[3] = _amount(8.0 * state.captured_bytes[n, k], sendable)
            row[4] = _amount(state.station_flop[n, k], capacity)
            row[5] = _amount(new, capacity)
            row[6] = max(math.log(max(single(state.share[n, k]), _LEAST)), -_BOUND)
            row[7] = _amount(state.due_flop[n, k], capacity)
            row[8] = _amount(state.training_flop[n, k], capacity)
            row[9] = _amount(price[k], slot_s)
            row[10] = log_price[m]
            row[11] = log_total[m]
            row[12] = log_due[m]
            row[13] = part[k]
            row[14] = m


@compiled
def pass_slot(
    of: QueueNetworks, state: QueueState, action: Single, pay: Pay, reward: Double, user_reward: Single, info: Double
) -> None:
    """Serve the slot last observed with actions [N, K, 3].

    Writes rewards [N] and those of MUs [N, K], whose mean they are, and `info` [N, 3]: means over MUs of the new task's
    delay in s, of the inference that waits at the slot's end and of the training that is overdue then, in FLOP.
    """
    users, stations, slot_s = of.station.shape[1], len(of.station_flops), of.slot_s
    weight, total = np.empty(users), np.empty(stations)
    margin = 1.0 - users * _EPS
    for n in range(len(state.network)):
        p = state.network[n]
        total[:] = 0.0
        for k in range(users):
            weight[k] = state.share[n, k] * math.exp(pay.compute_range * min(max(action[n, k, 0], -1.0), 1.0))
            total[of.station[p, k]] += weight[k]
        reward[n] = 0.0
        info[n, :] = 0.0
        for k in range(users):
            m = of.station[p, k]
            compute = weight[k] / total[m] * of.station_flops[m] * margin if total[m] > 0 else 0.0
            odds = math.exp(pay.upload_range * min(max(action[n, k, 1], -1.0), 1.0))
            upload = _uploaded(n, k, compute, odds, of, state)
            waits = state.station_flop[n, k] + of.flop_per_byte * (upload + state.uplink_bits[n, k] / 8.0)
            due = state.due_flop[n, k] * math.exp(pay.training_range * min(max(action[n, k, 2], -1.0), 1.0))
            part = due / (waits + due) if due > 0 else 0.0
            inference, training = compute * (1.0 - part), compute * part
            price = _price(n, k, upload, inference, of, state)
            # The MU's own queue, its link, its inference at the BS and its training there.
            local = state.local_flop[n, k] + of.flop_per_byte * (state.captured_bytes[n, k] - upload)
            local_done = min(local, of.mu_flops * slot_s)
            state.local_flop[n, k] = local - local_done
            bits, rate = state.uplink_bits[n, k] + 8.0 * upload, state.rate_bps[n, k]
            sent = min(bits, rate * slot_s)
            state.uplink_bits[n, k] = bits - sent
            sending_s = sent / rate if rate > 0 else 0.0
            came, old, station_done = of.flop_per_byte * sent / 8.0, state.station_flop[n, k], 0.0
            if inference > 0:
                station_done = min(old, inference * slot_s)
                left_s = max(slot_s - max(sending_s, old / inference), 0.0)
                station_done += min(came, inference * left_s)
            state.station_flop[n, k] = max(old + came - station_done, 0.0)
            trained = min(state.training_flop[n, k], training * slot_s)
            state.training_flop[n, k] -= trained
            overdue = max(state.due_flop[n, k] - trained, 0.0)
            energy = pay.tx_w * sending_s + pay.mu_j_per_flop * local_done
            energy += pay.station_j_per_flop * (station_done + trained)
            own = -np.float64(_amount(price, pay.deadline_s)) - pay.energy_weight * energy
            own -= pay.overdue_weight * np.float64(_amount(overdue, of.station_flops[m] * slot_s))
            user_reward[n, k] = own
            reward[n] += own
            info[n, 0] += price
            info[n, 1] += state.local_flop[n, k] + of.flop_per_byte * state.uplink_bits[n, k] / 8.0
            info[n, 1] += state.station_flop[n, k]
            info[n, 2] += overdue
        reward[n] /= users
        info[n, :] /= users
