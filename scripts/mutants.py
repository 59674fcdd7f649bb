"""Put the faults of mutants.yaml into the core, one at a time, and see whether the tests notice.

python scripts/mutants.py; python scripts/mutants.py --only loop.py

Each fault goes into a copy of the tree, where the tests that the list names for its file run until one fails. Exit code
0: enough faults were noticed; 1: too few; 2: a fault does not apply any more, or tests fail without any.
"""

from __future__ import annotations

import argparse
import ast
import math
import multiprocessing
import os
import queue
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parents[1]
LIST = Path(__file__).with_suffix(".yaml")
ENOUGH = 0.95
"""Share of the faults that tests must notice; all that are marked `must` besides."""
CPU_LIMIT_S = 120
"""A fault under which the tests take more of the processor's time hangs, which is noticed too."""
COPIED = ("dtsim", "conf", "tests", "scripts", "pyproject.toml")
PRELOADED = (
    *("torch", "torch._dynamo", "torch.utils.flop_counter", "numpy", "pandas", "scipy.optimize", "scipy.stats"),
    *("hydra", "omegaconf", "pydantic", "rich", "typer", "ortools.sat.python.cp_model", "pytest", "hypothesis"),
)
"""Packages that every session of tests needs, imported once; none of the tree's own, or its faults would be missed."""

Verdict = Literal["killed", "survived", "broken"]


@dataclass(frozen=True)
class Fault:
    """A mistake that somebody might make in one place of one file."""

    file: str
    """Path in the tree."""
    was: str
    """What stands in the file, once."""
    now: str
    """What is put in its place."""
    means: str
    """What is wrong then."""
    tests: tuple[str, ...]
    """Tests that cover the file, the likeliest to fail first."""
    must: bool = False
    """Whether it must be noticed, whatever the share."""

    def applied(self, text: str) -> str:
        """The file's `text` with the fault.

        Raises:
            ValueError: where it does not apply, in one line.
        """
        found = text.count(self.was)
        if found != 1:
            raise ValueError(f"{self.file}: {self.was!r} must be found once, is found {found} times ({self.means})")
        changed = text.replace(self.was, self.now)
        try:
            ast.parse(changed)
        except SyntaxError as error:
            raise ValueError(f"{self.file}: {self.now!r} is no Python there, {error.msg} ({self.means})") from None
        return changed


@dataclass(frozen=True)
class Outcome:
    """What became of a fault."""

    verdict: Verdict
    by: str
    """The test that noticed it; of a broken one, what happened."""
    cpu_s: float
    """Processor time that the tests took."""


def load(path: Path = LIST) -> list[Fault]:
    """The faults of the list at `path`."""
    files: Mapping[str, Any] = yaml.safe_load(path.read_text())
    return [
        Fault(
            file=file,
            was=fault["was"],
            now=fault["now"],
            means=fault["means"],
            tests=tuple(fault.get("tests", entry["tests"])),
            must=fault.get("must", False),
        )
        for file, entry in files.items()
        for fault in entry["faults"]
    ]


def misfits(faults: Sequence[Fault], root: Path) -> list[str]:
    """A line for each fault that does not apply to the tree at `root`, and for each file of tests that is missing."""
    lines = []
    for fault in faults:
        try:
            fault.applied((root / fault.file).read_text())
        except FileNotFoundError:
            lines.append(f"{fault.file}: is missing ({fault.means})")
        except ValueError as error:
            lines.append(str(error))
    for test in sorted({test for fault in faults for test in fault.tests}):
        if not (root / test.partition("::")[0]).is_file():
            lines.append(f"{test}: is missing")
    return lines


