"""The benches: what they measure, what they write, and how they fail."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner, Result

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.optimal import gap
from dtsim.association.greedy import Greedy
from dtsim.association.instances import instance
from dtsim.bench import allocation, environment, peers
from dtsim.bench.timing import Contender, race
from dtsim.cli.app import app
from dtsim.core.progress import QUIET
from dtsim.core.seeding import Streams
from dtsim.runner.defaults import default_mirror

BRIEF = [
    "allocator.environment_steps=200",
    "allocator.environments=20",
    "allocator.batch_size=16",
    "allocator.hidden=8",
    "allocator.train_users=4",
    "allocator.held_out_slots=10",
]


def dtsim(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_contenders_take_turns_and_the_first_turn_does_not_count() -> None:
    order = []

    def contender(name: str, busy_s: float) -> Contender:
        def run() -> None:
            order.append(name)
            end_s = time.process_time() + busy_s * (3 if len(order) < 3 else 1)
            while time.process_time() < end_s:
                pass

        return Contender(name, 10, lambda: run)

    slow, fast = contender("slow", 0.02), contender("fast", 0.001)
    race([slow, fast], 3, QUIET, "")
    assert order == ["slow", "fast"] * 4
    assert len(slow.cpu_s) == 3
    assert slow.rate == pytest.approx(10 / sorted(slow.cpu_s)[1])
    assert slow.median_s == pytest.approx(1 / slow.rate)
    assert slow.rate < fast.rate


def test_allocators_are_measured_on_the_same_held_out_slots(tmp_path: Path) -> None:
    path = allocation.bench(
        allocators=["optimal", "proportional", "equal"],
        users=[3, 6],
        slots=40,
        repeats=1,
        overrides=[f"outputs={tmp_path}"],
        progress=QUIET,
    )
    assert path == tmp_path / "bench" / "allocation.csv"
    table = pd.read_csv(path)
    assert len(table) == 2 * 2 * 3
    assert (table.loc[table.allocator == "optimal", ["gap_mean", "gap_p95", "gap_worst"]] < 1e-5).all(axis=None)
    others = table[table.allocator != "optimal"]
    assert (others.gap_worst >= others.gap_p95).all()
    assert (others.gap_worst > others.gap_mean).all()
    assert (table[["batched_s_per_slot", "single_s_per_slot"]] > 0).all(axis=None)
    for retraining, source in ((True, default_mirror()), (False, replace(default_mirror(), retraining_share=0.0))):
        problem = source.sample(40, 6, Streams(0).torch("bench/allocation", 6, int(retraining)))
        assert bool((problem.retrain_flop > 0).any()) is retraining
        expected = gap(problem, Proportional().allocate(problem), "makespan")
        row = table[(table.allocator == "proportional") & (table.users == 6) & (table.retraining == retraining)]
        assert row.gap_mean.item() == pytest.approx(expected.mean().item())
        assert row.gap_worst.item() == pytest.approx(expected.max().item())


def test_association_solvers_are_measured_on_the_same_instances(tmp_path: Path) -> None:
    done = dtsim(
        "bench", "association", "--solvers", "greedy,annealing,cpsat", "--sizes", "12/2,40/4", "--loads", "mixed,equal",
        "--seeds", 2, "--time-limit", 0.3, "--exact-links", 100, f"outputs={tmp_path}",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "40/4: left out cpsat (more than 100 links)" in done.output
    table = pd.read_csv(tmp_path / "bench" / "association.csv")
    assert table.groupby(["users", "stations", "solver"]).size().to_dict() == {
        (12, 2, "annealing"): 4, (12, 2, "cpsat"): 4, (12, 2, "greedy"): 4,
        (40, 4, "annealing"): 4, (40, 4, "greedy"): 4,
    }  # fmt: skip
    row = table[(table.users == 40) & (table.loads == "equal") & (table.seed == 1) & (table.solver == "greedy")]
    found = Greedy().solve(instance(40, 4, "equal", 1))
    assert row.objective_s.item() == pytest.approx(found.objective_s)
    assert row.gap.item() == pytest.approx(found.gap)
    exact = table[table.solver == "cpsat"].set_index(["loads", "seed"])
    assert (exact.status == "optimal").all() and (exact.gap_to_best_bound == 0).all()
    for name in ("greedy", "annealing"):
        own = table[(table.users == 12) & (table.solver == name)].set_index(["loads", "seed"])
        assert (own.objective_s >= exact.objective_s * (1 - 1e-9)).all()
        assert (own.gap_to_best_bound <= own.gap + 1e-12).all()
    assert (table.cpu_s > 0).all()
    assert (tmp_path / "bench" / "association.png").stat().st_size > 1_000
    assert "annealing" in done.output and "mixed" in done.output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "12"], "sizes='12': must be pairs of whole numbers such as 50/5"),
        (["--sizes", "0/3"], "sizes=0/3: must be >= 1/1"),
        (["--loads", "some"], "loads=some: must be one of mixed, retraining, inference, equal"),
        (["--solvers", "simplex"], "solvers=simplex: must be one of annealing, branch_and_bound"),
        (["--seeds", 0], "seeds=0: must be >= 1"),
        (["--time-limit", 0], "time-limit=0.0: must be > 0"),
        (["--solvers", "cpsat", "--exact-links", 0, "--sizes", "4/2"], "exact-links=0: leaves no solver"),
    ],
)
def test_bad_options_of_the_association_bench_are_one_line(options: list[object], message: str) -> None:
    done = dtsim("bench", "association", *options)
    assert done.exit_code != 0
    assert message in done.output
    assert "Traceback" not in done.output


def test_what_learns_is_trained_and_a_policy_for_one_size_is_left_out_at_others(tmp_path: Path) -> None:
    asked = ["bench", "allocation", "--allocators", "ddpg", "--users", "4,5", "--slots", 10, "--repeats", 1]
    asked += [*BRIEF, f"outputs={tmp_path}", f"cache={tmp_path / 'cache'}"]
    done = dtsim(*asked)
    assert done.exit_code == 0, done.output
    assert "worst" in done.output
    assert list((tmp_path / "cache" / "policy").glob("*.pt"))
    assert pd.read_csv(tmp_path / "bench" / "allocation.csv").users.tolist() == [4, 5, 4, 5]
    flat = dtsim(*asked, "allocator.policy=flat")
    assert flat.exit_code == 0, flat.output
    assert "ddpg left out at K=5" in flat.output
    assert pd.read_csv(tmp_path / "bench" / "allocation.csv").users.tolist() == [4, 4]


def test_environments_are_timed_beside_mobile_env(tmp_path: Path) -> None:
    pytest.importorskip("mobile_env")
    done = dtsim(
        "bench", "environment", "--users", 4, "--batches", "3,5", "--steps", 150, "--training-steps", 0,
        "--repeats", 2, f"outputs={tmp_path}",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "mobile-env" in done.output
    table = pd.read_csv(tmp_path / "bench" / "environment.csv")
    assert table.measured.unique().tolist() == ["environment steps"]
    assert table.groupby("contender").size().to_dict() == {
        "single environment": 2,
        "batched, 3 at once": 2,
        "batched, 5 at once": 2,
        "queues, 3 at once": 2,
        "queues, 5 at once": 2,
        "mobile-env": 2,
    }
    assert (table.cpu_s > 0).all()
    assert dict(zip(table.contender, table.steps, strict=True))["batched, 5 at once"] == 500


def test_retraining_is_timed_in_every_way_and_heads_are_fastest(tmp_path: Path) -> None:
    done = dtsim(
        "bench", "retraining", "--users", 3, "--samples", 40, "--repeats", 1, "device=cpu", f"outputs={tmp_path}"
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "bench" / "retraining.csv")
    assert table.contender.tolist() == ["plain loop", "channels-last", "stacked", "heads", "heads, stacked"]
    assert (table.samples == 120).all() and (table.seconds > 0).all() and (table.device == "cpu").all()
    assert all(name in done.output for name in table.contender)


def test_peers_that_are_not_installed_are_left_out_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "find_spec", lambda module: None)
    path = environment.bench(
        users=3,
        batches=[2],
        steps=5,
        training_steps=0,
        repeats=1,
        overrides=[f"outputs={tmp_path}"],
        progress=QUIET,
    )
    assert pd.read_csv(path).contender.tolist() == ["single environment", "batched, 2 at once", "queues, 2 at once"]
    assert "pip install 'dtsim[bench]'" in str(peers.missing("mobile_env"))


@pytest.mark.slow
def test_trainings_are_timed_beside_their_peers(tmp_path: Path) -> None:
    pytest.importorskip("stable_baselines3")
    for policy, ours in (("set", ["dtsim", "dtsim (MLP)"]), ("flat", ["dtsim"])):
        done = dtsim(
            "bench", "environment", "--users", 4, "--batches", "2", "--steps", 5, "--training-steps", 200,
            "--repeats", 1, *BRIEF, f"allocator.policy={policy}", f"outputs={tmp_path}",
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        table = pd.read_csv(tmp_path / "bench" / "environment.csv").query("measured == 'training samples'")
        assert table.contender.tolist() == [*ours, "Tianshou", "Stable-Baselines3 (MLP)"]
        assert "× Tianshou" in done.output and "× Stable-Baselines3 (MLP)" in done.output
        assert (table.steps == 200).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["allocation", "--users", "5,x"], "error: users='5,x': must be whole numbers with commas between them"),
        (["allocation", "--slots", 0], "error: slots=0: must be >= 1"),
        (["allocation", "--allocators", "nope"], "error: allocator=nope: must be one of"),
        (["allocation", "--users", "0"], "error: users='0': must be whole numbers from 1 to 100,000"),
        (["retraining", "--samples", 0], "error: samples=0: must be >= 1"),
        (["environment", "--repeats", 0], "error: repeats=0: must be >= 1"),
        (["environment", "--batches", "8,0"], "error: batches='8,0': must be whole numbers from 1 to 100,000"),
        (["environment", "allocator=equal"], "error: allocator: must be a ddpg"),
        (["environment", "channel.bandwidth_hz=-1"], "error: channel.bandwidth_hz=-1"),
    ],
)
def test_an_error_is_one_line(arguments: list[object], said: str, tmp_path: Path) -> None:
    done = dtsim("bench", *arguments, f"outputs={tmp_path}")
    assert done.exit_code == 2
    assert done.output.startswith(said)
    assert len(done.output.strip().splitlines()) == 1


def test_help_names_the_benches_and_their_options() -> None:
    assert "environment" in dtsim("bench", "--help").output
    for verb, options in (
        ("allocation", ("--slots", "--users")),
        ("retraining", ("--samples",)),
        ("environment", ("--batches", "--training-steps")),
    ):
        shown = dtsim("bench", verb, "--help").output
        assert all(option in shown for option in options)
