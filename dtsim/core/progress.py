"""Progress reports of long phases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Lock, Timer
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
    """Shows a phase once it has lasted `after_s`, whether it has advanced by then or not; short phases show no bar."""

    def __init__(self, shown: Progress, after_s: float = 1.0) -> None:
        self._shown, self._after_s = shown, after_s
        self._open: list[_DelayedPhase] = []
        self._lock = Lock()

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        with ExitStack() as stack:
            phase = _DelayedPhase(lambda: stack.enter_context(self._shown.phase(name, total)), self._lock)
            timer = Timer(self._after_s, self._show)
            timer.daemon = True
            with self._lock:
                self._open.append(phase)
            timer.start()
            try:
                yield phase
            finally:
                timer.cancel()
                with self._lock:
                    self._open.remove(phase)

    def _show(self) -> None:
        """Show what is open, the outermost phase first."""
        with self._lock:
            for phase in self._open:
                phase.show()

    def say(self, message: str) -> None:
        """Forward one line."""
        self._shown.say(message)


class _DelayedPhase:
    def __init__(self, begin: Callable[[], Phase], lock: Lock) -> None:
        self._begin, self._lock = begin, lock
        self._phase: Phase | None = None
        self._done = 0.0

    def show(self) -> None:
        if self._phase is None:
            self._phase = self._begin()
            self._phase.advance(self._done)

    def advance(self, steps: float = 1, note: str = "") -> None:
        with self._lock:
            self._done += steps
            if self._phase is not None:
                self._phase.advance(steps, note)


class _Silent:
    def advance(self, steps: float = 1, note: str = "") -> None:
        pass


def duration(seconds: float) -> str:
    """A length of time for people: "40 s", "12 min", "3 h 05 min", "12 days"."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    if minutes < 90:
        return f"{minutes} min"
    if minutes < 48 * 60:
        return f"{minutes // 60} h {minutes % 60:02} min"
    return f"{minutes / 1440:,.0f} days"


QUIET = Progress()
