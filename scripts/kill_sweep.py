"""Interrupt a small sweep at random moments, repeatedly, and check that no incomplete result counts as done.

    python -m scripts.kill_sweep --kills 200

SIGKILL, SIGTERM, SIGINT and SIGSTOP hit the command, its process group or one of its workers. Each time the same
command is started again, as a user would. When it finishes, a new sweep begins: with `--fresh`, or without outputs and
caches. After every signal the script checks that each run that counts as done is complete and equal to that of an
uninterrupted sweep, that no finished run was executed again, that the whole cache is valid, and that no process of the
sweep is left after ten seconds.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NoReturn

from hydra.core.plugins import Plugins

# Imported here, so that the forked processes need not import the modules.
import dtsim.allocation.learned.apg
import dtsim.allocation.learned.training
import dtsim.runner.experiment  # noqa: F401
from dtsim.cli.app import main as dtsim_main
from dtsim.core.cache import unpacked
from dtsim.results.folders import is_done
from scripts.small_sweep import SWEEP, content, write_images

JOBS = 4
TWO_PROCESSES = ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]


class Broken(Exception):
    """A violation of what the script checks."""


@dataclass(frozen=True)
class Blow:
    """A signal and the process of a sweep that it hits."""

    signal: signal.Signals
    target: Literal["command", "group", "worker"]

    def __str__(self) -> str:
        return f"{self.signal.name} on the {self.target}"


BLOWS = (
    Blow(signal.SIGKILL, "group"),
    Blow(signal.SIGKILL, "command"),
    Blow(signal.SIGTERM, "command"),
    Blow(signal.SIGINT, "group"),
    Blow(signal.SIGSTOP, "command"),
    Blow(signal.SIGKILL, "worker"),
    Blow(signal.SIGTERM, "worker"),
    Blow(signal.SIGSTOP, "worker"),
)


def run(arguments: list[str], log: Path, kill_when: Callable[[], bool], blow: Blow | None = None) -> int | None:
    """The exit code of a `dtsim` command whose output goes to `log`; None if it was killed before it ended.

    It is forked, in its own process group. `blow` is sent once, when `kill_when` returns True. A stopped worker is
    continued after a moment; a stopped command is killed.

    Raises:
        Broken: if a process of the group is alive after ten seconds, or a signal that should end the command does not.
    """
    log.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        _become(arguments, log)
    os.setpgid(pid, pid)  # also set here, in case the kill comes before the child has set it
    code, due, hit = None, blow, False
    while code is None:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            code = os.waitstatus_to_exitcode(status)
        elif due and kill_when():
            hit = _strike(due, pid)
            due = None
            patience = time.monotonic() + 60
        elif hit and blow and blow.target != "worker" and time.monotonic() > patience:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise Broken(f"{blow} did not end the command in a minute: {log.read_text()}")
        time.sleep(0.001)
    _check_nobody_is_left(pid, blow)
    return None if code == -signal.SIGKILL else code


def _strike(blow: Blow, pid: int) -> bool:
    """Send the signal; return whether there was a process to send it to."""
    hit = pid
    if blow.target == "worker":
        workers = [other for other in _group(pid) if other != pid and "loky" in _command_line(other)]
        if not workers:
            return False
        hit = random.Random(len(workers)).choice(workers)
    with suppress(ProcessLookupError):
        (os.killpg if blow.target == "group" else os.kill)(hit, blow.signal)
        if blow.signal == signal.SIGSTOP:
            time.sleep(0.5)
            os.kill(hit, signal.SIGCONT if blow.target == "worker" else signal.SIGKILL)
    return True


def _group(leader: int) -> list[int]:
    """Processes of a process group, without zombies."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == leader and state != "Z":
                found.append(int(stat.parent.name))
    return found


