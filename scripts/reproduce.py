"""Reproduce the paper: run its sweeps, draw its figures, judge its claims, and compare with the expected results.

    make reproduce            # or: python scripts/reproduce.py
    make reproduce QUICK=1    # few MUs, three seeds, one other setting: minutes

The same command resumes an interrupted reproduction. All output is below --outputs: the runs, figures/, report.html,
report.txt, verdict.csv, verdict.md and results.csv. Exit code 1: a run failed, or a result differs from the expected.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.core.parts import ConfigError
from dtsim.core.seeding import single_thread
from dtsim.reporting import expected, runs, verdict
from dtsim.results import files
from dtsim.results.folders import is_done
from dtsim.runner import jobs
from dtsim.runner.defaults import default_config
from dtsim.runner.jobs import Plan
from dtsim.runner.launch import run_sweep
from dtsim.runner.parts import Parts, layout_of
from dtsim.runner.signals import terminable

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.scheduling import Task, divided, estimate_s, longest_first

ROOT = Path(__file__).resolve().parents[1]
SHOWN = ("verdict.md", "figures/fig2c-usual.png", "figures/fig2c-generator.amount-kl.png")
"""Files kept beside the expected results, for the README."""


@dataclass(frozen=True)
class Sweep:
    """One `dtsim run`, and the setting of its runs in the report."""

    setting: str
    arguments: tuple[str, ...]


_OTHERS = (
    "retraining.charge=real",
    "objective=sum",
    "channel=umi",
    "drift=rotation",
    "drift=label_shift",
    "retraining=table1 slots_per_frame=2",
)
_THREE = "seed=0,1,2"
# Schemes whose training depends on the amount of generated data, and the scheme that they are compared with.
_KL = ("experiment=variants", "generator.amount=kl", "scheme=single_timescale,proposed,without_dt", _THREE)
FULL = (
    Sweep(verdict.DEFAULT, ("experiment=fig2c",)),
    Sweep("generator.amount=kl", (*_KL, "mu=30,20,10,5")),  # over the number of MUs, since the delay depends on it
    *(Sweep(setting, ("experiment=variants", *setting.split())) for setting in _OTHERS),
)
QUICK = (  # a part of the full reproduction's runs
    Sweep(verdict.DEFAULT, ("experiment=fig2c", "mu=10", "scheme=single_timescale,proposed,without_dt", _THREE)),
    Sweep(verdict.DEFAULT, ("experiment=fig2c", "mu=5", _THREE)),
    Sweep("generator.amount=kl", _KL),
)


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
    launcher = parallel if workers > 1 else ()
    works = []
    for sweep in sweeps:
        by_key = {argument.split("=")[0]: argument for argument in (*sweep.arguments, *launcher, *overrides)}
        planned = jobs.plan([*by_key.values(), f"outputs={outputs}"]).jobs
        tasks = tuple(Task(sweep.setting, job) for job in planned)
        works.append(Work(sweep, (*launcher, f"outputs={outputs}"), tasks))
    return works


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


def announce(works: Sequence[Work], expected_folder: Path, workers: int, console: Console) -> None:
    """Print which runs will be executed and the estimated time."""
    tasks = [task for work in works for task in work.tasks]
    run, equal = divided(tasks)
    same = f", {len(equal)} of them equal to others and done once" if equal else ""
    console.print(
        f"{len(tasks)} runs in {len(works)} sweeps, {len(run) + len(equal)} to do{same}, on {workers} processes",
        highlight=False,
        soft_wrap=True,
    )
    _, made_with = _known(expected_folder)
    seconds = estimate_s(run, made_with.get("seconds_per_mu", {}), workers)
    if seconds is None:
        console.print("the time is unknown: there are no expected results for an estimate")
    elif run:
        speed = made_with["calibration_s"] / calibrate()
        console.print(
            f"about {seconds / speed / 60:.0f} min: estimated from earlier runs; this machine is currently "
            f"{speed:.2f} times as fast as theirs (measured by a short training)",
            highlight=False,
            soft_wrap=True,
        )


def run(works: Sequence[Work], expected_folder: Path) -> None:
    """Execute what is left of all sweeps in one pool of workers, the longest runs first, and copy what is equal."""
    left, equal = divided([task for work in works for task in work.tasks])
    if left:
        _, made_with = _known(expected_folder)
        ordered = longest_first(left, made_with.get("seconds_per_mu", {}))
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


def conclude(found: pd.DataFrame, outputs: Path, console: Console) -> bool:
    """Write results, verdict, figures and page, and print the verdict; return False if a figure could not be drawn."""
    expected.table(found).to_csv(outputs / "results.csv", index=False)
    findings = verdict.evaluate(found)
    findings.to_csv(outputs / verdict.FILE, index=False)
    (outputs / "verdict.md").write_text(verdict.markdown(findings))
    with (outputs / "report.txt").open("w") as text:
        asked = ("--figures", outputs / "figures", "--html", outputs / "report.html")
        drawn = _dtsim("report", outputs, *asked, stdout=text) == 0
    console.print(_shown(findings))
    return drawn


def agrees(found: pd.DataFrame, folder: Path, console: Console) -> bool:
    """Compare with the expected results; return False if a value differs."""
    known, made_with = _known(folder)
    if known.empty:
        console.print(f"there is no {folder / 'expected.csv'} to compare with", highlight=False, soft_wrap=True)
        return True
    same = made_with["versions"] == expected.versions(found)
    agreement = expected.compare(expected.table(found), known, same_versions=same)
    for line in agreement.off[:20]:
        console.print(line, style="red", highlight=False, soft_wrap=True)
    console.print(str(agreement), style="red" if agreement.off else "green", highlight=False, soft_wrap=True)
    return not agreement.off


def accept(found: pd.DataFrame, outputs: Path, folder: Path, workers: int) -> None:
    """Store the results of `found` as the expected results, with their versions, timing and verdict."""
    for name in SHOWN:
        if (outputs / name).is_file():  # the figures have these names if there are several settings
            shutil.copyfile(outputs / name, folder / Path(name).name)
    expected.table(found).to_csv(folder / "expected.csv", index=False)
    made_with = {
        "versions": expected.versions(found),
        "workers": workers,
        "calibration_s": calibrate(),
        "seconds_per_mu": expected.seconds_per_mu(found),
    }
    (folder / "expected.json").write_text(json.dumps(made_with, indent=2) + "\n")


def _known(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The expected results and the conditions of their runs; empty if there are none.

    Raises:
        ConfigError: if they cannot be read, or hold something else.
    """
    try:
        results = pd.read_csv(folder / "expected.csv", usecols=[*expected.KEY, *expected.MEASURED])
        made_with = json.loads((folder / "expected.json").read_text())
        made_with = {key: made_with[key] for key in ("versions", "calibration_s", "seconds_per_mu")}
    except FileNotFoundError:
        return pd.DataFrame(), {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        said = f"{type(error).__name__}: {error}"
        raise ConfigError([f"--expected={folder}: must hold what --accept left there ({said})"]) from None
    return results, made_with


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        said = f"must be a folder that can be written ({error.strerror})"
        raise ConfigError([f"--expected={folder}: {said}"]) from None


def _workers(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be a whole number >= 1")
    return int(text)


def _dtsim(*arguments: object, stdout: IO[str] | None = None) -> int:
    """Call the command line; on Ctrl-C wait until it has ended, or its workers would stay alive."""
    command = [sys.executable, "-c", "from dtsim.cli.app import main; main()", *map(str, arguments)]
    with subprocess.Popen(command, stdout=stdout) as process:
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.wait()
            raise


def _shown(findings: pd.DataFrame) -> Table:
    table = Table(title="What the paper claims", show_lines=True)
    for name in ("figure", "claim", "MUs", "measured, 95 % interval", "verdict", "otherwise"):
        table.add_column(name)
    colours = {"holds": "green", "does not hold": "red", "not decided": "yellow"}
    for line in verdict.lines(findings):
        said = Text(line.verdict, style=colours[line.verdict])
        table.add_row(line.figure, line.claim, line.mu, Text(line.measured), said, Text(line.depends))
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole reproduction; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few MUs, three seeds, one other setting")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/reproduce"), help="folder for all output")
    parser.add_argument("--workers", type=_workers, default=len(os.sched_getaffinity(0)), help="runs at a time")
    parser.add_argument("--expected", type=Path, default=ROOT / "reproduce", help="folder of expected.csv")
    parser.add_argument("--accept", action="store_true", help="store the results as expected.csv")
    parser.add_argument("overrides", nargs="*", help="key=value for all runs, as in dtsim run")
    asked = parser.parse_args(arguments)
    console = Console()
    if not console.is_terminal:
        console = Console(width=150)  # a log file has no width
    started = time.monotonic()
    console.print("every run is composed and checked first")
    try:
        if asked.accept:
            _make(asked.expected)  # now, so that a failure does not come after an hour of runs
        works = plan(QUICK if asked.quick else FULL, asked.outputs, asked.workers, asked.overrides)
        announce(works, asked.expected, asked.workers, console)
    except ConfigError as error:
        print(*(f"error: {line}" for line in error.lines), sep="\n", file=sys.stderr)
        return 2
    with terminable():
        run(works, asked.expected)
    found, failures = collect(works)
    for folder, why in failures.items():
        console.print(f"failed: {folder}: {why}", style="red", highlight=False, soft_wrap=True)
    if found.empty:
        return 1
    drawn = conclude(found, asked.outputs, console)
    agreed = asked.accept or agrees(found, asked.expected, console)
    if asked.accept and not failures:  # incomplete results are not a reproduction
        accept(found, asked.outputs, asked.expected, asked.workers)
    took = f"{(time.monotonic() - started) / 60:.1f} min"
    console.print(f"{took}; see {asked.outputs}: report.html, verdict.md, figures", highlight=False, soft_wrap=True)
    return 0 if drawn and agreed and not failures else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the reproduction", file=sys.stderr)
        sys.exit(130)
