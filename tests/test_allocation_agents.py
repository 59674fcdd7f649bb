"""What all learned allocators share: choices, determinism, going on after a kill, checkpoints, curves."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch

from dtsim.allocation.heuristics import Proportional
from dtsim.allocation.learned import agents
from dtsim.allocation.learned.agents import Learned
from dtsim.allocation.learned.apg import AnalyticPolicyGradient
from dtsim.allocation.learned.slots import TrainingSlots
from dtsim.allocation.optimal import gap
from dtsim.allocation.problem import AllocationProblem, station_sum, user_delay_s
from dtsim.bench.curves import figure
from dtsim.core.cache import Cache, packed
from dtsim.core.errors import TrainingDiverged
from dtsim.core.parts import ConfigError, build
from dtsim.core.progress import QUIET
from dtsim.core.rows import Row
from tests.agents import AGENTS, TINY, Killed, Recorded, sampled, values, weights
from tests.composed import node as composed_node
from tests.synthetic_source import SyntheticSource

Trained: TypeAlias = tuple[str, Learned, list[Row], Path]

SOURCE = SyntheticSource()


@pytest.fixture(scope="module", params=AGENTS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """An agent's name, its allocator, its curve and the file of its policy."""
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp(request.param)
    allocator = AGENTS[request.param](**TINY[request.param])
    rows = allocator.prepare(SOURCE, Cache(root), QUIET)
    (file,) = root.glob("policy/*.pt")
    assert not list(root.glob("policy/*.training"))
    return request.param, allocator, rows, file


def without_seconds(rows: list[Row]) -> list[Row]:
    return [{**row, "seconds": 0} for row in rows]


def test_the_same_seed_gives_the_same_curve_and_weights_and_another_does_not(trained: Trained, tmp_path: Path) -> None:
    name, allocator, rows, _ = trained
    torch.manual_seed(1234)  # of no consequence
    again = AGENTS[name](**TINY[name])
    assert without_seconds(again.prepare(SOURCE, Cache(tmp_path), QUIET)) == without_seconds(rows)
    assert torch.equal(weights(again), weights(allocator))
    other = AGENTS[name](**TINY[name] | {"seed": 1})
    other.prepare(SOURCE, Cache(tmp_path), QUIET)
    assert not torch.equal(weights(other), weights(allocator))
    assert values(rows, "value", "updates")[-1] >= 15


@pytest.mark.parametrize(
    "keys",
    [
        {},
        *(pytest.param(keys, marks=pytest.mark.slow) for keys in ({"gamma": 0.5}, {"policy": "flat", "action": "raw"})),
    ],
    ids=str,
)
@pytest.mark.parametrize("name", AGENTS)
def test_a_killed_training_goes_on_and_ends_bit_identical(name: str, keys: dict[str, Any], tmp_path: Path) -> None:
    if name == "apg" and "gamma" in keys:
        pytest.skip("has no discount")
    keys = TINY[name] | keys | {"save_every": 60}

    def ended(root: Path) -> dict[str, Any]:
        (file,) = root.glob("policy/*.pt")
        entry: dict[str, Any] = torch.load(_body(file), weights_only=True)
        return entry

    AGENTS[name](**keys).prepare(SOURCE, Cache(tmp_path / "whole"), QUIET)
    for at in (110, 230):  # killed twice, each time between two savings
        with pytest.raises(Killed):
            AGENTS[name](**keys).prepare(SOURCE, Cache(tmp_path / "parts"), Recorded(kill_at=at))
        assert len(list(tmp_path.glob("parts/policy/*.training"))) == 1
    progress = Recorded()
    AGENTS[name](**keys).prepare(SOURCE, Cache(tmp_path / "parts"), progress)
    assert "resumes at" in progress.said[0]
    assert progress.steps == 300
    assert not list(tmp_path.glob("parts/policy/*.training"))
    whole, parts = ended(tmp_path / "whole"), ended(tmp_path / "parts")
    for kept in ("actor", "last"):
        assert all(torch.equal(whole[kept][key], parts[kept][key]) for key in whole[kept])
    assert without_seconds(whole["curve"]) == without_seconds(parts["curve"])
    assert values(parts["curve"], "seconds", "gap") == sorted(values(parts["curve"], "seconds", "gap"))
    assert whole["updates"] == parts["updates"]


def _body(file: Path) -> io.BytesIO:
    return io.BytesIO(file.read_bytes()[32:])


