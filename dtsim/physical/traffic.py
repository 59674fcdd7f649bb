"""Number of images that each user captures in a slot."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import part


class Traffic(Protocol):
    """The interface of a class in conf/traffic."""

    @property
    def mean_images(self) -> float:
        """Expected images per user and slot, for the twin's forecast."""

    def draw(self, shape: tuple[int, ...], rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Images captured in one slot, int64 of `shape` = batch dimensions + (K,)."""


@runtime_checkable
class ScheduledTraffic(Protocol):
    """Traffic that is known slot by slot; `draw` then says what the twin expects."""

    def scheduled(self, slot: int, users: int) -> np.ndarray:
        """Images that each of `users` users captures in `slot`; int64 [users]."""


@part
class UniformTraffic:
    """A whole number of images, uniform between two bounds, independent over users and slots."""

    min_images: int = Field(default=10, ge=0, le=1_000_000)
    """Fewest images that a user captures in a slot."""
    max_images: int = Field(default=30, ge=1, le=1_000_000)
    """Most images that a user captures in a slot."""

    def __post_init__(self) -> None:
        if self.min_images > self.max_images:
            raise ValueError(f"min_images={self.min_images}: must be <= max_images={self.max_images}")

    @property
    def mean_images(self) -> float:
        """Expected images per user and slot."""
        return (self.min_images + self.max_images) / 2

    def draw(self, shape: tuple[int, ...], rng: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
        """Images captured in one slot, int64 of `shape`; both bounds are possible."""
        return torch.randint(self.min_images, self.max_images + 1, shape, generator=rng, device=device)
