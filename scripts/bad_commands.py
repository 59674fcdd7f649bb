"""Types hundreds of wrong command lines and looks at how each is answered.

python scripts/bad_commands.py [--only CATEGORY] [--list]

Every answer must name the key and what is allowed, in a line or a few, end with exit code 1 or 2, come within 30 s and
without a traceback, and its process must stay below 4 GB. Each line is typed in a process that is forked from one where
everything is imported already; a run that would start only says so. Then some typos are typed in a process of their
own, which tells the CPU time that a person waits for. The exit code is 1 where any line fails.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import argparse
import io
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.bad_cases import ALLOWED, Case, all_cases

MOST_S = 30.0
MOST_BYTES = 4e9
MOST_LINES = 12
TYPOS = (
    "scheme=propsed", "chanel=umi", "channel.bandwith_hz=1", "mu=abc", "mu=0", "objective=fast",
    "channel.fading=rayligh", "typo=1", "twin/predictor=oracel", "-m mu=5 10", "retraining.epochs=x", "--farsh",
)  # fmt: skip
FAULTS = ("traceback", "too slow", "too large", "accepted", "exit code", "key unnamed", "nothing allowed", "too long")


@dataclass(frozen=True)
class Answer:
    """How a command line was answered."""

    case: Case
    text: str
    """What it printed; on both streams."""
    code: int
    """Exit code; of a killed process the negative signal."""
    wall_s: float
    cpu_s: float
    peak_bytes: float

    @property
    def faults(self) -> list[str]:
        """What is wrong with the answer."""
        plain = " ".join(self.text.replace("│", " ").split())  # Typer draws a box around its own errors
        lines = [line for line in self.text.splitlines() if line.strip()]
        found = {
            "traceback": "Traceback" in self.text,
            "too slow": self.wall_s > MOST_S,
            "too large": self.peak_bytes > MOST_BYTES,
            "accepted": self.code == 0,
            "exit code": self.code not in (0, 1, 2),
            "key unnamed": not all(name in plain for name in self.case.named),
            "nothing allowed": not re.search(ALLOWED, plain),
            "too long": len(lines) > MOST_LINES,
        }
        return [name for name in FAULTS if found[name]]


class Typed:
    """A command line in a fork of this process."""

    def __init__(self, case: Case) -> None:
        self.case, self._start = case, time.monotonic()
        self._out = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the answer
        self._pid = os.fork()
        if self._pid == 0:
            _type(case.arguments, self._out)

    def answer(self) -> Answer | None:
        """How it was answered; None where it is not yet. A fork whose time is over is killed with its processes."""
        wall_s = time.monotonic() - self._start
        found, status, usage = os.wait4(self._pid, os.WNOHANG)
        if not found and wall_s <= MOST_S:
            return None
        if not found:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._pid, 9)
            _, status, usage = os.wait4(self._pid, 0)
        with self._out:
            self._out.seek(0)
            text = self._out.read()
        code, cpu_s = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        return Answer(self.case, text, code, wall_s, cpu_s, 1024.0 * usage.ru_maxrss)


def answers_to(cases: Sequence[Case], at_once: int = 2) -> list[Answer]:
    """The answers to all of `cases`, in order."""
    left, under_way, done = deque(cases), list[Typed](), dict[Case, Answer]()
    while left or under_way:
        while left and len(under_way) < at_once:
            under_way.append(Typed(left.popleft()))
        time.sleep(0.01)
        for one in list(under_way):
            if (answer := one.answer()) is not None:
                done[one.case] = answer
                under_way.remove(one)
    return [done[case] for case in cases]


def _type(arguments: Sequence[str], out: io.TextIOBase) -> None:
    """In the fork: type the command line, and end."""
    from dtsim.cli import app
    from dtsim.runner import launch

    os.setsid()
    resource.setrlimit(resource.RLIMIT_AS, (int(4 * MOST_BYTES),) * 2)

    def start(asked: object) -> bool:
        print("would start", asked)
        return True

    launch.launch = launch.run_sweep = start  # type: ignore[assignment]
    code = 1
    try:
        with redirect_stdout(out), redirect_stderr(out):
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
            sys.argv = ["dtsim", *arguments]
            app.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        out.write(traceback.format_exc())
    out.flush()
    os._exit(code)


def typo_times(typos: Sequence[str]) -> Iterator[tuple[str, float]]:
    """CPU time [s] of each typo in a process of its own, the shorter of two."""
    for line in typos:
        times = []
        for _ in range(2):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            command = [sys.executable, "-c", "from dtsim.cli.app import main; main()", "run", *line.split()]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            assert done.returncode == 2, (line, done.stdout, done.stderr)
            times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        yield line, min(times)


def show(answers: Sequence[Answer], console: Console) -> None:
    """Print a table by category, then each command line that was answered badly."""
    table = Table("category", "command lines", *FAULTS, "CPU s, median", "peak MB", title="Wrong command lines")
    for category in [*dict.fromkeys(answer.case.category for answer in answers), "all"]:
        own = [answer for answer in answers if category in (answer.case.category, "all")]
        counts = [sum(fault in answer.faults for answer in own) for fault in FAULTS]
        cpu = f"{statistics.median(answer.cpu_s for answer in own):.2f}"
        peak = f"{max(answer.peak_bytes for answer in own) / 1e6:,.0f}"
        table.add_row(category, str(len(own)), *(str(count or "·") for count in counts), cpu, peak)
    console.print(table)
    for answer in answers:
        if answer.faults:
            said = f"{', '.join(answer.faults)}: {str(answer.case)[:300]}\n    {answer.text.strip()[-1500:]}"
            console.print(Text(said))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="categories that contain this text")
    parser.add_argument("--list", action="store_true", help="print every answer too")
    given = parser.parse_args(arguments)
    os.nice(5)
    import dtsim.bench.allocation
    import dtsim.bench.environment
    import dtsim.bench.twin
    import dtsim.cli.app
    import dtsim.reporting.command
    import dtsim.runner.check
    import dtsim.runner.launch  # noqa: F401 - imported once, for all forks

    console = Console(width=180)
    with tempfile.TemporaryDirectory(prefix="dtsim-bad-") as folder:
        os.environ["DTSIM_CACHE"] = str(Path(folder) / "cache")
        cases = [case for case in all_cases(Path(folder)) if given.only in case.category]
        os.chdir(folder)
        answers = answers_to(cases)
        left = [path for path in Path(folder).iterdir() if path.name in ("outputs", "o", "cache")]
    show(answers, console)
    if given.list:
        for answer in answers:
            console.print(Text(f"$ {str(answer.case)[:200]}\n{answer.text.rstrip()[:600]}"))
    for path in left:
        console.print(Text(f"left behind: {path}"))
    times = dict(typo_times(TYPOS)) if not given.only else {}
    for line, cpu_s in times.items():
        console.print(Text(f"{cpu_s:.2f} s of CPU: dtsim run {line}"))
    if times:
        console.print(f"{statistics.median(times.values()):.2f} s of CPU for a typo, median")
    return int(any(answer.faults for answer in answers) or bool(left))


if __name__ == "__main__":
    raise SystemExit(main())
