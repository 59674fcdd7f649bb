"""Progress in a notebook: one place in the output of a cell, which is replaced as the work goes on."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dtsim.core.progress import Phase, Progress

_EVERY_S = 0.25


def in_notebook() -> bool:
    """Whether this process is the kernel of a Jupyter notebook."""
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and type(shell).__name__ == "ZMQInteractiveShell"


class Place:
    """A place in the output of a cell, of which only what was shown last is seen."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._last: tuple[str, float] | None = None

    def show(self, text: str, share: float) -> None:
        """Show a line and a bar that is full at a `share` of 1."""
        if (text, share) == self._last:
            return
        self._last = (text, share)
        from IPython.display import HTML, display  # only a notebook has it

        bar = f'<progress value="{min(max(share, 0.0), 1.0):.3f}" style="width: 14rem"></progress>'
        shown: Any = HTML(f'<div style="font-family: monospace">{bar} {html.escape(text)}</div>')
        if self._handle is None:
            self._handle = display(shown, display_id=True)
        else:
            self._handle.update(shown)


class _Bar:
    def __init__(self, place: Place, name: str, total: float) -> None:
        self.place, self.name, self.total = place, name, total
        self.done, self.note, self.next_s = 0.0, "", 0.0

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        self.note = note or self.note
        if time.monotonic() >= self.next_s or self.done >= self.total:
            self.next_s = time.monotonic() + _EVERY_S
            said = f"{self.name}: {self.done:g} of {self.total:g}" + (f", {self.note}" if self.note else "")
            self.place.show(said, self.done / self.total if self.total else 1.0)


class NotebookProgress(Progress):
    """A bar for the phase that runs now, the inner one of two."""

    def __init__(self) -> None:
        self.place = Place()

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        self.place.show(f"{name}: started", 0.0)
        yield _Bar(self.place, name, total)
        self.place.show(f"{name}: done", 1.0)

    def say(self, message: str) -> None:
        """Print one line."""
        print(message)


def show_figures() -> None:
    """Let a notebook show matplotlib figures that pyplot did not make; elsewhere this does nothing."""
    if in_notebook():
        from IPython.core.pylabtools import select_figure_formats

        shell = sys.modules["IPython"].get_ipython()
        if "matplotlib.figure.Figure" not in shell.display_formatter.formatters["image/png"]:
            select_figure_formats(shell, {"png"})
