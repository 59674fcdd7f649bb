"""Allocators in worlds in which time passes: what is followed, counted and compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner, Result

from dtsim.allocation.gym.queue_frames import QueueRules
from dtsim.allocation.heuristics import Equal
from dtsim.allocation.queues.queue_problem import QueueAllocation, QueueProblem, serve_queues
from dtsim.bench import queue_delays
from dtsim.bench.queue_delays import measures
from dtsim.bench.queue_worlds import Hours, largest_stable_loads, passed
from dtsim.cli.app import app
from dtsim.core.progress import QUIET
from dtsim.reporting.statistics import mean_interval
from tests.synthetic_source import SyntheticSource


def dtsim(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def hours(seeds: int = 2, worlds: int = 3, frames: int = 2, **keys: float) -> Hours:
    rules = replace(QueueRules(horizon=20), **keys)  # type: ignore[arg-type]
    return Hours.drawn(SyntheticSource(), users=6, seeds=seeds, worlds=worlds, frames=frames, rules=rules)


def at_home(problem: QueueProblem) -> QueueAllocation:
    """Nothing is uploaded, and BSs only train: each MU's job as fast as it is due."""
    none = torch.zeros_like(problem.captured_bytes)
    return QueueAllocation(none, none, problem.due_flop / problem.slot_s)


def test_delays_of_tasks_are_those_of_a_queue_at_the_mu() -> None:
    drawn = hours()
    outcome = passed(drawn, at_home, 2.0)
    work_s = 2.0 * drawn.captured_bytes * drawn.frames.flop_per_byte / drawn.frames.mu_flops
    free_s, expected = torch.zeros_like(work_s[0]), []
    for slot, takes in enumerate(work_s):
        free_s = torch.clamp(free_s, min=0.1 * slot) + takes
        # Under way at the end: the age counts.
        expected.append(torch.clamp(free_s, max=40 * 0.1) - 0.1 * slot)
    torch.testing.assert_close(outcome.delay_s, torch.stack(expected), rtol=1e-9, atol=1e-9)
    waits = (free_s - 4.0).clamp(min=0) * drawn.frames.mu_flops
    torch.testing.assert_close(outcome.backlog_flop[-1], waits, rtol=1e-6, atol=1e3)
    assert (outcome.trained - 1).abs().max() < 1e-9 and outcome.overdue_flop.max() < 10


def test_what_is_not_trained_is_overdue() -> None:
    drawn = hours()

    def never(problem: QueueProblem) -> QueueAllocation:
        return replace(at_home(problem), training_flops=torch.zeros_like(problem.due_flop))

    outcome = passed(drawn, never, 0.5)
    pace = drawn.job_flop / 20
    torch.testing.assert_close(outcome.overdue_flop[9], 10 * pace)
    torch.testing.assert_close(outcome.overdue_flop[-1], 40 * pace)
    numbers = measures(drawn, outcome)
    assert numbers["overdue_slots"].tolist() == pytest.approx([20.5, 20.5])
    assert numbers["trained"].tolist() == pytest.approx([0.0, 0.0])
    jobs = (drawn.job_flop > 0).any(-1)
    assert jobs.any() and ((outcome.growth[:, 0] > 0.5) == jobs).all()


def test_numbers_are_of_seeds() -> None:
    drawn = hours(seeds=3)
    outcome = passed(drawn, lambda problem: serve_queues(Equal(), problem), 8.0)
    numbers = measures(drawn, outcome)
    own: Tensor = outcome.delay_s[:, 3:6]  # of the second seed's worlds
    assert numbers["delay_mean_s"][1] == pytest.approx(float(own.mean()))
    assert numbers["delay_p95_s"][1] == pytest.approx(float(own.flatten().quantile(0.95)))
    assert numbers["misses"][1] == pytest.approx(float((own > 0.1).double().mean()), abs=1e-6)
    assert numbers["backlog_flop"][1] == pytest.approx(float(outcome.backlog_flop[-1, 3:6].mean()))
    assert 0 < numbers["misses"][1] < 1


def test_seeds_have_worlds_of_their_own_that_others_do_not_change() -> None:
    few, many = hours(seeds=2), hours(seeds=3)
    assert torch.equal(few.rate_bps, many.rate_bps[:, :6])
    assert not torch.equal(many.rate_bps[:, :3], many.rate_bps[:, 3:6])
    assert few.training_flops == pytest.approx(0.3 * 150e9)


