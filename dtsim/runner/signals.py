"""How the processes of a run or sweep end: on SIGTERM as on Ctrl-C, and soon after the process that began them."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_PARENT = "DTSIM_SWEEP_PROCESS"
"""Environment variable with the process that follows a sweep; its workers inherit it."""
_LOOK_EVERY_S = 1.0


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a run like Ctrl-C."""


@contextmanager
def terminable() -> Iterator[None]:
    """Turn SIGTERM into `Terminated` until the block ends; outside the main thread this does nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once is enough: clearing up must not be interrupted
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        with suppress(ValueError, TypeError):
            signal.signal(signal.SIGTERM, before)


def announce_sweep() -> None:
    """Tell processes that this one starts from now on whose workers they are."""
    os.environ[_PARENT] = str(os.getpid())


def end_with_sweep() -> None:
    """In a worker process of a sweep: end within a second or two once the sweep's process is gone.

    A killed process takes nothing with it, and an idle worker would wait for its next job for ever.
    """
    parent = os.environ.get(_PARENT)
    if parent != str(os.getppid()) or _watching.is_set():
        return
    _watching.set()
    threading.Thread(target=_watch, args=(int(parent),), daemon=True).start()


_watching = threading.Event()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_LOOK_EVERY_S)
    os._exit(1)
