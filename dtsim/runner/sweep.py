"""Progress of a sweep, read from its folders: all jobs leave the same files, whatever process executes them."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from rich.console import Console, Group
from rich.live import Live
from rich.table import Column, Table
from rich.text import Text

from dtsim.core.notebook import Place, in_notebook
from dtsim.core.progress import duration
from dtsim.reporting import run_table
from dtsim.results.folders import is_done, why_failed
from dtsim.results.names import FAILED, RESULT
from dtsim.runner.config import Config
from dtsim.runner.lock import Heartbeat, heartbeat_of

State = Literal["skipped", "done", "running", "failed", "waiting"]
STATES: tuple[State, ...] = ("skipped", "done", "running", "failed", "waiting")
"""Done before this sweep; done in it; executed now, here or by another sweep; failed in it; not started."""

_LOOK_EVERY_S = 1.0
_MOST_RUNNING = 12  # largest number of running jobs in the table


class Sweep:
    """The jobs of a sweep, without duplicates, and their states."""

    def __init__(self, configs: Sequence[Config]) -> None:
        self.configs = {config.folder: config for config in configs}
        self._marks = {folder: _marks(folder) for folder in self.configs}
        skipped = {folder for folder, c in self.configs.items() if is_done(folder) and not c.fresh}
        self.states: dict[Path, State] = {f: "skipped" if f in skipped else "waiting" for f in self.configs}
        self.heartbeats: dict[Path, Heartbeat] = {}
        self._seconds = {folder: _seconds(folder) for folder in skipped}
        self._lock = threading.Lock()

    def look(self) -> None:
        """Read the folders."""
        with self._lock:
            for folder, state in self.states.items():
                if state not in ("skipped", "done"):
                    self.states[folder] = self._state(folder)
            self.heartbeats = {f: now for f in self.of("running") if (now := heartbeat_of(f))}

    def of(self, state: State) -> list[Path]:
        """The folders with that state."""
        return [folder for folder, now in self.states.items() if now == state]

    def undone(self) -> list[Path]:
        """The folders of jobs that are neither done nor failed."""
        return [folder for folder, now in self.states.items() if now in ("waiting", "running")]

    def _state(self, folder: Path) -> State:
        marks, before = _marks(folder), self._marks[folder]  # an earlier result is damaged or is to be redone
        if heartbeat_of(folder):
            return "running"
        if marks[FAILED]:  # an earlier failure is to be redone
            return "failed" if marks[FAILED] != before[FAILED] else "waiting"
        redone = marks[RESULT] != before[RESULT] or before[FAILED] is not None
        if marks[RESULT] and redone:
            self._seconds[folder] = _seconds(folder)
            return "done"
        return "waiting"

    def seconds_left(self) -> float | None:
        """Time until all jobs are done if as many run in parallel as now; None without an estimate.

        A job's expected time is the average over jobs with its scheme and number of MUs, else over jobs with its
        scheme, else over all jobs, scaled by the number of MUs.
        """
        known = self._known()
        if not known:
            return None
        now, left = time.time(), 0.0
        for folder in (*self.of("running"), *self.of("waiting")):
            expected = _expected(self.configs[folder], known)
            spent = now - self.heartbeats[folder].started_s if folder in self.heartbeats else 0.0
            left += max(expected - spent, 0.0)
        return left / max(1, len(self.of("running")))

    def _known(self) -> list[tuple[Config, float]]:
        return [(self.configs[folder], seconds) for folder, seconds in self._seconds.items() if seconds]

    def time_left(self) -> str:
        """The remaining time in words, with its assumption; empty if nothing remains or there is no estimate."""
        left = self.seconds_left() if self.undone() else None
        if left is None:
            return ""
        seen = {config.scheme["name"] for config, _ in self._known()}
        unseen = {str(self.configs[folder].scheme["name"]) for folder in self.undone()} - seen
        return f"about {duration(left)} left" + f" if {', '.join(sorted(unseen))} took as long" * bool(unseen)

    def line(self) -> str:
        """The state of the sweep, in one line."""
        counts = Counter(self.states.values())
        finished = counts["done"] + counts["skipped"]
        before = f" ({counts['skipped']} before)" if counts["skipped"] else ""
        parts = [f"{finished} of {len(self.states)} done{before}"]
        parts += [f"{counts[state]} {state}" for state in ("running", "failed", "waiting") if counts[state]]
        return ", ".join(filter(None, [*parts, self.time_left()]))

    def table(self) -> Group:
        """The state of the sweep by scheme, and the running jobs."""
        by_scheme: dict[str, Counter[State]] = {}
        for folder, state in self.states.items():
            by_scheme.setdefault(str(self.configs[folder].scheme["name"]), Counter())[state] += 1
        shown = Table(Column("scheme", footer="all"), show_footer=True)
        for state in STATES:
            shown.add_column(state, str(len(self.of(state))), justify="right")
        for scheme, counts in by_scheme.items():
            shown.add_row(Text(scheme), *(str(counts[state] or "·") for state in STATES))
        running = Table(box=None, show_header=False)
        for folder, beat in list(self.heartbeats.items())[:_MOST_RUNNING]:
            spent = duration(time.time() - beat.started_s)
            name = f"{folder.parent.parent.name} {folder.parent.name} {folder.name}"
            cells = name, f"{beat.phase} {beat.share:.0%}", spent, f"{beat.host}:{beat.pid}"
            running.add_row(*map(Text, cells))  # Text, since Rich would interpret brackets in names
        return Group(shown, running, Text(self.time_left()))

    @contextmanager
    def followed(self, console: Console) -> Iterator[None]:
        """Show the state until the block ends: a live table on a terminal, elsewhere a line at each change.

        In a notebook the line stays in its place.
        """
        ended = threading.Event()
        place = Place() if in_notebook() else None
        live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        counts: Counter[State] = Counter()

        def show() -> None:
            nonlocal counts
            self.look()
            now = Counter(state for state in self.states.values() if state not in ("running", "waiting"))
            if live:
                live.update(self.table(), refresh=True)
            elif place:
                place.show(self.line(), 1 - len(self.undone()) / len(self.states))
            elif now != counts:
                console.print(f"sweep: {self.line()}", highlight=False, soft_wrap=True, markup=False)
            counts = now

        def watch() -> None:
            while not ended.wait(_LOOK_EVERY_S):
                show()

        counts = Counter({"skipped": -1})  # so that the first state is shown
        thread = threading.Thread(target=watch, daemon=True)
        with live or nullcontext():
            show()
            thread.start()
            try:
                yield
            finally:
                ended.set()
                thread.join()
                show()

    def show_end(self, why: Mapping[Path, str], *, with_results: bool = True) -> bool:
        """Print the results and a table of the unfinished jobs with reasons; return whether all are done.

        Not `with_results`, all goes to standard error, and in a notebook only what is not done is printed.
        """
        console = Console(stderr=not with_results)
        if not console.is_terminal:
            console = Console(width=150, stderr=not with_results)  # a log file has no width
        self.look()
        undone = [folder for folder, state in self.states.items() if state not in ("skipped", "done")]
        finished = [folder for folder in self.states if folder not in undone]
        if finished and with_results:
            run_table.show(finished)
        if undone:
            shown = Table("scheme", "MUs", "seed", "not done, and why", show_lines=True)
            for folder in undone:
                config = self.configs[folder]
                said = why_failed(folder) if self.states[folder] == "failed" else ""
                reason = said or why.get(folder) or "no result: its process was killed, or it writes to another disk"
                where = f"\n{folder / FAILED}" if (folder / FAILED).is_file() else ""
                run = Text(str(config.scheme["name"])), str(config.mu), str(config.seed)
                shown.add_row(*run, Text(reason + where, overflow="fold"))
            console.print(shown)
        if not in_notebook():
            console.print(f"sweep: {self.line()}", highlight=False, soft_wrap=True, markup=False)
        return not undone


def _marks(folder: Path) -> dict[str, tuple[int, int] | None]:
    """Modification marks of a folder's result and failure, which change when they are written again."""
    marks: dict[str, tuple[int, int] | None] = {}
    for name in (RESULT, FAILED):
        try:
            stat = (folder / name).stat()
            marks[name] = stat.st_ino, stat.st_mtime_ns
        except OSError:
            marks[name] = None
    return marks


def _seconds(folder: Path) -> float:
    """Wall time of a finished run in s; 0 if unknown."""
    try:
        return float(sum(json.loads((folder / RESULT).read_text())["wall_times_s"].values()))
    except (OSError, ValueError, KeyError):
        return 0.0  # being redone, or written by another version


def _expected(config: Config, known: Sequence[tuple[Config, float]]) -> float:
    of_scheme = [(c, seconds) for c, seconds in known if c.scheme["name"] == config.scheme["name"]]
    of_both = [(c, seconds) for c, seconds in of_scheme if c.mu == config.mu]
    alike = of_both or of_scheme or known
    return sum(seconds * config.mu / c.mu for c, seconds in alike) / len(alike)
