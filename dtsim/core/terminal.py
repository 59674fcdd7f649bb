"""Progress for people: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from dtsim.core.progress import Phase, Progress

_LINE_EVERY_S = 15.0


class _Bar:
    def __init__(self, bars: Bars, task: int) -> None:
        self.bars, self.task = bars, task

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.bars.update(self.task, advance=steps, **({"note": note} if note else {}))  # type: ignore[arg-type]


class TerminalProgress(Progress):
    """A Rich bar for each phase."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps; a nested phase gets a bar below."""
        outermost = self._bars is None
        if self._bars is None:  # a terminal can have only one live display
            self._bars = Bars(
                TextColumn("{task.description:<20}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
            )
            self._bars.start()
        try:
            yield _Bar(self._bars, self._bars.add_task(name, total=total, note=""))
        finally:
            if outermost:
                self._bars.stop()
                self._bars = None

    def say(self, message: str) -> None:
        """Print one line."""
        self.console.print(message, highlight=False, soft_wrap=True, markup=False)


class _Lines:
    def __init__(self, say: LineProgress, name: str, total: float) -> None:
        self.say, self.name, self.total = say, name, total
        self.done, self.next_line = 0.0, time.monotonic() + _LINE_EVERY_S

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        if time.monotonic() >= self.next_line:
            self.say.say(f"{self.name}: {self.done:g} of {self.total:g}" + (f", {note}" if note else ""))
            self.next_line = time.monotonic() + _LINE_EVERY_S


class LineProgress(Progress):
    """Lines at the start, at intervals and at the end of a phase. For logs, and for jobs that share a terminal."""

    def __init__(self, name: str = "") -> None:
        self.name = name

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        start = time.monotonic()
        self.say(f"{name}: started")
        yield _Lines(self, name, total)
        self.say(f"{name}: done in {time.monotonic() - start:.1f} s")

    def say(self, message: str) -> None:
        """Print one line."""
        print(f"{self.name}: {message}" if self.name else message, file=sys.stderr, flush=True)
