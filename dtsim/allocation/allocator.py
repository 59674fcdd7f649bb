"""The interface of allocators, which solve P3. Some of them must be trained first."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from pydantic import Field

from dtsim.allocation.problem import Allocation, AllocationProblem, ProblemSource
from dtsim.core.cache import Cache
from dtsim.core.parts import part
from dtsim.core.progress import Progress
from dtsim.core.rows import Row


class Allocator(Protocol):
    """The interface of a class in conf/allocator."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """Return an allocation that meets (6) and least_upload <= D_up <= D, for every slot of the batch."""


@part
class AllocatorKeys:
    """Keys that all allocators share; one of a user's own may leave them out, or inherit them."""

    min_upload: float = Field(default=0.0, ge=0, le=1)
    """Share of its images that an MU uploads at least while its model is retrained, rounded up to whole images; without
    it, such an MU often uploads none, and its next update has no real data of its own."""


@runtime_checkable
class TrainableAllocator(Allocator, Protocol):
    """An allocator that must be trained, or load a trained policy, before it allocates."""

    def prepare(self, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
        """Train or load what `allocate` needs; returns rows of learning_curve.csv."""


@runtime_checkable
class SizedAllocator(Allocator, Protocol):
    """An allocator that may serve some numbers of MUs and BSs only."""

    def check_fits(self, *, users: int, stations: int) -> None:
        """Raise ConfigError if it cannot serve this number of MUs and BSs."""


def prepared(allocator: Allocator, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
    """Prepare `allocator` for slots like those of `source`; returns rows of learning_curve.csv.

    An allocator without `prepare` needs no preparation and gives no rows.
    """
    if isinstance(allocator, TrainableAllocator):
        return allocator.prepare(source, cache, progress)
    return []
