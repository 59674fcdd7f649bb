"""Fluid queues: closed forms, Lindley's recursion, an event-by-event simulation, and conservation of work."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dtsim.physical.queues import Finished, Served, TaskQueues, serve

SLOT_S = 0.1


def full(value: float, users: int = 1) -> Tensor:
    return torch.full((users,), value, dtype=torch.float64)


def run(
    local: Tensor, bits: Tensor, station: Tensor, mu: Tensor, rate: Tensor, flops: Tensor, age_s: float | None = None
) -> tuple[list[Finished], list[Served]]:
    """Pass a slot for each row of the arguments, [T, K]; all tasks and what the queues did."""
    queues = TaskQueues((local.shape[1],), SLOT_S)
    tasks, passed = list[Finished](), list[Served]()
    for t in range(len(local)):
        if age_s is not None:
            queues.drop(age_s)
        queues.arrive(local[t], bits[t], station[t])
        passed.append(queues.advance(mu[t], rate[t], flops[t]))
        tasks += queues.retire()
    return tasks + queues.retire(everything=True), passed


def test_one_mu_with_constant_work_takes_what_the_equations_say() -> None:
    """(3)-(5): within a slot there is no wait."""
    slots, ones = 50, torch.ones(50, 1, dtype=torch.float64)
    tasks, _ = run(3e6 * ones, 4e5 * ones, 8e6 * ones, 1e9 * ones, 2e7 * ones, 5e8 * ones)
    assert len(tasks) == slots
    for task in tasks:
        assert task.local_end_s.item() - task.arrival_s == pytest.approx(3e6 / 1e9, abs=1e-9)
        assert task.uplink_end_s.item() - task.arrival_s == pytest.approx(4e5 / 2e7, abs=1e-9)
        assert task.station_end_s.item() - task.arrival_s == pytest.approx(4e5 / 2e7 + 8e6 / 5e8, abs=1e-9)


def test_an_overloaded_queue_grows_by_the_same_every_slot() -> None:
    """Task n waits n (S - slot) and is served for S."""
    takes_s, slots = 0.13, 40
    ones = torch.ones(slots, 1, dtype=torch.float64)
    zero = 0 * ones
    tasks, _ = run(takes_s * 1e9 * ones, zero, zero, 1e9 * ones, ones, ones)
    ended = [task for task in tasks if math.isfinite(task.local_end_s.item())]
    assert len(ended) == math.floor(slots * SLOT_S / takes_s)
    for n, task in enumerate(ended):
        assert task.local_end_s.item() - task.arrival_s == pytest.approx(takes_s + n * (takes_s - SLOT_S), abs=1e-9)


def test_random_arrivals_at_a_single_server_follow_lindley() -> None:
    """W' = max(0, W + S - A), over 100,000 tasks, computed apart."""
    slots, users = 1000, 100
    rng = np.random.default_rng(0)
    work = rng.exponential(0.9 * SLOT_S * 1e9, (slots, users)) * (rng.random((slots, users)) < 0.95)
    of = torch.as_tensor(work)
    ones = torch.ones_like(of)
    tasks, _ = run(of, 0 * of, 0 * of, 1e9 * ones, ones, ones)
    wait_s, worst, seen = np.zeros(users), 0.0, 0
    for t, task in enumerate(tasks):
        takes_s = work[t] / 1e9
        ended = np.isfinite(task.local_end_s.numpy()) & (work[t] > 0)
        off = np.abs(task.local_end_s.numpy() - task.arrival_s - wait_s - takes_s)[ended]
        worst, seen = max(worst, off.max(initial=0.0)), seen + len(off)
        wait_s = np.maximum(0.0, wait_s + takes_s - SLOT_S)
    assert seen > 90_000
    assert worst < 1e-9


@dataclass
class Part:
    """A task of the event-by-event simulation."""

    slot: int
    left: float
    from_s: float
    end_s: float = math.nan


