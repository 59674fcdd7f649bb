"""Several sweeps in one pool of workers: planned and checked first, with an estimate of their time, resumable."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console

from dtsim.core.parts import ConfigError
from dtsim.core.seeding import single_thread
from dtsim.reporting import expected, runs
from dtsim.results import files
from dtsim.results.folders import is_done
from dtsim.runner import jobs
from dtsim.runner.defaults import default_config
from dtsim.runner.jobs import Plan
from dtsim.runner.launch import run_sweep
from dtsim.runner.parts import Parts, layout_of
from dtsim.runner.signals import terminable
from scripts.scheduling import Costs, Task, divided, estimate_s, longest_first

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Sweep:
    """One `dtsim run`, and the setting of its runs in the report."""

    setting: str
    arguments: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """A sweep and its runs."""

    sweep: Sweep
    launcher: tuple[str, ...]
    """What the launcher is told."""
    tasks: tuple[Task, ...]

    @property
    def folders(self) -> list[Path]:
        """The folders of all its runs."""
        return [task.job.config.folder for task in self.tasks]


def plan(sweeps: Sequence[Sweep], outputs: Path, workers: int, overrides: Sequence[str]) -> list[Work]:
    """Compose and check every run of `sweeps` before the first one starts; `overrides` override the sweeps' own.

    Raises:
        ConfigError: with a line for every fault.
    """
    parallel = ("hydra/launcher=laptop", f"hydra.launcher.n_jobs={workers}")
    asked = tuple(override for override in overrides if override.startswith("hydra"))
    launcher = asked if asked else parallel if workers > 1 else ()
    works = []
    for sweep in sweeps:
        by_key = {argument.split("=")[0]: argument for argument in (*sweep.arguments, *launcher, *overrides)}
        planned = jobs.plan([*by_key.values(), f"outputs={outputs}"]).jobs
        tasks = tuple(Task(sweep.setting, job) for job in planned)
        works.append(Work(sweep, (*launcher, f"outputs={outputs}"), tasks))
    return works


@dataclass(frozen=True)
class Timing:
    """How long runs took before, and how fast that machine was."""

    seconds_per_mu: Costs
    calibration_s: float
    """Of `calibrate`."""

    @classmethod
    def read(cls, file: Path) -> Timing | None:
        """The timing in a JSON file; None if there is no such file.

        Raises:
            ConfigError: if the file holds something else.
        """
        try:
            known = json.loads(file.read_text())
            return cls(known["seconds_per_mu"], float(known["calibration_s"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            said = f"{type(error).__name__}: {error}"
            raise ConfigError([f"--expected={file.parent}: must hold what --accept left there ({said})"]) from None


def calibrate() -> float:
    """Seconds of one core for a fixed piece of training of the default model; the best of three."""
    single_thread()
    config = default_config()
    parts = Parts(config)
    shape, classes = layout_of(parts.dataset, config.cache_folder)
    model = parts.model.build(shape, classes, 0)
    images = torch.rand(32, *shape, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(32, dtype=torch.int64)
    took = []
    for _ in range(3):
        start = time.process_time()
        for _ in range(60):
            torch.nn.functional.cross_entropy(model(images), labels).backward()
        took.append(time.process_time() - start)
    return min(took)


def announce(works: Sequence[Work], timing: Timing | None, workers: int, console: Console) -> None:
    """Print which runs will be executed and the estimated time."""
    tasks = [task for work in works for task in work.tasks]
    run, equal = divided(tasks)
    same = f", {len(equal)} of them equal to others and done once" if equal else ""
    console.print(
        f"{len(tasks)} runs in {len(works)} sweeps, {len(run) + len(equal)} to do{same}, on {workers} processes",
        highlight=False,
        soft_wrap=True,
    )
    seconds = estimate_s(run, timing.seconds_per_mu, workers) if timing is not None else None
    if timing is None or seconds is None:
        console.print("the time is unknown: there are no expected results for an estimate")
    elif run:
        speed = timing.calibration_s / calibrate()
        console.print(
            f"about {seconds / speed / 60:.0f} min: estimated from earlier runs; this machine is currently "
            f"{speed:.2f} times as fast as theirs (measured by a short training)",
            highlight=False,
            soft_wrap=True,
        )


def run(works: Sequence[Work], timing: Timing | None) -> None:
    """Execute what is left of all sweeps in one pool of workers, the longest runs first, and copy what is equal."""
    left, equal = divided([task for work in works for task in work.tasks])
    if left:
        ordered = longest_first(left, timing.seconds_per_mu if timing is not None else {})
        asked = Plan([task.job for task in ordered], True, [], list(works[0].launcher), known=True)
        run_sweep(asked, with_results=False)  # failures are read from the folders
    for task, other in equal:
        if is_done(other.job.config.folder):
            config = task.job.config
            of, to = other.job.config.folder, config.folder
            files.copy(of, to, config=config.settings, choices=config.choices, digest=config.digest)


def collect(works: Sequence[Work]) -> tuple[pd.DataFrame, dict[Path, str]]:
    """All finished runs, with their `setting`, and the reasons why the others are not finished."""
    found: list[pd.DataFrame] = []
    failures: dict[Path, str] = {}
    for work in works:
        table, missing = runs.read(work.folders)
        found.append(table.assign(setting=work.sweep.setting))
        failures |= missing
    return pd.concat(found, ignore_index=True), failures


def executed(
    works: Sequence[Work], timing: Timing | None, console: Console, *, missing: bool = True
) -> tuple[pd.DataFrame, dict[Path, str]]:
    """`collect` after the runs that are `missing` were done; failures are printed."""
    if missing:
        with terminable():
            run(works, timing)
    found, failures = collect(works)
    for folder, why in failures.items():
        console.print(f"failed: {folder}: {why}", style="red", highlight=False, soft_wrap=True)
    return found, failures


def carried_out(
    sweeps: Sequence[Sweep],
    asked: argparse.Namespace,
    timing_file: str,
    console: Console,
    *,
    missing: bool = True,
    checked: Callable[[], object] = lambda: None,
) -> tuple[pd.DataFrame, dict[Path, str]] | None:
    """`executed` of `sweeps`, after all was planned and announced; None if a value is invalid, which is printed.

    Args:
        sweeps: what is to be done.
        asked: the command line, see `parser_of`.
        timing_file: name of the file of times in the folder `asked.expected`.
        console: where it is announced.
        missing: whether runs that are missing are done.
        checked: called before anything else; raises a ConfigError for what is invalid.
    """
    console.print("every run is composed and checked first")
    try:
        if asked.accept:
            make(asked.expected)  # now, so that a failure does not come after an hour of runs
        checked()
        timing = Timing.read(asked.expected / timing_file)
        works = plan(sweeps, asked.outputs, asked.workers, asked.overrides)
        announce(works, timing, asked.workers, console)
    except ConfigError as error:
        print(*(f"error: {line}" for line in error.lines), sep="\n", file=sys.stderr)
        return None
    return executed(works, timing, console, missing=missing)


def frames_of(found: pd.DataFrame) -> list[int]:
    """The numbers of frames of the runs."""
    return sorted({int(frames) for frames in found["config.frames"]})


def keep(found: pd.DataFrame, outputs: Path, shown: Sequence[str], file: Path, workers: int) -> None:
    """Copy the files `shown` beside `file`, and write versions and timing of the runs to it, which `Timing` reads."""
    for name in shown:
        if (outputs / name).is_file():
            shutil.copyfile(outputs / name, file.parent / Path(name).name)
    made_with = {
        "versions": expected.versions(found),
        "frames": frames_of(found),
        "workers": workers,
        "calibration_s": calibrate(),
        "seconds_per_mu": expected.seconds_per_mu(found),
    }
    file.write_text(json.dumps(made_with, indent=2) + "\n")


def parser_of(description: str | None, outputs: str, kept: str) -> argparse.ArgumentParser:
    """The options that all commands of sweeps have; `outputs` is the default folder, `kept` what --accept writes."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--outputs", type=Path, default=Path(outputs), help="folder for all output")
    parser.add_argument("--workers", type=workers_of, default=len(os.sched_getaffinity(0)), help="runs at a time")
    parser.add_argument("--expected", type=Path, default=ROOT / "reproduce", help=f"folder of {kept}")
    parser.add_argument("--accept", action="store_true", help=f"store the results as {kept}")
    parser.add_argument("overrides", nargs="*", help="key=value for all runs, as in dtsim run")
    return parser


def shown_on() -> Console:
    """The terminal, or 150 columns where the output is a log file, which has no width."""
    console = Console()
    return console if console.is_terminal else Console(width=150)


def make(folder: Path) -> None:
    """Make a folder for expected results.

    Raises:
        ConfigError: if it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"must be a folder that can be written ({error.strerror})"
        raise ConfigError([f"--expected={folder}: {said}"]) from None


def workers_of(text: str) -> int:
    """A number of processes on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number >= 1")
    return int(text)
