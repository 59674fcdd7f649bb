"""The right to do a run: one process at a time has it, on whatever machine shares the results' folder.

Beside the folder of a run stand `.NAME.lock`, held by the process that does the run, and `.NAME.running.json`, which
tells everybody who that is and how far it got. They stand beside it since a finished run replaces its whole folder.

The lock is the operating system's (flock, which NFS passes on to its server): it ends with the process that holds it,
however that ends, so nothing stale ever blocks. The note is only for people and for tables; nobody decides by it.
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
"""How often the note is written anew, s."""
SILENT_S = 60.0
"""A note older than this is that of a process that is gone, s: more than machines' clocks differ by."""


class RunLocked(Exception):
    """Another process is doing the run."""


@dataclass(frozen=True)
class Heartbeat:
    """Who does a run, and how far it got."""

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
    """Who does the run of `folder` now; none where nobody does."""
    path = _beside(folder, "running.json")
    try:
        note = Heartbeat(**json.loads(path.read_text()))
        silent_s = time.time() - path.stat().st_mtime
    except (OSError, ValueError, TypeError):
        return None
    if silent_s > SILENT_S or (note.host == socket.gethostname() and not _lives(note.pid)):
        return None
    return note


def has_traces(folder: Path) -> bool:
    """Whether a process does the run of `folder`, or was killed while it did."""
    return bool(_left(folder))


@contextmanager
def run_lock(folder: Path, *, on_wait: Callable[[str], None] | None = None) -> Iterator[RunLock]:
    """Have the run of `folder` to oneself; with `on_wait`, which is told who has it, wait for it if need be.

    Raises:
        RunLocked: where another process has it and there is no `on_wait`.
        OSError: where its lock cannot be made.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(_beside(folder, "lock"))
    waited = False
    try:
        held.acquire(timeout=0)
    except Timeout:
        who = f"{folder}: {heartbeat_of(folder) or 'another process'} is doing it"
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
    """What attempts at the run of `folder` have beside it: notes, and results on their way."""
    return [path for path in folder.parent.glob(f".{folder.name}.*") if path.suffix != ".lock"]


def wait_for(folder: Path) -> None:
    """Return once no process does the run of `folder`."""
    with FileLock(_beside(folder, "lock"), poll_interval=0.2):
        pass


class RunLock:
    """A run that this process has to itself."""

    def __init__(self, folder: Path, *, waited: bool) -> None:
        self.waited = waited  # for another process, which may have done it
        self._path = _beside(folder, "running.json")
        self._started_s = time.time()
        self.phase = "set-up"
        self.share = 0.0

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Keep the note fresh meanwhile, whatever the process is busy with."""
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
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _write(self) -> None:
        note = Heartbeat(socket.gethostname(), os.getpid(), self._started_s, self.phase, round(self.share, 3))
        scratch = self._path.with_suffix(".new")
        with suppress(OSError):  # a run needs its disk; its note is a courtesy
            scratch.write_text(json.dumps(asdict(note)))
            scratch.replace(self._path)


class HeartbeatProgress(Progress):
    """Notes the phase in a lock, and passes everything on to what shows it."""

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
