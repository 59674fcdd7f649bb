"""Agents among queues: training, its end after an interruption, the cache, checkpoints, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dtsim.allocation.gym.queue_frames import QueueSimulator
from dtsim.allocation.learned import queue_agents
from dtsim.allocation.learned.queue_agents import QueueDdpg, QueueLearned, QueueSac
from dtsim.allocation.learned.queue_learner import QueueLearner
from dtsim.allocation.learned.queue_policy import QueuePolicy
from dtsim.allocation.problem import station_sum
from dtsim.allocation.queues.queue_problem import QueueAllocator
from dtsim.core.cache import Cache, unpacked
from dtsim.core.errors import TrainingDiverged
from dtsim.core.parts import ConfigError, build, validated
from dtsim.core.progress import QUIET
from dtsim.core.seeding import Streams
from tests.agents import Killed, Recorded, sampled, values
from tests.composed import node as composed_node
from tests.queue_problems import queue_problem
from tests.synthetic_source import SyntheticSource

SOURCE = SyntheticSource()
AGENTS: dict[str, type[QueueLearned]] = {"queue_ddpg": QueueDdpg, "queue_sac": QueueSac}
SMALL: dict[str, Any] = {
    "train_users": 5,
    "environment_steps": 300,
    "horizon": 10,
    "networks": 8,
    "environments": 6,
    "hidden": 8,
    "batch_size": 16,
    "buffer_slots": 120,
    "warmup_steps": 40,
    "evaluate_every": 100,
    "save_every": 60,
    "held_out_episodes": 4,
}


def policy(allocator: QueueLearned) -> QueuePolicy:
    kept = allocator._in_use.policy
    assert kept is not None
    return kept


def weights(allocator: QueueLearned) -> Tensor:
    return torch.cat([value.flatten() for value in policy(allocator).actor.state_dict().values()])


@pytest.mark.parametrize("name", AGENTS)
def test_a_policy_is_trained_once_and_serves_any_number_of_mus(name: str, tmp_path: Path) -> None:
    allocator, again = AGENTS[name](**SMALL), AGENTS[name](**SMALL)
    rows = allocator.prepare(SOURCE, Cache(tmp_path), QUIET)
    assert {row["phase"] for row in rows} == {"allocator"}
    assert values(rows, "step", "reward") == [0, 120, 240, 300]
    assert values(rows, "value", "reward")[0] == pytest.approx(values(rows, "value", "reward_proportional")[0])
    assert values(rows, "value", "updates")[-1] == 30
    assert again.prepare(SOURCE, Cache(tmp_path), Recorded(kill_at=0)) == rows  # no second training
    assert torch.equal(weights(allocator), weights(again))
    assert isinstance(allocator, QueueAllocator) and allocator.contiguous_only
    for shape in ((7,), (3, 12), (2, 2, 4)):
        problem = queue_problem(*shape)
        answer = allocator.serve(problem)
        assert (answer.upload_bytes >= torch.where(problem.rate_bps > 0, problem.least_upload_bytes, 0.0)).all()
        assert (answer.upload_bytes <= problem.captured_bytes).all()
        given = station_sum(answer.inference_flops + answer.training_flops, problem.now)
        assert (given <= problem.station_flops).all()


@pytest.mark.parametrize("name", AGENTS)
def test_a_killed_training_goes_on_and_ends_bit_identical(name: str, tmp_path: Path) -> None:
    def ended(root: Path) -> dict[str, Any]:
        (file,) = root.glob("policy/*.pt")
        return unpacked(file.read_bytes())

    AGENTS[name](**SMALL).prepare(SOURCE, Cache(tmp_path / "whole"), QUIET)
    for at in (130, 250):
        with pytest.raises(Killed):
            AGENTS[name](**SMALL).prepare(SOURCE, Cache(tmp_path / "parts"), Recorded(kill_at=at))
        assert len(list(tmp_path.glob("parts/policy/*.training"))) == 1
    progress = Recorded()
    AGENTS[name](**SMALL).prepare(SOURCE, Cache(tmp_path / "parts"), progress)
    assert "resumes at" in progress.said[0]
    assert not list(tmp_path.glob("parts/policy/*.training"))
    whole, parts = ended(tmp_path / "whole"), ended(tmp_path / "parts")
    for kept in ("actor", "last"):
        assert all(torch.equal(whole[kept][key], parts[kept][key]) for key in whole[kept])
    assert whole["updates"] == parts["updates"]


def test_a_damaged_training_state_is_said_and_training_starts_anew(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        QueueDdpg(**SMALL).prepare(SOURCE, Cache(tmp_path), Recorded(kill_at=130))
    (file,) = tmp_path.glob("policy/*.training")
    file.write_bytes(file.read_bytes()[:100])
    progress = Recorded()
    rows = QueueDdpg(**SMALL).prepare(SOURCE, Cache(tmp_path), progress)
    assert "is damaged" in progress.said[0] and values(rows, "step", "reward")[0] == 0


def test_a_checkpoint_is_used_and_another_agents_is_refused(tmp_path: Path) -> None:
    trained = QueueDdpg(**SMALL)
    rows = trained.prepare(SOURCE, Cache(tmp_path), QUIET)
    (file,) = tmp_path.glob("policy/*.pt")
    loaded = QueueDdpg(checkpoint=str(file))
    assert loaded.prepare(SOURCE, Cache(Path("/nowhere")), QUIET) == rows
    assert torch.equal(weights(loaded), weights(trained))
    for agent, said in (("QueueSac", "trained by queue_sac; this one is trained by queue_ddpg"), ("QueueDdpg", "")):
        target = {"_target_": f"dtsim.allocation.learned.queue_agents.{agent}", "checkpoint": str(file)}
        if said:
            with pytest.raises(ConfigError, match=said):
                build(target, "allocator")
    with pytest.raises(ConfigError, match="must be a policy"):
        build({"_target_": "dtsim.allocation.learned.agents.Ddpg", "checkpoint": str(file)}, "allocator")


def test_what_decides_the_weights_decides_the_digest(tmp_path: Path) -> None:
    for keys in ({}, {"min_upload": 0.5}, {"gamma": 0.5}, {"overdue_weight": 2.0}):
        QueueDdpg(**SMALL | {"environment_steps": 60} | keys).prepare(SOURCE, Cache(tmp_path), QUIET)
    assert len(list(tmp_path.glob("policy/*.pt"))) == 3


def test_the_slot_that_follows_counts_as_the_discount_says() -> None:
    def learner(gamma: float) -> QueueLearner:
        made = QueueLearner(QueueDdpg(**SMALL | {"gamma": gamma}), SOURCE, Streams(0))
        made.round()
        return made

    one = learner(0.6)
    batch, places = one.replay.sample(40)
    first = one.replay.kept["obs"][:, :30]
    # What followed is what was seen next, but for the last slot of an episode.
    np.testing.assert_array_equal(one.replay.kept["obs_next"][:9, :30], first[1:10])
    one.algorithm._preprocess_batch(batch, one.replay, places.numpy())  # type: ignore[arg-type]
    algorithm: Any = one.algorithm
    with torch.no_grad():
        old = algorithm.critic_old(batch.obs_next, algorithm.actor_old(batch.obs_next))
    torch.testing.assert_close(batch.returns, 0.4 * batch.paid + 0.6 * old)
    assert batch.returns.shape == (8, 5)


def test_without_queues_or_frames_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="decides among queues, needs time"):
        QueueDdpg(**SMALL).allocate(sampled(4))
    with pytest.raises(RuntimeError, match="call prepare first"):
        QueueDdpg(**SMALL).serve(queue_problem(4))

    class NoFrames:
        description = SOURCE.description
        sample = SOURCE.sample

    with pytest.raises(ConfigError, match="slots come in frames"):
        QueueDdpg(**SMALL).prepare(NoFrames(), Cache(tmp_path), QUIET)
    for keys, said in (
        ({"least_load": 11.0}, "least_load=11.0: must be <= most_load"),
        ({"buffer_slots": 3}, "buffer_slots=3: must be >= environments"),
        ({"gamma": 1.0}, "gamma=1.0: must be < 1"),
    ):
        with pytest.raises(ConfigError, match=said):
            validated(QueueDdpg, keys)


def test_a_policy_that_says_no_numbers_ends_the_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = QueueLearner.round

    def poisoned(self: QueueLearner) -> None:
        whole(self)
        *_, bias = self.actor.parameters()
        bias.data[0] = torch.nan

    monkeypatch.setattr(QueueLearner, "round", poisoned)
    with pytest.raises(TrainingDiverged, match="diverged"):
        QueueDdpg(**SMALL).prepare(SOURCE, Cache(tmp_path), QUIET)
    assert not list(tmp_path.glob("policy/*.pt"))


@pytest.mark.parametrize("name", AGENTS)
def test_held_out_episodes_are_in_networks_that_training_never_sees(name: str) -> None:
    keys = AGENTS[name](**SMALL)
    drawn = [
        QueueSimulator(source=SOURCE, users=5, count=1, networks=8, rules=keys.rules, held_out=held_out).networks.snr
        for held_out in (False, True)
    ]
    assert not np.isin(drawn[0], drawn[1]).any()


def test_files_say_what_the_classes_say() -> None:
    for name, agent in AGENTS.items():
        allocator = build(composed_node("allocator", name), "allocator")
        assert type(allocator) is agent and allocator == agent()
    assert queue_agents.VERSION >= 1
