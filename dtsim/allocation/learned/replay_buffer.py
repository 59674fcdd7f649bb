"""A replay buffer of tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from tianshou.data import Batch
from torch import Tensor

from dtsim.allocation.learned.learner import State
from dtsim.core.checked import checked


class SlotReplay:
    """A ring buffer of the last `size` slots; its own random generator samples uniformly with replacement."""

    def __init__(self, size: int, rng: torch.Generator) -> None:
        self.size, self.rng = size, rng
        self.next = self.count = 0
        self.kept: dict[str, Tensor] = {}

    def add(self, slots: dict[str, Tensor]) -> None:
        """Add `slots`, tensors [n, ...] with n <= size, in place of the oldest."""
        for name, values in slots.items():
            if name not in self.kept:
                self.kept[name] = values.new_zeros(self.size, *values.shape[1:])
        count = len(next(iter(slots.values())))
        places = (self.next + torch.arange(count)) % self.size
        for name, values in slots.items():
            self.kept[name][places] = values
        self.next = (self.next + count) % self.size
        self.count = min(self.size, self.count + count)

    def sample(self, count: int) -> tuple[Batch, Tensor]:
        """`count` slots as Tianshou's batch, and their indices."""
        places = torch.randint(self.count, (count,), generator=self.rng)
        return Batch({name: values[places] for name, values in self.kept.items()}), places

    def state_dict(self) -> State:
        """The whole state of the buffer."""
        filled = {name: values[: self.count].clone() for name, values in self.kept.items()}
        return {"next": self.next, "count": self.count, "kept": filled, "generator": self.rng.get_state()}

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the state that `state_dict` returned."""
        self.next, self.count = (checked(state[name], int, name) for name in ("next", "count"))
        self.kept = {}
        for name, values in checked(state["kept"], dict, "kept").items():
            self.kept[name] = values.new_zeros(self.size, *values.shape[1:])
            self.kept[name][: self.count] = values
        self.rng.set_state(checked(state["generator"], Tensor, "generator"))