def one_server(parts: list[Part], rates: list[float]) -> None:
    """Serve parts one after another, in steps from event to event; written without any vector."""
    now, queue = 0.0, list(parts)
    while queue and now < len(rates) * SLOT_S - 1e-12:
        part = queue[0]
        if part.left == 0:
            queue.pop(0)
            continue
        slot = min(len(rates) - 1, int(now / SLOT_S + 1e-9))
        over = (slot + 1) * SLOT_S
        if part.from_s > now:
            now = min(part.from_s, over) if math.isfinite(part.from_s) else over
            continue
        takes_s = part.left / rates[slot] if rates[slot] > 0 else math.inf
        if now + takes_s <= over:
            now += takes_s
            part.left, part.end_s = 0.0, now
            queue.pop(0)
        else:
            part.left -= rates[slot] * (over - now)
            now = over


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), load=st.sampled_from([0.3, 0.9, 1.5]))
def test_the_tandem_equals_an_event_by_event_simulation(seed: int, load: float) -> None:
    """Rates change every slot and may be zero; some tasks have one part only, some none."""
    rng = np.random.default_rng(seed)
    slots = 30
    rate, flops = (rng.uniform(0.2, 1.8, slots) * (rng.random(slots) < 0.9) for _ in range(2))
    bits, work = (load * SLOT_S * rng.exponential(1.0, slots) * (rng.random(slots) < 0.8) for _ in range(2))
    work = np.where(bits > 0, np.maximum(work, 1e-3), 0.0)
    columns = [torch.as_tensor(values).reshape(-1, 1) for values in (bits, work, rate, flops)]
    none = torch.zeros_like(columns[0])
    tasks, _ = run(none, columns[0], columns[1], none, columns[2], columns[3])
    up = [Part(t, bits[t], t * SLOT_S) for t in range(slots)]
    one_server(up, rate.tolist())
    down = [
        Part(t, work[t], up[t].end_s if math.isfinite(up[t].end_s) else math.inf) for t in range(slots) if bits[t] > 0
    ]
    one_server(down, flops.tolist())
    for t, task in enumerate(tasks):
        if bits[t] > 0:
            assert task.uplink_end_s.item() == pytest.approx(up[t].end_s, abs=1e-9, nan_ok=True)
    for part in down:
        assert tasks[part.slot].station_end_s.item() == pytest.approx(part.end_s, abs=1e-9, nan_ok=True)


@settings(max_examples=25)
@given(seed=st.integers(0, 10**6), age=st.sampled_from([None, 0.2, 0.5]))
def test_no_work_appears_or_vanishes(seed: int, age: float | None) -> None:
    rng = torch.Generator().manual_seed(seed)
    shape = (40, 5)
    local, bits, work, mu, rate, flops = torch.rand(6, *shape, generator=rng, dtype=torch.float64)
    rate = rate * (torch.rand(shape, generator=rng) < 0.8)
    work = work * (bits > 0)
    _, passed = run(0.2 * local, 0.2 * bits, 0.2 * work, mu, rate, flops, age)
    for name in ("local", "uplink", "station"):
        start = torch.zeros(5, dtype=torch.float64)
        for one in passed:
            queue = getattr(one, name)
            off = start + queue.asked - queue.done - queue.dropped - queue.waiting
            assert off.abs().max() <= 1e-9 * max(1e-3, (start + queue.asked).max())
            assert (queue.done >= 0).all() and (queue.waiting >= 0).all()
            start = queue.waiting
    assert sum(one.uplink.dropped.sum() for one in passed) > 0 if age is not None else True


def test_dropped_tasks_are_given_up_at_their_age_and_the_next_goes_on() -> None:
    queues = TaskQueues((1,), SLOT_S)
    tasks = list[Finished]()
    for t in range(4):
        late = queues.drop(2 * SLOT_S)
        assert late.sum().item() == (1 if t == 2 else 0)
        queues.arrive(full(10.0 if t == 0 else 0.01), full(0.0), full(0.0))
        passed = queues.advance(full(1.0), full(1.0), full(1.0))
        if t == 2:
            assert passed.local.dropped.item() == pytest.approx(10.0 - 2 * SLOT_S)
        tasks += queues.retire()
    assert math.isinf(tasks[0].local_end_s.item())
    assert tasks[1].local_end_s.item() == pytest.approx(2 * SLOT_S + 0.01)


def test_nothing_begins_at_a_new_base_station_before_the_queue_is_there() -> None:
    queues = TaskQueues((1,), SLOT_S)
    queues.arrive(full(0.0), full(0.01), full(0.01))
    queues.blocked_until_s = full(0.15)
    queues.advance(full(1.0), full(1.0), full(1.0))
    queues.arrive(full(0.0), full(0.0), full(0.0))
    queues.advance(full(1.0), full(1.0), full(1.0))
    first, _ = queues.retire()
    assert first.uplink_end_s.item() == pytest.approx(0.01)
    assert first.station_start_s.item() == pytest.approx(0.15)
    assert first.station_end_s.item() == pytest.approx(0.16)


def test_a_batch_is_served_as_its_members_are() -> None:
    rng = torch.Generator().manual_seed(3)
    left = torch.rand(2, 3, 4, generator=rng, dtype=torch.float64)
    available = torch.rand(2, 3, 4, generator=rng, dtype=torch.float64).sort(-1).values
    rate = torch.rand(2, 3, generator=rng, dtype=torch.float64)
    together = serve(left, available, rate, 1.0)
    alone = serve(left[1, 2], available[1, 2], rate[1, 2], 1.0)
    for both, one in zip(together, alone, strict=True):
        assert torch.equal(both[1, 2], one)
