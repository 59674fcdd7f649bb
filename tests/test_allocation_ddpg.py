"""Training, keeping and using the DDPG allocator."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.learned.agents import Ddpg
from dtsim.allocation.optimal import gap
from dtsim.allocation.problem import station_sum
from dtsim.core.cache import Cache
from dtsim.core.progress import QUIET
from dtsim.core.rows import Row, number
from tests.agents import TINY, Recorded, sampled, trained_actor, values, weights
from tests.synthetic_source import SyntheticSource

Trained: TypeAlias = tuple[Ddpg, list[Row], Path, Recorded, tuple[Any, ...], tuple[Any, ...]]


def _numpy_state() -> NDArray[np.uint32]:
    """NumPy's global state, which must be left alone."""
    state = np.random.get_state(legacy=True)  # noqa: NPY002
    assert isinstance(state, tuple)
    return np.array(state[1])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("cache")
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - what must be left alone
    torch.manual_seed(5)
    before = (random.getstate(), _numpy_state(), torch.get_rng_state())
    allocator, progress = Ddpg(**TINY["ddpg"]), Recorded()
    rows = allocator.prepare(SyntheticSource(), Cache(root, progress), progress)
    after = (random.getstate(), _numpy_state(), torch.get_rng_state())
    return allocator, rows, root, progress, before, after


def test_training_reports_its_curve_and_progress(trained: Trained) -> None:
    _, rows, _, progress, _, _ = trained
    assert {tuple(row) for row in rows} == {("phase", "user", "step", "seconds", "metric", "value")}
    assert {row["phase"] for row in rows} == {"allocator"}
    assert values(rows, "step", "gap") == values(rows, "step", "updates") == [0, 100, 200, 300]
    assert values(rows, "value", "updates") == [0, 10, 20, 30]
    assert min(values(rows, "value", "gap")) >= 0
    assert progress.phases == [("DRL training", 300)]
    assert progress.steps == 300
    assert len(progress.notes) == 4
    assert "policy kept" in progress.said[-1]


def test_training_leaves_the_global_generators_as_they_were(trained: Trained) -> None:
    before, after = trained[-2:]
    assert before[0] == after[0]
    assert (before[1] == after[1]).all()
    assert torch.equal(before[2], after[2])


def test_curve_starts_at_the_proportional_allocation_and_the_best_weights_are_kept(trained: Trained) -> None:
    allocator, rows, *_ = trained
    from dtsim.allocation.learned.training import HeldOut
    from dtsim.core.seeding import Streams

    held_out = HeldOut(allocator, SyntheticSource(), Streams(0).torch("allocator/held-out"))
    for name, other in (("gap_equal", Equal()), ("gap_proportional", Proportional())):
        usual = gap(held_out.problem, other.allocate(held_out.problem), "makespan").mean().item()
        assert values(rows, "value", name) == [pytest.approx(usual, abs=1e-9)]
    assert values(rows, "value", "gap")[0] == pytest.approx(usual, abs=1e-5)
    kept = held_out.value(trained_actor(allocator))
    assert kept == pytest.approx(min(values(rows, "value", "gap")), abs=1e-6)


def test_a_trained_policy_is_reloaded_and_not_trained_again(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    allocator, rows, root, *_ = trained
    monkeypatch.setitem(sys.modules, "dtsim.allocation.learned.training", None)  # importing it would fail
    again = Ddpg(**TINY["ddpg"] | {"save_every": 7})  # how often it is saved is nothing to what is learned
    assert again.prepare(SyntheticSource(), Cache(root), QUIET) == rows
    assert torch.equal(weights(again), weights(allocator))
    problem = sampled(9)
    assert torch.equal(again.allocate(problem).compute_flops, allocator.allocate(problem).compute_flops)
    with pytest.raises(ImportError):  # another key or another source is another policy
        Ddpg(**TINY["ddpg"] | {"noise": 0.3}).prepare(SyntheticSource(), Cache(root), QUIET)
    with pytest.raises(ImportError):
        again.prepare(SyntheticSource(retraining=0.1), Cache(root), QUIET)


@pytest.mark.parametrize("users", [1, 5, 30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_trained_policy_meets_the_constraints_for_any_number_of_users(
    trained: Trained, users: int, dtype: torch.dtype
) -> None:
    problem = sampled(users).to(dtype)
    allocation = trained[0].allocate(problem)
    assert allocation.compute_flops.dtype == dtype
    assert (station_sum(allocation.compute_flops.double(), problem) <= problem.station_flops).all()
    assert ((allocation.upload_bytes >= 0) & (allocation.upload_bytes <= problem.captured_bytes)).all()
    assert (gap(problem, allocation, "makespan") >= 0).all()
    one = trained[0].allocate(problem.slots(3))
    torch.testing.assert_close(one.compute_flops, allocation.compute_flops[3], rtol=1e-4, atol=1.0)


def test_the_other_reward_trains_too(tmp_path: Path) -> None:
    rows = Ddpg(**TINY["ddpg"] | {"reward": "log_ratio"}).prepare(SyntheticSource(), Cache(tmp_path), QUIET)
    assert len(values(rows, "value", "gap")) == 4
    assert all(np.isfinite(number(row, "value")) for row in rows)


def test_allocating_before_preparing_is_refused() -> None:
    with pytest.raises(RuntimeError, match="prepare"):
        Ddpg(**TINY["ddpg"]).allocate(sampled(4))


def test_numbers_that_never_update_or_never_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="update_ratio"):
        Ddpg(**TINY["ddpg"] | {"update_ratio": 1e-4})
    with pytest.raises(ValueError, match="buffer_slots"):
        Ddpg(**TINY["ddpg"] | {"buffer_slots": 10})


def test_tianshou_is_imported_only_to_train() -> None:
    late = "any(name in sys.modules for name in ('tianshou', 'gymnasium', 'matplotlib'))"
    code = f"import sys, dtsim.allocation.learned.agents as agents; agents.Ddpg(); sys.exit({late})"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_full_training_is_clearly_below_proportional(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    allocator = Ddpg()
    allocator.prepare(SyntheticSource(), Cache(tmp_path), QUIET)
    for users, most in ((5, 0.9), (10, 0.6), (20, 0.5), (30, 0.5)):
        problem = sampled(users, slots=1000)
        learned = gap(problem, allocator.allocate(problem), "makespan").mean()
        usual = gap(problem, Proportional().allocate(problem), "makespan").mean()
        assert learned < most * usual, (users, learned, usual)
