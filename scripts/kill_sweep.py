"""Disturb a small sweep again and again, at random moments, and check that nothing half done passes for done.

    python -m scripts.kill_sweep --kills 200

SIGKILL, SIGTERM, SIGINT and SIGSTOP hit the command, its process group or one of its workers. The same command is
started again each time, as a person would. When it gets to its end, it is begun anew: with `--fresh`, or without
outputs and caches. After every signal: each run that counts as done is whole and equal to that of a sweep that nobody
disturbed, whatever was done before was not done again, all that the cache holds is sound, and within ten seconds no
process of the sweep is left.
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

# Here, so that the processes forked to be killed need not import and find them.
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
    """What must never be."""


@dataclass(frozen=True)
class Blow:
    """A signal, and which process of a sweep it hits."""

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
    """The exit code of a `dtsim` command whose output goes to `log`; None where it was killed before it ended.

    It is forked, in a process group of its own. `blow` falls once, when `kill_when` says so. What was stopped is
    continued after a moment where it is a worker, and killed where it is the command.

    Raises:
        Broken: where a process of the group lives on for ten seconds, or a signal that ends the command does not.
    """
    log.unlink(missing_ok=True)
    pid = os.fork()
    if not pid:
        _become(arguments, log)
    os.setpgid(pid, pid)  # here too, or a kill at once would find no such group
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
    """Send the signal; whether there was somebody to send it to."""
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
    """Processes of a process group that are no zombies."""
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
    """Every run that counts as done, with what tells its result from one done again."""
    folders = [mark.parent for mark in outputs.rglob("result.json") if not mark.parent.name.startswith(".")]
    stats = {folder: (folder / "result.json").stat() for folder in folders if is_done(folder)}
    return {folder.relative_to(outputs): (stat.st_ino, stat.st_mtime_ns) for folder, stat in stats.items()}


class Seen:
    """The sweep's folders, and what was seen in them."""

    def __init__(self, work: Path) -> None:
        self.outputs, self.cache = work / "outputs", work / "cache"
        self.reference: dict[Path, dict[str, str]] = {}
        self.done: dict[Path, tuple[int, int]] = {}

    def half_written(self) -> set[tuple[Path, int]]:
        """Results, and things for the cache, that are not whole yet, or never will be."""
        found = [*self.outputs.glob("*/*/.*.new"), *self.outputs.glob("*/*/.*.old"), *self.cache.glob("*/.*")]
        with suppress(FileNotFoundError):  # one may be whole by now
            return {(path, path.stat().st_mtime_ns) for path in found}
        return set()

    def forget(self) -> None:
        """Remove all that the sweep left."""
        shutil.rmtree(self.outputs, ignore_errors=True)
        shutil.rmtree(self.cache, ignore_errors=True)
        self.done = {}

    def check(self, *, fresh: bool) -> int:
        """How many runs are done.

        Raises:
            Broken: where one is not whole, differs from the undisturbed one or was done again, or the cache is damaged.
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
                raise Broken(f"{folder} counts as done and is not whole: {error}") from error
            if not equal:
                raise Broken(f"{folder} is not what it is when nobody disturbs it")
        lost = self.done.keys() - done.keys()
        if lost and not fresh:  # a kill may catch a run that is redone between its old result and the new one
            raise Broken(f"{lost} were done and are not any more")
        self.done = done
        for entry in self.cache.rglob("[!.]*.pt"):
            try:
                unpacked(entry.read_bytes())
            except ValueError as error:
                raise Broken(f"{entry} is in the cache and {error}") from error
        return len(done)


def kill(kills: int, seed: int, work: Path) -> None:
    """Do it, and print how it went.

    Raises:
        Broken: where what must never be was found.
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
        f"nothing broken by {struck.total()} signals, {in_writing} kills while something was written; "
        f"{ended} sweeps went on to their end, {redone} were then done afresh"
    )


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="how many signals (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill-sweep-", ignore_cleanup_errors=True) as work:
        try:
            kill(given.kills, given.seed, Path(work))
        except Broken as error:
            sys.exit(f"broken: {error}")


if __name__ == "__main__":
    main()
