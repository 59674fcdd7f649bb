"""The number of images that each user captures, slot by slot, from a list."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from dtsim.core.parts import part
from dtsim.physical.traces.columns import place_of, read_columns


@part
class TraceTraffic:
    """Images from a CSV or Parquet file with a row for each slot and user."""

    path: str
    """CSV or Parquet file [path] with columns slot, user, images: whole numbers, every user in every slot."""

    def __post_init__(self) -> None:
        try:
            _ = self._images
        except ValueError as error:
            raise ValueError(f"path={error}") from None

    @cached_property
    def _images(self) -> np.ndarray:
        """[T, K] int64."""
        table = read_columns(self.path, (("slot", "user", "images"),))
        for name, most in (("slot", 10**7), ("user", 10**6), ("images", 10**6)):
            wrong = np.flatnonzero((table[name] < 0) | (table[name] > most) | (table[name] % 1 != 0))
            if len(wrong):
                value = table[name].iloc[wrong[0]]
                raise ValueError(
                    f"{place_of(self.path, table, wrong[0])}: {name}={value:g}: must be a whole number, 0 to {most:,}"
                )
        slot, user, images = (table[name].to_numpy().astype(np.int64) for name in ("slot", "user", "images"))
        twice = np.flatnonzero(table.duplicated(["slot", "user"]).to_numpy())
        if len(twice):
            at = twice[0]
            raise ValueError(f"{place_of(self.path, table, at)}: slot={slot[at]}, user={user[at]} is given already")
        slots, users = int(slot.max()) + 1, int(user.max()) + 1
        if slots * users != len(table):
            there = np.zeros((slots, users), dtype=bool)
            there[slot, user] = True
            missing = np.argwhere(~there)[0]
            raise ValueError(f"{self.path}: slot={missing[0]}, user={missing[1]} is missing")
        counts = np.zeros((slots, users), dtype=np.int64)
        counts[slot, user] = images
        return counts

    @property
    def mean_images(self) -> float:
        """Mean of all counts."""
        return float(self._images.mean())

    @property
    def max_images(self) -> int:
        """Largest of all counts."""
        return int(self._images.max())

    def draw(self, shape: tuple[int, ...], rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Counts drawn from all of the file's, each equally likely, int64 of `shape`: what the twin expects."""
        counts = torch.from_numpy(self._images.ravel()).to(device)
        return counts[torch.randint(len(counts), shape, generator=rng, device=device)]

    def scheduled(self, slot: int, users: int) -> np.ndarray:
        """Images of the first `users` users in `slot`; int64 [users]."""
        return self._images[slot, :users]

    def check_fits(self, *, users: int, slots: int) -> None:
        """Check that the file has every user and slot of a run.

        Raises:
            ValueError: in one line.
        """
        has_slots, has_users = self._images.shape
        if users > has_users or slots > has_slots:
            raise ValueError(
                f"path={self.path}: has {has_slots} slots × {has_users} users, the run needs {slots} × {users}"
            )
