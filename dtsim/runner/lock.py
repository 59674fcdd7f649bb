"""The lock of a run: one process at a time executes it, on whatever machine shares the results' folder.

Three files stand beside the folder of a run, since a finished run replaces the whole folder: `.NAME.lock`, the OS lock
of the process that executes the run; `.NAME.running.json`, its heartbeat; and `.NAME.log`, the log so far.

The lock is the operating system's (flock; NFS passes it on to its server). It ends with its process, however that
ends, so a stale lock never blocks. The heartbeat only informs people and tables; no decision depends on it.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from dtsim.core.progress import Phase, Progress

BEAT_S = 2.0
"""How often the heartbeat is written, s."""
SILENT_S = 60.0
"""A heartbeat older than this belongs to a process that is gone, s: more than machines' clocks differ by."""


class RunLocked(Exception):
    """Another process executes the run."""


@dataclass(frozen=True)
class Heartbeat:
    """Which process executes a run, and how far it got."""

    host: str
    pid: int
    started_s: float
    """When, in seconds since 1970."""
    phase: str
    share: float
    """Of the phase, 0 to 1."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


def heartbeat_of(folder: Path) -> Heartbeat | None:
    """The process that executes the run of `folder` now; None where there is none."""
    path = _beside(folder, "running.json")
    try:
        found = Heartbeat(**json.loads(path.read_text()))
        silent_s = time.time() - path.stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    if silent_s > SILENT_S or (found.host == socket.gethostname() and not _lives(found.pid)):
        return None
    return found


def has_traces(folder: Path) -> bool:
    """Whether a process executes the run of `folder`, or was killed while it did."""
    return bool(_left(folder))


@contextmanager
def run_lock(folder: Path, *, on_wait: Callable[[str], None] | None = None) -> Iterator[RunLock]:
    """Hold the lock of the run of `folder`; with `on_wait`, which is told who holds it, wait for it if need be.

    Raises:
        RunLocked: where another process holds it and there is no `on_wait`.
        OSError: where its lock cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(_beside(folder, "lock"))
    waited = False
    try:
        held.acquire(timeout=0)
    except Timeout:
        who = f"{folder}: {heartbeat_of(folder) or 'another process'} executes it"
        if on_wait is None:
            raise RunLocked(who) from None
        on_wait(f"{who}: waiting for it")
        held.acquire(poll_interval=0.2)
        waited = True
    try:
        for path in _left(folder):  # by a process that was killed
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
        lock = RunLock(folder, waited=waited)
        with lock.beating():
            yield lock
    finally:
        held.release()


def _left(folder: Path) -> list[Path]:
    """What attempts at the run of `folder` left beside it: heartbeats, logs and unfinished results."""
    return [path for path in folder.parent.glob(f".{folder.name}.*") if path.suffix != ".lock"]


def wait_for(folder: Path) -> None:
    """Return once no process executes the run of `folder`."""
    with FileLock(_beside(folder, "lock"), poll_interval=0.2):
        pass


class RunLock:
    """The lock of a run, held by this process."""

    def __init__(self, folder: Path, *, waited: bool) -> None:
        self.waited = waited  # for another process, which may have done it
        self.log = _beside(folder, "log")
        self._path = _beside(folder, "running.json")
        self._started_s = time.time()
        self.phase = "set-up"
        self.share = 0.0

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Write the heartbeat until the block ends, whatever the process is busy with."""
        ended = threading.Event()

        def beat() -> None:
            while not ended.wait(BEAT_S):
                self._write()

        self._write()
        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            for path in (self._path, self.log):  # a log that is still here is of no finished or failed run
                with suppress(OSError):
                    path.unlink(missing_ok=True)

    def _write(self) -> None:
        now = Heartbeat(socket.gethostname(), os.getpid(), self._started_s, self.phase, round(self.share, 3))
        scratch = self._path.with_suffix(".new")
        with suppress(OSError):  # a run needs its disk; its heartbeat is a courtesy
            scratch.write_text(json.dumps(asdict(now)))
            scratch.replace(self._path)


class HeartbeatProgress(Progress):
    """Puts the phase into the heartbeat, and passes everything on to what shows it."""

    def __init__(self, shown: Progress, lock: RunLock) -> None:
        self._shown, self._lock = shown, lock

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        before = self._lock.phase, self._lock.share
        self._lock.phase, self._lock.share = name, 0.0
        with self._shown.phase(name, total) as shown:
            yield _HeartbeatPhase(shown, self._lock, total)
        self._lock.phase, self._lock.share = before  # not restored by an exception: it tells where it happened

    def say(self, message: str) -> None:
        """Pass on one line."""
        self._shown.say(message)


class _HeartbeatPhase:
    def __init__(self, shown: Phase, lock: RunLock, total: float) -> None:
        self._shown, self._lock, self._total = shown, lock, total
        self._done = 0.0

    def advance(self, steps: float = 1, note: str = "") -> None:
        self._done += steps
        self._lock.share = self._done / self._total if self._total else 0.0
        self._shown.advance(steps, note)


def _beside(folder: Path, what: str) -> Path:
    return folder.with_name(f".{folder.name}.{what}")


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
