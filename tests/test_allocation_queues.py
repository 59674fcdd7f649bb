"""Rules that see queues: what they minimise, what they never do, and slots before which nothing waits."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import station_sum, system_delay_s
from dtsim.allocation.queues import queue_work, rules
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem, serve_queues
from dtsim.allocation.queues.queue_work import Work, station_total
from dtsim.allocation.queues.rules import DriftPlusPenalty, MaxWeight
from tests.agents import sampled
from tests.queue_problems import queue_problem

RULES: list[DriftPlusPenalty | MaxWeight] = [DriftPlusPenalty(), MaxWeight()]
ALL: list[Allocator] = [*RULES, Equal(), Proportional(), Optimal()]


def named(rule: object) -> str:
    return type(rule).__name__


def changed(problem: QueueProblem, change: Any) -> QueueProblem:
    """The problem with `change` applied to every tensor."""
    values = {field.name: getattr(problem, field.name) for field in fields(problem)}
    return replace(problem, **{name: change(value) for name, value in values.items() if isinstance(value, Tensor)})


def drift(work: Work, upload: Tensor, inference: Tensor, training: Tensor, weight: float, of_training: float) -> Tensor:
    """Half the squares of what is left at the slot's end, training weighted, plus the weighted energy, of every BS
    [..., M]."""
    left = (
        (work.local + work.new - upload - work.local_most).clamp(min=0).square()
        + (work.way + upload - work.link_most).clamp(min=0).square()
        + (work.there + work.way + upload - inference).square()
        + of_training * (work.due - training).square()
    ) / 2
    return station_total(left + weight * 1e18 * work.energy * upload, work.station, work.capacity.shape[-1])


@pytest.mark.parametrize("fill", [0.05, 1.0, 3.0])
@pytest.mark.parametrize(("weight", "of_training"), [(0.0, 1.0), (0.01, 1.0), (0.01, 0.01)])
def test_no_other_decision_has_less_drift_plus_penalty(
    fill: float, weight: float, of_training: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = queue_problem(16, 12, fill=fill)
    problem = replace(problem, tx_w=0.2, mu_j_per_flop=1e-9, station_j_per_flop=3e-10)
    decided: list[tuple[Tensor, Tensor, Tensor]] = []

    def kept(problem: QueueProblem, work: Work, *decision: Tensor) -> QueueAllocation:
        decided.append((decision[0], decision[1], decision[2]))
        return queue_work.spread(problem, work, *decision)

    monkeypatch.setattr(rules, "spread", kept)
    DriftPlusPenalty(weight=weight, training_weight=of_training).serve(problem)
    ((upload, inference, training),) = decided
    work = Work.of(problem)
    used = station_total(inference + training, work.station, 3)
    assert (used <= work.capacity * (1 + 1e-9)).all()
    assert (inference <= work.ready(upload) + 1e-3).all() and (training <= work.due).all()
    least = drift(work, upload, inference, training, weight, of_training)
    rng = torch.Generator().manual_seed(1)
    for _ in range(400):
        step = 10 ** (-4 * torch.rand((), generator=rng, dtype=torch.float64))

        def moved(values: Tensor, scale: Tensor | float, by: Tensor = step) -> Tensor:
            return values + by * scale * (2 * torch.rand(values.shape, generator=rng, dtype=torch.float64) - 1)

        u = torch.minimum(torch.maximum(moved(upload, work.new), work.least), work.new)
        x = torch.minimum(moved(inference, 1e9).clamp(min=0), work.ready(u))
        y = torch.minimum(moved(training, 1e9).clamp(min=0), work.due)
        fit = (work.capacity / station_total(x + y, work.station, 3).clamp(min=1)).clamp(max=1)
        fit = fit.gather(-1, work.station)
        other = drift(work, u, fit * x, fit * y, weight, of_training)
        assert (least <= other + 1e-9 * other.abs() + 1e6).all()  # squares of FLOP: 1e6 is nothing


@pytest.mark.parametrize("rule", ALL, ids=named)
@pytest.mark.parametrize("shape", [(8,), (5, 8), (2, 3, 8)], ids=str)
@pytest.mark.parametrize("fill", [0.0, 1.0, 5.0])
def test_every_allocator_stays_within_its_bounds(rule: Allocator, shape: tuple[int, ...], fill: float) -> None:
    problem = queue_problem(*shape, seed=3, fill=fill)
    answer = serve_queues(rule, problem)
    linked = problem.rate_bps > 0
    assert answer.upload_bytes.shape == answer.inference_flops.shape == answer.training_flops.shape == shape
    assert answer.upload_bytes.dtype == torch.float64
    assert (answer.upload_bytes <= problem.captured_bytes).all()
    assert (answer.upload_bytes >= torch.where(linked, problem.least_upload_bytes, 0.0)).all()
    assert (answer.upload_bytes[~linked] == 0).all()
    assert (answer.inference_flops >= 0).all() and (answer.training_flops >= 0).all()
    given = station_sum(answer.inference_flops + answer.training_flops, problem.now)
    assert (given <= problem.station_flops).all()


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_a_slot_alone_is_served_as_in_a_batch(rule: DriftPlusPenalty | MaxWeight) -> None:
    problem = queue_problem(6, 9, seed=5)
    whole = rule.serve(problem)
    for place in range(6):
        alone = rule.serve(changed(problem, lambda values, place=place: values[place]))
        for name in ("upload_bytes", "inference_flops", "training_flops"):
            torch.testing.assert_close(getattr(alone, name), getattr(whole, name)[place], rtol=1e-12, atol=1e-6)


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_compute_goes_where_work_is_and_all_of_it(rule: DriftPlusPenalty | MaxWeight) -> None:
    problem = queue_problem(40, 9, seed=7)
    answer = rule.serve(problem)
    # What cannot be done in the slot gets nothing: an MU without work, a job that is over.
    bits = torch.minimum(problem.uplink_bits + 8 * answer.upload_bytes, problem.rate_bps * problem.slot_s)
    ready = problem.station_flop + problem.flop_per_byte * bits / 8
    assert (answer.inference_flops[ready == 0] == 0).all()
    assert (answer.training_flops * problem.slot_s <= problem.training_flop).all()
    # A BS with work wastes nothing: all its compute is given.
    given = station_sum(answer.inference_flops + answer.training_flops, problem.now)
    work = station_sum(ready, problem.now)
    assert torch.allclose(given[work > 0], problem.station_flops[work > 0], rtol=1e-9)


def of_one_station(**values: list[float]) -> QueueProblem:
    users = len(next(iter(values.values())))
    amounts: dict[str, Any] = {
        name: torch.tensor(values.get(name, [0.0] * users), dtype=torch.float64)
        for name in ("captured_bytes", "local_flop", "uplink_bits", "station_flop", "training_flop", "due_flop")
    }
    return QueueProblem(
        **amounts,
        rate_bps=torch.full((users,), 8e6, dtype=torch.float64),
        station=torch.zeros(users, dtype=torch.int64),
        station_flops=torch.tensor([1e9], dtype=torch.float64),
        mu_flops=torch.full((users,), 1e8, dtype=torch.float64),
        flop_per_byte=1e3,
        downlink_s=0.0,
        slot_s=1.0,
        least_upload_bytes=torch.zeros(users, dtype=torch.float64),
    )


def test_drift_plus_penalty_levels_what_is_left_and_max_weight_does_the_longest_first() -> None:
    problem = of_one_station(
        station_flop=[2.0e9, 1.2e9, 0.3e9], training_flop=[0.0, 9e9, 0.0], due_flop=[0.0, 0.9e9, 0.0]
    )
    # What is left of 2.0, 1.2 and 0.9 is level at (4.1 - 1.0) / 3 where the short ones are not touched: at 1.1.
    level = DriftPlusPenalty(training_weight=1.0).serve(problem)
    assert level.inference_flops.tolist() == pytest.approx([0.9e9, 0.1e9, 0.0], rel=1e-6, abs=1e3)
    assert level.training_flops.tolist() == pytest.approx([0.0, 0.0, 0.0], abs=1e3)
    longest = MaxWeight().serve(problem)
    assert longest.inference_flops.tolist() == pytest.approx([1e9, 0.0, 0.0], rel=1e-6)


def test_training_that_is_due_waits_in_the_same_line_and_spare_compute_trains_ahead() -> None:
    busy = of_one_station(station_flop=[0.2e9, 0.0], training_flop=[0.0, 5e9], due_flop=[0.0, 3e9])
    for alike in (DriftPlusPenalty(training_weight=1.0), MaxWeight(training_weight=1.0)):
        assert alike.serve(busy).training_flops[1] == pytest.approx(1e9, rel=1e-6)
    # Left of both a and b with a + b = 2.2 and a = b / 100.
    weighed = DriftPlusPenalty(training_weight=0.01).serve(busy)
    assert weighed.training_flops[1] == pytest.approx(3e9 - 2.2e9 / 1.01, rel=1e-6)
    tasks_first = MaxWeight(training_weight=0.01).serve(busy)
    assert tasks_first.inference_flops[0] == pytest.approx(0.2e9, rel=1e-6)
    assert tasks_first.training_flops[1] == pytest.approx(0.8e9, rel=1e-6)
    idle = of_one_station(station_flop=[0.2e9, 0.0], training_flop=[0.0, 5e9], due_flop=[0.0, 0.1e9])
    for rule in RULES:
        answer = rule.serve(idle)  # of the 0.7 GFLOP that nobody asked for, half trains
        assert answer.inference_flops.tolist() == pytest.approx([0.55e9, 0.0], rel=1e-6)
        assert answer.training_flops.tolist() == pytest.approx([0.0, 0.45e9], rel=1e-6)


def test_a_waiting_link_or_bs_keeps_new_data_at_the_mu() -> None:
    new = {"captured_bytes": [5e5]}  # 0.5 GFLOP: 5 s at the MU; 0.5 s on the link, 0.5 s at the BS
    for rule in RULES:
        free = rule.serve(of_one_station(**new))
        assert free.upload_bytes[0] >= 4e5
        assert rule.serve(of_one_station(**new, uplink_bits=[8e7])).upload_bytes[0] == 0
        full = rule.serve(of_one_station(**new, station_flop=[9e9])).upload_bytes[0]
        assert full == 0


def test_energy_decides_as_much_as_its_weight_says() -> None:
    problem = replace(of_one_station(captured_bytes=[2e5]), tx_w=10.0)
    uploads = [float(DriftPlusPenalty(weight=weight).serve(problem).upload_bytes[0]) for weight in (0.0, 0.001, 1.0)]
    # 0.1 GFLOP of 0.2 fit into the slot at the MU; a joule costs what 1e-8 J/FLOP x V GFLOP²/J says.
    assert uploads[0] >= 1e5 and uploads[0] > uploads[1] > uploads[2] == 0


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_without_a_queue_before_it_a_slot_is_solved_too(rule: DriftPlusPenalty | MaxWeight) -> None:
    problem = sampled(8, slots=60)
    answer = rule.allocate(problem)
    assert answer.upload_bytes.dtype == torch.float32
    assert (answer.upload_bytes >= 0).all() and (answer.upload_bytes <= problem.captured_bytes).all()
    assert (station_sum(answer.compute_flops, problem) <= problem.station_flops).all()
    delay_s = system_delay_s(problem, answer, "makespan")
    assert torch.isfinite(delay_s).all()
    least = problem.captured_bytes * 0.9
    forced = rule.allocate(replace(problem, least_upload_bytes=least))
    assert (forced.upload_bytes >= least).all()
    alone = rule.allocate(problem.slots(7))
    torch.testing.assert_close(alone.compute_flops, answer.compute_flops[7])


def test_half_of_the_drift_is_less_delay_than_equal_shares() -> None:
    problem = sampled(8, slots=60)
    delay_s = {
        named(rule): system_delay_s(problem, rule.allocate(problem), "makespan").mean() for rule in (RULES[0], Equal())
    }
    assert delay_s["DriftPlusPenalty"] < delay_s["Equal"]


@pytest.mark.parametrize("rule", RULES, ids=named)
def test_where_idle_compute_trains_inference_has_it_first(rule: DriftPlusPenalty | MaxWeight) -> None:
    problem = queue_problem(64, 10, seed=5, fill=0.1)
    paced, idle = rule.serve(problem), rule.serve(replace(problem, idle_trains=True))
    assert torch.equal(paced.upload_bytes, idle.upload_bytes)
    assert (idle.inference_flops >= paced.inference_flops * (1 - 1e-12)).all()
    assert idle.inference_flops.sum() > 1.1 * paced.inference_flops.sum()
    due = torch.minimum(problem.due_flop, problem.training_flop) / problem.slot_s
    busy = station_total(idle.inference_flops, problem.station, 3).gather(-1, problem.station) > 0
    assert (idle.training_flops <= due * (1 + 1e-9))[busy].all()