def _command_line(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return ""


def _check_nobody_is_left(leader: int, blow: Blow | None) -> None:
    until = time.monotonic() + 10
    while left := _group(leader):
        if time.monotonic() > until:
            said = ", ".join(f"{pid} ({_command_line(pid)[:80]})" for pid in left)
            os.killpg(leader, signal.SIGKILL)
            raise Broken(f"after {blow}, processes are left: {said}")
        time.sleep(0.05)


def _become(arguments: list[str], log: Path) -> NoReturn:
    code = 1
    try:
        os.setpgid(0, 0)
        with log.open("wb", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        sys.argv = ["dtsim", *arguments]
        dtsim_main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    finally:
        os._exit(code)


def finished(outputs: Path) -> dict[Path, tuple[int, int]]:
    """Every run that counts as done, with marks that change when its result is written again."""
    folders = [mark.parent for mark in outputs.rglob("result.json") if not mark.parent.name.startswith(".")]
    stats = {folder: (folder / "result.json").stat() for folder in folders if is_done(folder)}
    return {folder.relative_to(outputs): (stat.st_ino, stat.st_mtime_ns) for folder, stat in stats.items()}


class Seen:
    """The sweep's folders and their last seen state."""

    def __init__(self, work: Path) -> None:
        self.outputs, self.cache = work / "outputs", work / "cache"
        self.reference: dict[Path, dict[str, str]] = {}
        self.done: dict[Path, tuple[int, int]] = {}

    def half_written(self) -> set[tuple[Path, int]]:
        """Results and cache entries that are incomplete."""
        found = [*self.outputs.glob("*/*/.*.new"), *self.outputs.glob("*/*/.*.old"), *self.cache.glob("*/.*")]
        with suppress(FileNotFoundError):  # it may be complete and renamed by now
            return {(path, path.stat().st_mtime_ns) for path in found}
        return set()

    def forget(self) -> None:
        """Remove all files of the sweep."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        self.done = {}

    def check(self, *, fresh: bool) -> int:
        """Check all results and the cache; return the number of finished runs.

        Raises:
            Broken: if a run is incomplete, differs from the uninterrupted one or was executed again, or the cache is
                damaged.
        """
        done = finished(self.outputs)
        for folder, mark in done.items():
            if self.done.get(folder) == mark:
                continue
            if folder in self.done and not fresh:
                raise Broken(f"{folder} was done again")
            try:
                equal = content(self.outputs / folder) == self.reference[folder]
            except (OSError, ValueError) as error:
                raise Broken(f"{folder} counts as done and is not complete: {error}") from error
            if not equal:
                raise Broken(f"{folder} differs from the result of an uninterrupted sweep")
        lost = self.done.keys() - done.keys()
        if lost and not fresh:  # while a run is redone, a kill may come after its old result is moved away
            raise Broken(f"finished runs are lost: {lost}")
        self.done = done
        for entry in self.cache.rglob("[!.]*.pt"):
            try:
                unpacked(entry.read_bytes())
            except ValueError as error:
                raise Broken(f"{entry} is in the cache and {error}") from error
        return len(done)


def kill(kills: int, seed: int, work: Path) -> None:
    """Send all signals, check after each, and print a summary.

    Raises:
        Broken: if a check fails.
    """
    rng, log, seen = random.Random(seed), work / "log", Seen(work)
    write_images(work / "images")
    Plugins.instance()
    sweep = [*SWEEP, f"dataset.root={work / 'images'}", f"outputs={seen.outputs}", f"cache={seen.cache}"]
    began = time.monotonic()
    if run(sweep, log, lambda: False) != 0:
        raise Broken("the sweep fails without any kill: " + log.read_text())
    whole_s = time.monotonic() - began
    seen.reference = {folder: content(seen.outputs / folder) for folder in finished(seen.outputs)}
    assert len(seen.reference) == JOBS
    seen.forget()
    struck: Counter[str] = Counter()
    ended = redone = in_writing = 0
    fresh = False
    while struck.total() < kills:
        blow, catch = rng.choice(BLOWS), rng.random() < 0.4
        several = blow.target == "worker" or rng.random() < 0.2
        end, before = time.monotonic() + rng.uniform(0, whole_s + 10 * several), seen.half_written()

        def now(
            end: float = end, before: set[tuple[Path, int]] = before, catch: bool = catch, blow: Blow = blow
        ) -> bool:
            due = time.monotonic() > end and (not catch or bool(seen.half_written() - before))
            if due:
                struck[str(blow)] += 1
            return due

        arguments = [*sweep, *(TWO_PROCESSES if several else []), *(["--fresh"] if fresh else [])]
        code = run(arguments, log, now, blow)
        in_writing += code is None and bool(seen.half_written() - before)
        done = seen.check(fresh=fresh)
        if code == 0:
            if done != JOBS:
                raise Broken(f"a sweep ended with code 0 and {done} of {JOBS} done: {log.read_text()}")
            if left := [path for path in seen.outputs.rglob(".*") if path.suffix != ".lock"]:
                raise Broken(f"a sweep ended and left {left}")
            ended += 1
            fresh = rng.random() < 0.5
            redone += fresh
            if not fresh:
                seen.forget()
        elif code not in (None, 130, 143) and not (code == 1 and blow.target == "worker"):
            raise Broken(f"a sweep ended with code {code} after {blow}: {log.read_text()}")
        else:
            fresh = False
        print(f"{struck.total()} signals, last {blow}; {done} of {JOBS} done", flush=True)
    for what, count in sorted(struck.items()):
        print(f"{what}: {count}")
    print(
        f"nothing broken by {struck.total()} signals, {in_writing} of them during a write; "
        f"{ended} sweeps finished, {redone} of them were then started from scratch"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of signals (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random moments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-sweep-", ignore_cleanup_errors=True) as work:
        try:
            kill(given.kills, given.seed, Path(work))
        except Broken as error:
            sys.exit(f"broken: {error}")


if __name__ == "__main__":
    main()
