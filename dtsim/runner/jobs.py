"""The jobs of a command line, all of them composed, checked and constructed before the first starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.types import RunMode

from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Progress
from dtsim.runner.check import Checker
from dtsim.runner.composition import composed, config_of, expanded, is_basic, swept, without_sweeps
from dtsim.runner.config import Config


@dataclass(frozen=True)
class Job:
    """One job of a run or sweep."""

    overrides: list[str]
    config: Config


@dataclass(frozen=True)
class Plan:
    """What a command line asks for."""

    jobs: list[Job]
    sweep: bool
    name: str
    """Of the primary configuration."""
    overrides: list[str]
    """Those of the sweep as a whole, with the first value of each that is swept."""
    known: bool
    """Whether `jobs` are all: a sweeper that learns as it goes names them as it goes."""
    notes: list[str] = field(default_factory=list)
    """What a person should know before the jobs run, a line each."""


def plan(arguments: Sequence[str], progress: Progress = QUIET, *, reads_data: bool = False) -> Plan:
    """Compose, check and construct every job that `arguments` (those of `dtsim run`) ask for.

    Args:
        arguments: the command line after the verb.
        progress: shows how many jobs are checked.
        reads_data: whether data sets are read too, to see whether they are there, whole and large enough.

    Raises:
        ConfigError: with a line for every fault of every job.
    """
    arguments_seen = get_args_parser().parse_args(list(arguments))
    overrides, folder = list(arguments_seen.overrides), arguments_seen.config_dir
    if folder is not None:
        if not Path(folder).is_dir():
            raise ConfigError([f"--config-dir={folder}: there is no such folder"])
        overrides.append(f"hydra.searchpath=[file://{Path(folder).resolve()}]")
    name = arguments_seen.config_name or "config"
    base = composed(name, without_sweeps(overrides))
    sweep = bool(arguments_seen.multirun) or base.hydra.mode == RunMode.MULTIRUN
    combinations = expanded(overrides, base) if sweep else [overrides]
    if not sweep and (several := swept(overrides)):
        raise ConfigError([f"{several[0]}: several values need a sweep: add -m"])
    jobs: list[Job] = []
    lines: dict[str, None] = {}  # in order, each fault once though many jobs may share it
    checker = Checker(progress, reads_data)
    with progress.phase("checking jobs", len(combinations)) as phase:
        for job in combinations:
            try:
                config = config_of(composed(name, job))
                checker.check(config)
                jobs.append(Job(job, config))
            except ConfigError as error:
                lines.update(dict.fromkeys(error.lines))
            phase.advance()
    if lines:
        raise ConfigError(list(lines))
    known = not sweep or is_basic(base)
    return Plan(jobs, sweep, name, without_sweeps(overrides), known=known, notes=list(checker.notes))