def test_the_largest_stable_load_is_where_an_mu_can_just_do_its_work() -> None:
    drawn = hours(frames=10)
    found = largest_stable_loads(drawn, at_home, most=4.0, halvings=7, growth=0.01)
    assert found.shape == (2, 3)
    mean_s = drawn.captured_bytes.mean((0, 2)) * drawn.frames.flop_per_byte / drawn.frames.mu_flops
    assert float((found.flatten() * mean_s / 0.1).mean()) == pytest.approx(1.0, abs=0.1)
    assert (largest_stable_loads(drawn, at_home, most=0.5, halvings=5, growth=0.01) > 0.48).all()


BRIEF = ["slots_per_frame=6", "mu=5"]
EPISODES = ["allocator.environment_steps=60", "allocator.horizon=5", "allocator.networks=4", "allocator.environments=6"]


def test_rules_are_measured_in_the_same_worlds(tmp_path: Path) -> None:
    path = queue_delays.bench(
        allocators=["proportional", "drift_plus_penalty", "max_weight"],
        seeds=3,
        worlds=2,
        frames=1,
        overrides=[*BRIEF, f"outputs={tmp_path}"],
        progress=QUIET,
    )
    assert path == tmp_path / "bench" / "contiguous.csv"
    table = pd.read_csv(path)
    assert set(table.level) == {"light", "critical", "overloaded", "stable"}
    assert len(table) == 3 * 3 * (3 * 6 + 1)
    assert table.groupby("level").load.nunique().to_dict() == {"critical": 1, "light": 1, "overloaded": 1, "stable": 0}
    late = table[(table.metric == "misses") & (table.level != "stable")].groupby(["allocator", "level"]).value.mean()
    for name in ("proportional", "drift_plus_penalty", "max_weight"):
        assert late[name, "light"] <= late[name, "critical"] <= late[name, "overloaded"]
    assert not (tmp_path / "bench" / "contiguous_compared.csv").exists()


def test_a_learned_policy_is_compared_with_rules_seed_by_seed(tmp_path: Path) -> None:
    asked = ["bench", "allocation", "--mode", "contiguous", "--seeds", 3, "--worlds", 1, "--frames", 1]
    done = dtsim(*asked, "--allocators", "queue_ddpg", *BRIEF, *EPISODES, f"outputs={tmp_path}", f"cache={tmp_path}")
    assert done.exit_code == 0, done.output
    assert list(tmp_path.glob("policy/*.pt"))
    compared = queue_delays._compared(rows := fake_rows(), "policy", ["proportional", "drift_plus_penalty"])
    row = next(one for one in compared if one["rule"] == "drift_plus_penalty" and one["metric"] == "misses")
    pairs = [one["value"] for one in rows if one["allocator"] == "policy"][:3]
    assert row["difference"] == pytest.approx(mean_interval([value - 0.2 for value in pairs])[0])
    assert row["high"] < 0 and not row["best_rule"]
    best = next(one for one in compared if one["best_rule"] and one["metric"] == "misses")
    assert best["rule"] == "proportional" and best["low"] > 0
    assert [queue_delays._verdict(one["low"], one["high"]) for one in (row, best)] == ["better", "worse"]


def fake_rows() -> list[dict[str, Any]]:
    """Of three seeds: the policy between the two rules in everything."""
    values = {"policy": [0.1, 0.11, 0.12], "proportional": [0.05, 0.05, 0.05], "drift_plus_penalty": [0.2, 0.2, 0.2]}
    return [
        {"allocator": name, "level": level, "metric": metric, "seed": seed, "value": value}
        for name, each in values.items()
        for level in ("light", "critical", "overloaded")
        for metric in ("misses", "delay_mean_s", "delay_p95_s", "overdue_slots")
        for seed, value in enumerate(each)
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mode", "both"], "mode='both': must be snapshots or contiguous"),
        (["--mode", "contiguous", "--seeds", 1], "seeds=1: must be >= 2"),
        (["--mode", "contiguous", "--worlds", 0], "worlds=0: must be >= 1"),
        (["--mode", "contiguous", "--allocators", "nope"], "allocator=nope: must be one of"),
        (["--allocators", "queue_sac"], "allocator=queue_sac: decides among queues, needs --mode contiguous"),
    ],
)
def test_bad_options_are_one_line(options: list[object], message: str) -> None:
    done = dtsim("bench", "allocation", *options)
    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output
