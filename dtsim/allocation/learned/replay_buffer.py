"""A replay buffer of slots with different numbers of MUs."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tianshou.data import Batch
from torch import Tensor

from dtsim.allocation.learned.learner import State
from dtsim.core.checked import checked


class SlotReplay:
    """The last `rounds` rounds of slots, in a ring. The slots of a round have equally many MUs, at most `rows` in all.

    Its own random generator draws batches of slots that have equally many MUs, so a batch is a plain array.
    """

    def __init__(self, rounds: int, rows: int, rng: torch.Generator) -> None:
        self.rounds, self.rows, self.rng = rounds, rows, rng
        self.next = self.count = 0
        self.users = torch.zeros(rounds, dtype=torch.int64)
        self.slots = torch.zeros(rounds, dtype=torch.int64)
        self.rewards = torch.zeros(rounds, rows)
        self.kept: dict[str, Tensor] = {}

    def add(self, by_user: dict[str, Tensor], reward: Tensor) -> None:
        """Add a round in place of the oldest: `reward` [n] of its slots and tensors [n, K, ...] of their MUs."""
        place = self.next
        for name, values in by_user.items():
            if name not in self.kept:
                self.kept[name] = values.new_zeros(self.rounds, self.rows, *values.shape[2:])
            self.slots[place], self.users[place] = values.shape[:2]
            self.kept[name][place, : values.shape[0] * values.shape[1]] = values.flatten(0, 1)
        self.rewards[place, : len(reward)] = reward
        self.next = (place + 1) % self.rounds
        self.count = min(self.rounds, self.count + 1)

    def sample(self, rows: int) -> tuple[Batch, Tensor]:
        """A batch for Tianshou of about `rows` MUs, and the places of its slots among those of the same K.

        One of the rounds determines K, and the batch is drawn, with replacement, from all slots of that K.
        """
        users = int(self.users[torch.randint(self.count, (), generator=self.rng)])
        slots = max(1, round(rows / users))
        (same,) = torch.nonzero(self.users[: self.count] == users, as_tuple=True)
        each = int(self.slots[same[0]])  # slots of a round
        places = torch.randint(len(same) * each, (slots,), generator=self.rng)
        round_, slot = same[places // each], places % each
        first = (round_ * self.rows + slot * users).unsqueeze(-1)
        row = (first + torch.arange(users)).flatten()
        by_user = {name: values.flatten(0, 1)[row].unflatten(0, (slots, users)) for name, values in self.kept.items()}
        return Batch(by_user | {"rew": self.rewards[round_, slot]}), places

    def state_dict(self) -> State:
        """The whole state of the buffer."""
        return {
            "next": self.next,
            "count": self.count,
            "users": self.users.clone(),
            "slots": self.slots.clone(),
            "rewards": self.rewards[: self.count].clone(),
            "kept": {name: values[: self.count].clone() for name, values in self.kept.items()},
            "generator": self.rng.get_state(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the state that `state_dict` returned."""
        self.next, self.count = (checked(state[name], int, name) for name in ("next", "count"))
        self.users, self.slots = (checked(state[name], Tensor, name).clone() for name in ("users", "slots"))
        self.rewards[: self.count] = checked(state["rewards"], Tensor, "rewards")
        self.kept = {}
        for name, values in checked(state["kept"], dict, "kept").items():
            self.kept[name] = values.new_zeros(self.rounds, *values.shape[1:])
            self.kept[name][: self.count] = values
        self.rng.set_state(checked(state["generator"], Tensor, "generator"))
