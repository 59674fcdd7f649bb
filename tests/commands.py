"""`dtsim` command lines in processes of their own, forked from one that has imported what takes seconds.

`tests/test_cli.py` and `tests/test_wheel.py` start the program itself, too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from multiprocessing.context import ForkServerProcess
from pathlib import Path

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["pytest", "tests.preloaded"])


class Command:
    """A command line that is being executed; the names are those of `subprocess.Popen`."""

    def __init__(
        self,
        *arguments: object,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        start_new_session: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._files = [Path(self._folder.name) / name for name in ("out", "err")]
        for file in self._files:
            file.touch()
        words = [str(argument) for argument in arguments]
        environment = dict(os.environ if env is None else env)
        self._process: ForkServerProcess = _FORKS.Process(
            target=_execute, args=(words, environment, cwd or Path.cwd(), start_new_session, *self._files)
        )
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        """Exit code, or the negative number of the signal that ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """The exit code.

        Raises:
            TimeoutError: where the command has not ended after so many seconds; it is killed.
        """
        self._process.join(timeout)
        if self._process.exitcode is None:
            self._process.kill()
            raise TimeoutError(f"not ended after {timeout} s: {self._texts()}")
        return self._process.exitcode

    def communicate(self, timeout: float = 120.0) -> tuple[str, str]:
        """What it printed on its two streams until its end."""
        self.wait(timeout)
        out, err = self._texts()
        return out, err

    def lines(self, timeout: float = 120.0) -> Iterator[str]:
        """Lines of its standard error as they come, until it ends."""
        until = time.monotonic() + timeout
        with self._files[1].open() as file:
            text = ""
            while time.monotonic() < until:
                ended = self._process.exitcode is not None
                text += file.read()
                whole, newline, text = text.rpartition("\n")
                yield from (whole + newline).splitlines(keepends=True)
                if ended:
                    return
                time.sleep(0.01)

    def _texts(self) -> list[str]:
        return [file.read_text() for file in self._files]


def dtsim(
    *arguments: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """How `dtsim` with these arguments ended, and what it printed."""
    process = Command(*arguments, env=env, cwd=cwd)
    out, err = process.communicate()
    return subprocess.CompletedProcess([*map(str, arguments)], process.wait(0), out, err)


def _execute(
    arguments: list[str], environment: dict[str, str], folder: Path, new_session: bool, out: Path, err: Path
) -> None:
    """In the new process: become the command."""
    if new_session:
        os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:0] = ["", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    for stream, path in ((1, out), (2, err)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", buffering=1, closefd=False) for stream in (1, 2))
    sys.argv = ["dtsim", *arguments]
    from dtsim.cli.app import main

    try:
        main()
    finally:
        # As a program ends: joblib's workers are told, before multiprocessing waits for them.
        threading._shutdown()  # type: ignore[attr-defined]
