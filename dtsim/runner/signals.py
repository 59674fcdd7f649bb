"""Termination of a run or sweep: on SIGTERM as on Ctrl-C, and of workers soon after the sweep's process has ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PARENT = "DTSIM_SWEEP_PROCESS"
"""Environment variable with the process id of the sweep's main process; its workers inherit it."""
_LOOK_EVERY_S = 1.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run like Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Convert SIGTERM into `Terminated` until the block ends; outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second SIGTERM must not interrupt the clean-up
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGTERM, before)


def announce_sweep() -> None:
    """Set this process as the sweep's main process for all workers started from now on."""
    os.environ[_PARENT] = str(os.getpid())


def end_with_sweep() -> None:
    """In a worker process of a sweep: exit within a second or two after the sweep's main process has ended.

    Killing a process does not end its children, and an idle worker would wait forever for its next job.
    """
    parent = os.environ.get(_PARENT)
    if parent != str(os.getppid()) or _watching.is_set():
        return
    _watching.set()
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


def begin_worker() -> None:
    """In a process that a sweep's main process has just started: as `end_with_sweep`, or exit if that has ended.

    A worker that only watches in its first job would stay if the main process ended before giving it one.
    """
    if os.environ.get(_PARENT) != str(os.getppid()):
        os._exit(1)
    end_with_sweep()


_watching = threading.Event()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)