class Tree:
    """A copy of the tree at `root` that faults are put into."""

    def __init__(self, root: Path, folder: Path, preloaded: Sequence[str]) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(list(preloaded))
        for name in COPIED:
            if (root / name).is_dir():
                shutil.copytree(root / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif (root / name).exists():
                shutil.copy(root / name, folder / name)
        if (folder / "conf").exists():  # so that an installed dtsim's is not used
            shutil.copytree(folder / "conf", folder / "dtsim" / "conf")

    def test(self, tests: Sequence[str]) -> Outcome:
        """Run `tests` as the tree stands, until one fails."""
        log = self.folder / "log.txt"
        asked = (str(self.folder), list(tests), str(log), CPU_LIMIT_S)
        process = self.context.Process(target=_session, args=asked)
        process.start()
        process.join()
        if process.exitcode == -signal.SIGXCPU:
            return Outcome("killed", "out of time", CPU_LIMIT_S)
        said = log.read_text(errors="replace")
        taken = re.search(r"^took (\S+) s$", said, re.MULTILINE)
        cpu_s = float(taken[1]) if taken else math.nan
        if process.exitcode == 0:
            return Outcome("survived", "", cpu_s)
        failed = re.search(r"^(?:FAILED|ERROR) (\S+::\S+)", said, re.MULTILINE)
        if process.exitcode == 1 and failed:
            return Outcome("killed", failed[1], cpu_s)
        return Outcome("broken", f"exit code {process.exitcode}: {said[-2000:]}", cpu_s)

    @contextmanager
    def having(self, fault: Fault) -> Iterator[None]:
        """The tree with `fault`."""
        path = self.folder / fault.file
        text = path.read_text()
        try:
            self._write(path, fault.applied(text))
            yield
        finally:
            self._write(path, text)

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_text(text)
        # Python knows compiled files by size and second, which a fault may leave as they were.
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*"):
            compiled.unlink()


def _session(folder: str, tests: list[str], log: str, cpu_limit_s: int) -> None:
    """Run `tests` of the tree in `folder` in this process, which ends with pytest's exit code."""
    with open(log, "w") as file:  # noqa: PTH123
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_limit_s, cpu_limit_s + 10))
    os.chdir(folder)
    sys.path.insert(0, folder)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("dtsim", "tests")]:
        del sys.modules[name]  # another tree's, which the server of forks may have imported
    import pytest

    code = int(pytest.main(["-x", "-q", "--tb=line", "-rfE", "-p", "no:cacheprovider", "-m", "not slow", *tests]))
    tree = sys.modules.get("dtsim")
    if tree is not None and not str(tree.__file__).startswith(folder):
        print(f"dtsim was imported from {tree.__file__}")
        code = 3
    print(f"took {time.process_time():.1f} s", flush=True)
    os._exit(code)


def examine(
    faults: Sequence[Fault], root: Path, *, processes: int, preloaded: Sequence[str] = PRELOADED
) -> list[tuple[Fault, Outcome]]:
    """Run the tests without a fault, then under each of `faults`; says every outcome as it comes.

    Raises:
        RuntimeError: where tests fail without a fault.
    """
    trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
    with tempfile.TemporaryDirectory(prefix="mutants-") as scratch, ThreadPoolExecutor(processes) as pool:
        for number in range(processes):
            trees.put(Tree(root, Path(scratch) / str(number) / "tree", preloaded))

        def sound(test: str) -> tuple[str, Outcome]:
            tree = trees.get()
            try:
                return test, tree.test([test])
            finally:
                trees.put(tree)

        def under(fault: Fault) -> tuple[Fault, Outcome]:
            tree = trees.get()
            try:
                with tree.having(fault):
                    outcome = tree.test(fault.tests)
            finally:
                trees.put(tree)
            print(f"{outcome.verdict:9}{outcome.cpu_s:5.1f} s  {fault.file}: {fault.means}  [{outcome.by}]", flush=True)
            return fault, outcome

        tests = sorted({test for fault in faults for test in fault.tests})
        for test, outcome in pool.map(sound, tests):
            if outcome.verdict != "survived":
                raise RuntimeError(f"{test} fails without any fault: {outcome.by}")
        return list(pool.map(under, faults))


def report(outcomes: Sequence[tuple[Fault, Outcome]]) -> int:
    """Print how many faults were noticed, by file, and which were not; the exit code."""
    by_file: dict[str, list[Outcome]] = {}
    for fault, outcome in outcomes:
        by_file.setdefault(fault.file, []).append(outcome)
    width = max(map(len, by_file))
    print(f"\n{'file':{width}}  killed  of")
    for file, found in by_file.items():
        print(f"{file:{width}}  {sum(one.verdict == 'killed' for one in found):6}  {len(found):2}")
    killed = sum(outcome.verdict == "killed" for _, outcome in outcomes)
    print(f"{'all':{width}}  {killed:6}  {len(outcomes):2}  ({killed / len(outcomes):.1%})")
    alive = [(fault, outcome) for fault, outcome in outcomes if outcome.verdict != "killed"]
    for fault, outcome in alive:
        print(f"{outcome.verdict}: {fault.file}: {fault.means}{' (must be killed)' if fault.must else ''}")
    if any(outcome.verdict == "broken" for _, outcome in outcomes):
        return 2
    return int(killed < ENOUGH * len(outcomes) or any(fault.must for fault, _ in alive))


def main() -> int:
    """The program."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", metavar="TEXT", help="faults whose file or meaning has this text")
    parser.add_argument("--processes", type=int, default=2, help="sessions of tests at once (default: 2)")
    asked = parser.parse_args()
    if asked.processes < 1:
        parser.error(f"--processes={asked.processes}: must be >= 1")
    every = load()
    if lines := misfits(every, ROOT):
        print("\n".join(lines), file=sys.stderr)
        return 2
    faults = [fault for fault in every if asked.only in fault.file or asked.only in fault.means]
    if not faults:
        parser.error(f"--only={asked.only!r}: must be part of the file or the meaning of a fault")
    try:
        return report(examine(faults, ROOT, processes=asked.processes))
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
