"""The log of a run: phases, messages, warnings and versions, with times, in a file of its folder."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dtsim.core.progress import Phase, Progress


@contextmanager
def run_log(path: Path) -> Iterator[logging.Logger]:
    """A logger that writes to `path` until the block ends; it also receives Python's warnings.

    If the disk cannot hold the log, its lines are lost, but the run does not fail.
    """
    logger = logging.Logger("dtsim.run", level=logging.INFO)  # not registered: each job of a worker has its own
    handler: logging.Handler = logging.NullHandler()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handler = _Quiet(path, mode="w", encoding="utf-8")
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logger.addHandler(handler)
    shown = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: object = None,
        line: str | None = None,
    ) -> None:
        logger.warning("%s: %s (%s:%d)", category.__name__, message, Path(filename).name, lineno)

    warnings.showwarning = show
    try:
        yield logger
    finally:
        warnings.showwarning = shown
        handler.close()


class _Quiet(logging.FileHandler):
    """Drops lines that cannot be written; logging would print a traceback."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Do nothing."""


class LoggedProgress(Progress):
    """Writes phases and messages to a log and forwards them."""

    def __init__(self, shown: Progress, logger: logging.Logger) -> None:
        self._shown, self._logger = shown, logger

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        """Open a phase of `total` steps."""
        start = time.monotonic()
        self._logger.info("%s: started, %g steps", name, total)
        with self._shown.phase(name, total) as phase:
            yield phase
        self._logger.info("%s: done in %.1f s", name, time.monotonic() - start)

    def say(self, message: str) -> None:
        """Log and forward one line."""
        self._logger.info("%s", message)
        self._shown.say(message)
