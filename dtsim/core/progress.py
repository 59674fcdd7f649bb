"""What a long phase tells the person who waits for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol


class Phase(Protocol):
    """A phase under way."""

    def advance(self, steps: float = 1, note: str = "") -> None:
        """Count `steps` as done; `note` is shown beside the bar (a loss, a gap)."""


class Progress:
    """Shows nothing; the base of those that do."""

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        yield _Silent()

    def say(self, message: str) -> None:
        """Tell the person one line, whatever the phase."""


class _Silent:
    def advance(self, steps: float = 1, note: str = "") -> None:
        pass


QUIET = Progress()
