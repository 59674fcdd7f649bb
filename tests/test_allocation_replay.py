"""The replay buffer of slots with different numbers of MUs."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from dtsim.allocation.learned.replay_buffer import SlotReplay


def a_round(number: int, slots: int, users: int) -> tuple[dict[str, Tensor], Tensor]:
    """A round in which every value tells its round, slot and MU."""
    slot = 100 * number + torch.arange(float(slots))
    user = 1000 * slot.unsqueeze(-1) + torch.arange(float(users))
    return {"obs": torch.stack([user, user], -1), "scores": user}, slot


def filled(rounds: list[tuple[int, int]], size: int = 4) -> SlotReplay:
    replay = SlotReplay(size, 12, torch.Generator().manual_seed(0))
    for number, (slots, users) in enumerate(rounds):
        replay.add(*a_round(number, slots, users))
    return replay


def test_a_batch_holds_whole_slots_with_their_rewards() -> None:
    replay = filled([(4, 3), (2, 6), (4, 3)])
    shapes = set()
    for _ in range(50):
        batch, places = replay.sample(12)
        shapes.add(tuple(batch.scores.shape))
        assert len(places) == len(batch.rew)
        assert torch.equal(batch.scores, 1000 * batch.rew.unsqueeze(-1) + torch.arange(float(batch.scores.shape[1])))
        assert torch.equal(batch.obs[..., 1], batch.scores)
    assert shapes == {(4, 3), (2, 6)}


def test_every_slot_of_the_last_rounds_is_drawn_and_no_older_one() -> None:
    replay = filled([(4, 3), (4, 3), (2, 6), (4, 3), (4, 3)], size=3)
    drawn = Counter(float(value) for _ in range(300) for value in replay.sample(12)[0].rew)
    assert set(drawn) == {200.0, 201.0, *(300.0 + slot for slot in range(4)), *(400.0 + slot for slot in range(4))}
    assert max(drawn.values()) < 2 * min(drawn.values())  # all alike, whatever their K


def test_a_restored_buffer_draws_the_same() -> None:
    replay = filled([(4, 3), (2, 6), (4, 3)])
    replay.sample(12)
    copy = SlotReplay(4, 12, torch.Generator())
    copy.load_state_dict(replay.state_dict())
    for other in (replay, copy):
        other.add(*a_round(9, 3, 4))
    for _ in range(10):
        assert torch.equal(replay.sample(12)[0].obs, copy.sample(12)[0].obs)