@pytest.mark.parametrize("damage", ["truncated", "flipped"])
def test_a_damaged_training_state_is_said_and_training_starts_anew(damage: str, tmp_path: Path) -> None:
    keys = TINY["apg"] | {"save_every": 60}
    with pytest.raises(Killed):
        agents.Apg(**keys).prepare(SOURCE, Cache(tmp_path), Recorded(kill_at=200))
    (file,) = tmp_path.glob("policy/*.training")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data if damage == "flipped" else data[:100])
    progress, anew = Recorded(), agents.Apg(**keys)
    rows = anew.prepare(SOURCE, Cache(tmp_path), progress)
    assert "is damaged" in progress.said[0]
    assert values(rows, "step", "gap")[0] == 0
    whole = agents.Apg(**keys)
    whole.prepare(SOURCE, Cache(tmp_path / "other"), QUIET)
    assert torch.equal(weights(anew), weights(whole))


def test_a_checkpoint_is_used_whatever_the_source_and_the_keys(trained: Trained) -> None:
    name, allocator, rows, file = trained
    node = {
        "_target_": f"dtsim.allocation.learned.agents.{AGENTS[name].__name__}",
        "checkpoint": str(file),
        "hidden": 99,
    }
    loaded = build(node, "allocator")
    assert loaded.prepare(SyntheticSource(retraining=0.1), Cache(Path("/nowhere")), QUIET) == rows
    for users in (1, 5, 40):
        problem = sampled(users)
        assert torch.equal(loaded.allocate(problem).compute_flops, allocator.allocate(problem).compute_flops)


def test_a_file_that_is_no_such_policy_is_refused_in_one_line_that_names_the_key(
    trained: Trained, tmp_path: Path
) -> None:
    name, _, _, file = trained
    entry = torch.load(_body(file), weights_only=True)
    data = file.read_bytes()
    wrong = {
        "missing.pt": (None, "must be a file that can be read"),
        "text.pt": (b"hello", "must be a policy that dtsim has trained"),
        "cut.pt": (data[:-9], "must be a policy that dtsim has trained"),
        "model.pt": (packed({"weights": torch.ones(3)}), "must be a policy that dtsim has trained"),
        "design.pt": (packed(entry | {"design": {"hidden": -1}}), "another version"),
        "shape.pt": (packed(entry | {"design": entry["design"] | {"hidden": 9}}), "another version"),
        "agent.pt": (
            packed(entry | {"design": {**entry["design"], "agent": _other(name)}}),
            "must be a policy of this version" if name == "sac" else f"must be a policy trained by {name}; this one is",
        ),
    }
    for place, (content, says) in wrong.items():
        path = tmp_path / place
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ConfigError) as error:
            build(
                {"_target_": f"dtsim.allocation.learned.agents.{AGENTS[name].__name__}", "checkpoint": str(path)},
                "allocator",
            )
        (line,) = error.value.lines
        assert line.startswith(f"allocator.checkpoint='{path}': ")
        assert says in line
        assert "\n" not in line


def _other(name: str) -> str:
    return {"ddpg": "apg", "apg": "ddpg", "sac": "ddpg"}[name]


@pytest.mark.parametrize("name", AGENTS)
@pytest.mark.parametrize("policy", ["set", "flat"])
@pytest.mark.parametrize("action", ["residual", "simplex", "raw"])
def test_any_agent_takes_any_network_and_any_action(name: str, policy: str, action: str, tmp_path: Path) -> None:
    allocator = AGENTS[name](**TINY[name] | {"policy": policy, "action": action})
    rows = allocator.prepare(SOURCE, Cache(tmp_path), QUIET)
    first, *_, last = values(rows, "value", "gap")
    assert first != last
    problem = sampled(5)
    allocation = allocator.allocate(problem)
    assert torch.isfinite(user_delay_s(problem, allocation)).all()
    assert (station_sum(allocation.compute_flops.double(), problem) <= problem.station_flops).all()
    if policy == "flat":
        with pytest.raises(ConfigError) as error:
            allocator.allocate(sampled(6))
        (line,) = error.value.lines
        assert "trained for K=5, M=3" in line
        assert "K=6" in line
    else:
        allocator.allocate(sampled(6))


