"""What answers P3: every allocator allocates, and some must be trained before they can."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from dtsim.allocation.problem import Allocation, AllocationProblem, ProblemSource
from dtsim.core.cache import Cache
from dtsim.core.progress import Progress
from dtsim.core.rows import Row


class Allocator(Protocol):
    """What a class named in conf/allocator must offer."""

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """An allocation that meets (6) and 0 <= D_up <= D, for every slot of the batch."""


@runtime_checkable
class TrainableAllocator(Allocator, Protocol):
    """An allocator that must learn, or load what was learned, before it allocates."""

    def prepare(self, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
        """Learn or load what `allocate` needs; returns rows of learning_curve.csv."""


def prepared(allocator: Allocator, source: ProblemSource, cache: Cache, progress: Progress) -> list[Row]:
    """Make `allocator` ready for slots like those of `source`; returns rows of learning_curve.csv.

    One without `prepare` is ready as it is, and has no rows.
    """
    if isinstance(allocator, TrainableAllocator):
        return allocator.prepare(source, cache, progress)
    return []
