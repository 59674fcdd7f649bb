"""CPU time of contenders that take turns, so that a busy machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from dtsim.core.progress import Progress


@dataclass
class Contender:
    """Something to be timed."""

    name: str
    steps: int
    """What one run of it is worth: environment steps, training samples or slots."""
    make: Callable[[], Callable[[], object]]
    """Set-up, which is not timed; returns what is."""
    cpu_s: list[float] = field(default_factory=list)
    """CPU seconds of each run."""

    @property
    def median_s(self) -> float:
        """Median CPU seconds of a step."""
        return median(self.cpu_s) / self.steps

    @property
    def rate(self) -> float:
        """Median steps per CPU second."""
        return 1 / self.median_s


def race(
    contenders: Sequence[Contender],
    repeats: int,
    progress: Progress,
    name: str,
    clock: Callable[[], float] = time.process_time,
) -> None:
    """Time every contender `repeats` times, in turns, after one turn that is not counted: it compiles and imports.

    `clock` reads CPU seconds, or others where the work is not the CPU's.
    """
    with progress.phase(name, (repeats + 1) * len(contenders)) as phase:
        for turn in range(repeats + 1):
            for contender in contenders:
                run = contender.make()
                start_s = clock()
                run()
                if turn:
                    contender.cpu_s.append(clock() - start_s)
                phase.advance(1, contender.name)