@pytest.mark.parametrize("file", ["ddpg", "sac", "apg", "ddpg_paper"])
def test_yaml_lists_every_key_and_the_defaults_are_its_own(file: str) -> None:
    keys = composed_node("allocator", file)
    allocator = build(keys, "allocator")
    assert {**dataclasses.asdict(allocator), "_target_": keys["_target_"]} == keys
    if file == "ddpg_paper":
        assert (allocator.policy, allocator.action, allocator.agent) == ("flat", "raw", "ddpg")
    else:
        assert type(allocator)() == allocator
        assert allocator.agent == file


def test_a_policy_that_says_no_numbers_ends_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = AnalyticPolicyGradient.round

    def poisoned(self: AnalyticPolicyGradient) -> None:
        whole(self)
        *_, bias = self.actor.parameters()  # the output layer's
        bias.data[0] = torch.nan

    monkeypatch.setattr(AnalyticPolicyGradient, "round", poisoned)
    with pytest.raises(TrainingDiverged, match="diverged"):
        agents.Apg(**TINY["apg"]).prepare(SOURCE, Cache(tmp_path), QUIET)
    assert not list(tmp_path.glob("policy/*.pt"))


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_sees_the_numbers_of_mus_that_it_is_asked_to(name: str, tmp_path: Path) -> None:
    seen = []

    class Watched(SyntheticSource):
        def sample(self, slots: int, users: int, generator: torch.Generator) -> AllocationProblem:
            seen.append((slots, users))
            return super().sample(slots, users, generator)

    keys = TINY[name] | {"least_users": 3, "environment_steps": 3000, "batch_size": 16} | {"evaluate_every": 3000}
    AGENTS[name](**keys).prepare(Watched(), Cache(tmp_path), QUIET)
    drawn = seen[1:]  # the first are held out
    assert {users for _, users in drawn} == {3, 4, 5, 6, 7, 8, 9}
    at_once = 16 if name == "apg" else TINY[name]["environments"]
    assert all(slots == round(at_once * 5 / users) for slots, users in drawn)
    assert all(users == 5 for _, users in drawn[::2])
    with pytest.raises(ValueError, match="least_users"):
        AGENTS[name](least_users=10, most_users=9)


@pytest.mark.parametrize("name", AGENTS)
def test_a_flat_policy_is_trained_on_its_own_number_of_mus_only(name: str, tmp_path: Path) -> None:
    seen = set()

    class Watched(SyntheticSource):
        def sample(self, slots: int, users: int, generator: torch.Generator) -> AllocationProblem:
            seen.add(users)
            return super().sample(slots, users, generator)

    AGENTS[name](**TINY[name] | {"policy": "flat"}).prepare(Watched(), Cache(tmp_path), QUIET)
    assert seen == {5}


def test_a_share_of_the_training_slots_has_no_retraining_loads() -> None:
    def loaded(share: float) -> float:
        keys = agents.Apg(train_users=9, unloaded_share=share)
        slots = TrainingSlots(keys, SyntheticSource(retraining=1.0), torch.Generator().manual_seed(0))
        return (slots.draw(0, 2000).retrain_flop > 0).any(-1).double().mean().item()

    assert loaded(1.0) == 0.0
    whole = loaded(0.0)
    assert whole > 0.7
    assert loaded(0.5) == pytest.approx(0.5 * whole, abs=0.05)


def test_figure_draws_every_agent_and_refuses_what_is_no_curve(trained: Trained, tmp_path: Path) -> None:
    name, _, rows, _ = trained
    path = tmp_path / "figures" / "curves.svg"
    figure({name: rows, "another": rows}, path)
    drawn = path.read_text()
    assert len(drawn) > 10_000
    assert all(f"<!-- {label} -->" in drawn for label in (name, "another", "equal", "proportional", "optimum"))
    assert all(f"<!-- {label} -->" in drawn for label in ("training slots", "gradient updates", "wall time (s)"))
    with pytest.raises(ValueError, match="one or more"):
        figure({}, path)
    with pytest.raises(ValueError, match="gap"):
        figure({"no gap": [row for row in rows if row["metric"] != "gap"]}, path)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "most"), [("apg", 0.1), ("sac", 0.6)])
def test_full_training_is_clearly_below_proportional(name: str, most: float, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    allocator = AGENTS[name]()
    allocator.prepare(SOURCE, Cache(tmp_path), QUIET)
    for users in (10, 20, 40):
        problem = sampled(users, slots=1000)
        learned = gap(problem, allocator.allocate(problem), "makespan").mean()
        usual = gap(problem, Proportional().allocate(problem), "makespan").mean()
        assert learned < most * usual, (users, learned, usual)
