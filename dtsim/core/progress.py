"""Progress reports of long phases."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Protocol


class Phase(Protocol):
    """A running phase."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Add `steps` to the progress; `note` is shown beside the bar (a loss, a gap)."""


class Progress:
    """Shows nothing; the base class of visible progress."""

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        yield _Silent()

    def say(self, message: str) -> None:
        """Print one line, in any phase."""


class Delayed(Progress):
    """Shows a phase only after it has lasted `after_s`, so that short phases show no bar."""

    def __init__(self, shown: Progress, after_s: float = 1.0) -> None:
        self._shown, self._after_s = shown, after_s

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        with ExitStack() as stack:
            yield _DelayedPhase(lambda: stack.enter_context(self._shown.phase(name, total)), self._after_s)

    def say(self, message: str) -> None:
        """Forward one line."""
        self._shown.say(message)


class _DelayedPhase:
    def __init__(self, begin: Callable[[], Phase], after_s: float) -> None:
        self._begin, self._due = begin, time.monotonic() + after_s
        self._phase: Phase | None = None
        self._done = 0.0

    def advance(self, steps: float = 1, note: str = "") -> None:
        self._done += steps
        if self._phase is not None:
            self._phase.advance(steps, note)
        elif time.monotonic() >= self._due:
            self._phase = self._begin()
            self._phase.advance(self._done, note)


class _Silent:
    def advance(self, steps: float = 1, note: str = "") -> None:
        pass


QUIET = Progress()
