"""CPU time of contenders that take turns, so that other load on the machine slows all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median

from dtsim.core.progress import Progress


@dataclass
class Contender:
    """Something to time."""

    name: str
    steps: int
    """Amount of work in one run: environment steps, training samples or slots."""
    make: Callable[[], Callable[[], object]]
    """Does the set-up, which is not timed; returns the function to time."""
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
    """Time every contender `repeats` times, in turns, after one untimed turn that compiles and imports.

    `clock` returns CPU seconds, or wall seconds if the work is not done by the CPU.
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
