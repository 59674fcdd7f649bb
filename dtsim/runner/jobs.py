"""The jobs of a command line, all of them composed, checked and constructed before the first starts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.types import RunMode
from omegaconf import OmegaConf

from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Phase, Progress
from dtsim.runner import limits
from dtsim.runner.arguments import Arguments, understood
from dtsim.runner.composer import Composer
from dtsim.runner.composition import TRACKER, Files, composed, config_of, is_basic, is_study
from dtsim.runner.config import Config
from dtsim.runner.faults import without_bad_choices
from dtsim.runner.hints import hinted, keys_of, no_such_key
from dtsim.runner.overrides import count, expanded, parsed, quoted, swept, without_sweeps
from dtsim.runner.space import Space, space_of
from dtsim.runner.userfiles import file_faults

if TYPE_CHECKING:
    from dtsim.runner.check import Checker


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
    typed: list[str]
    """The overrides as they were typed."""
    overrides: list[str]
    """The same with the first value of each that is swept."""
    known: bool
    """Whether `jobs` are all: a sweeper that learns as it goes names them as it goes."""
    notes: list[str] = field(default_factory=list)
    """What a person should know before the jobs run, a line each."""
    space: Space | None = None
    """What Optuna is to search; `jobs` are then its extremes, and only checked."""
    tracker: tuple[str, dict[str, Any]] | None = None
    """Who is told about finished runs, and the keys of the group `tracker`."""


def plan(
    arguments: Sequence[str] | Arguments,
    progress: Progress = QUIET,
    *,
    reads_data: bool = False,
    runs: bool = True,
    drawn: Sequence[list[str]] | None = None,
) -> Plan:
    """Compose, check and construct every job that `arguments` (those of `dtsim run`) ask for.

    Args:
        arguments: the command line after the verb.
        progress: shows how many jobs are checked.
        reads_data: whether data sets are read too, to see whether they are there, whole and large enough.
        runs: whether the jobs are to be run; benchmarks only borrow their parts.
        drawn: the overrides of each job of a trial, in place of all that are asked for.

    Raises:
        ConfigError: with a line for every fault of every job.
    """
    asked = arguments if isinstance(arguments, Arguments) else understood(arguments)
    begun = _begun(asked)
    overrides, files, base = begun.overrides, begun.files, begun.base
    sweep = asked.multirun or base.hydra.mode == RunMode.MULTIRUN
    if not sweep and (several := swept(overrides)):
        raise ConfigError([f"{several[0]}: several values need a sweep: add -m"])
    known = not sweep or is_basic(base) or drawn is not None
    space, tracker = None, _tracker(base)
    if sweep:
        limits.check_launcher(base.hydra.launcher)
    if is_study(base) and drawn is None:
        if not sweep:
            raise ConfigError(["hydra/sweeper=optuna: needs a sweep: add -m"])
        space = space_of(base.hydra.sweeper, _whole(overrides, base), files)
        drawn = space.probes
    if drawn is not None:
        combinations = [[*job, *files.of_scheme(job)] for job in drawn]
    else:
        combinations = _combinations(overrides, base, files, yes=asked.yes) if sweep and known else [begun.first]
    with progress.phase("checking jobs", len(combinations)) as phase:
        jobs = _composed(combinations, begun, phase)
        if space is not None:
            space.check_metric([job.config.time for job in jobs])
        if not asked.yes:
            typed = [(job.config, {one.partition("=")[0].lstrip("+") for one in job.overrides}) for job in jobs]
            limits.check(typed, base.hydra.launcher if sweep else None)
        from dtsim.runner.check import Checker  # imports torch, which a typo need not wait for

        notes = _checked(jobs, [*files.groups(), *keys_of(base)], Checker(progress, reads_data, runs), phase)
    if runs and (known or space is not None):
        from dtsim.runner.forecast import forecast  # likewise

        notes += forecast([job.config for job in jobs] if space is None else [jobs[0].config] * space.runs)
    return Plan(
        jobs,
        sweep,
        overrides,
        [*begun.first, *_sweep_folder(base)],
        known=known,
        notes=notes,
        space=space,
        tracker=tracker,
    )


def _composed(combinations: Sequence[list[str]], begun: _Begun, phase: Phase) -> list[Job]:
    """The jobs of `combinations`, of which the first job is composed already.

    Raises:
        ConfigError: with a line for every fault of every job; torch is not imported by then, so a typo costs no time.
    """
    jobs: list[Job] = []
    lines = dict.fromkeys(begun.lines)  # in order, each fault once though many jobs may share it
    composer = Composer(begun.files)
    for overrides in combinations:
        try:
            config = config_of(begun.base) if overrides == begun.first else composer.config(overrides)
            limits.check_files(config)
            _check_beside_checkpoint(config, overrides)
            jobs.append(Job(overrides, config))
        except ConfigError as error:
            lines.update(dict.fromkeys(error.lines))
        phase.advance(0.5)
    if lines:
        raise ConfigError(list(lines))
    return jobs


def _check_beside_checkpoint(config: Config, overrides: Sequence[str]) -> None:
    """Refuse keys of a training where there is none, since the policy comes from a file."""
    file = config.allocator.get("checkpoint")
    beside = [one for one in overrides if re.match(r"[+]*allocator\.(?!checkpoint=)", one)]
    if file is not None and beside:
        raise ConfigError([f"{one}: does nothing beside allocator.checkpoint={file}, leave it out" for one in beside])


def _left_out(config: Config) -> list[str]:
    """A line where a schedule has rows that the run does not need."""
    path = config.drift.get("schedule")
    if path is None:
        return []
    from dtsim.learning.data.trace import rows_left_out  # imports numpy, which a typo need not wait for

    rows = rows_left_out(path, users=config.mu, frames=config.frames)
    beyond = f"of users or frames beyond mu={config.mu} and frames={config.frames}"
    return [f"drift.schedule={path}: {rows:,} rows are {beyond}, and are left out"] if rows else []


def _checked(jobs: Sequence[Job], known: Sequence[str], checker: Checker, phase: Phase) -> list[str]:
    """What is worth knowing of `jobs`, which are constructed and checked; `known` are the keys that there are.

    Raises:
        ConfigError: with a line for every fault of every job.
    """
    lines: dict[str, None] = {}
    notes: dict[str, None] = {}
    for job in jobs:
        try:
            checker.check(job.config)
            notes.update(dict.fromkeys(_left_out(job.config)))
        except ConfigError as error:
            lines.update(dict.fromkeys(hinted(line, known) for line in error.lines))
        phase.advance(0.5)
    if lines:
        raise ConfigError(list(lines))
    return [*notes, *checker.notes]


def overrides_of_one(asked: Arguments) -> list[str]:
    """The overrides of a command line that asks for one job.

    Raises:
        ConfigError: with a line for every fault, or where it asks for several jobs.
    """
    begun = _begun(asked)
    if begun.lines:
        raise ConfigError(begun.lines)
    if several := swept(begun.overrides):
        raise ConfigError([f"{several[0]}: several values; {asked.shows[0]} shows one job at a time"])
    if asked.package and OmegaConf.select(begun.base, asked.package) is None:
        raise ConfigError([f"--package={asked.package}: {no_such_key(asked.package, keys_of(begun.base))}"])
    return begun.first


@dataclass(frozen=True)
class _Begun:
    """A command line of which the first job is composed."""

    overrides: list[str]
    """Without what `lines` are about."""
    lines: list[str]
    """A fault each."""
    files: Files
    """What can be chosen from."""
    first: list[str]
    """The overrides of the first job."""
    base: Any
    """What they compose, Hydra's own node included."""


def _begun(asked: Arguments) -> _Begun:
    """Compose the first job.

    Raises:
        ConfigError: with a line for every fault of it, or of the user's files.
    """
    files = Files(_overrides(asked))
    if asked.config_dir is not None and (wrong := file_faults(asked.config_dir, files.groups())):
        raise ConfigError(wrong)
    overrides, lines = without_bad_choices(_overrides(asked), files)
    first = without_sweeps(overrides, files)
    first += files.of_scheme(first)
    return _Begun(overrides, lines, files, first, composed(first))


def _overrides(asked: Arguments) -> list[str]:
    """What was typed, with dtsim's flags as keys."""
    overrides = list(asked.overrides)
    if asked.config_dir is not None:
        if given := [one for one in overrides if one.startswith("hydra.searchpath=")]:
            raise ConfigError([f"{given[0]}: --config-dir sets it; give one of the two"])
        overrides.append(f"hydra.searchpath=[{quoted(f'file://{asked.config_dir.resolve()}')}]")
    return [*overrides, "fresh=true"] if asked.fresh else overrides


def _combinations(overrides: list[str], base: Any, files: Files, *, yes: bool) -> list[list[str]]:
    """The overrides of every job of a sweep, those of its experiment's file included.

    Raises:
        ConfigError: where one of them gives no value, or they make too many jobs.
    """
    whole = _whole(overrides, base)
    jobs = count(whole, files)
    if jobs > limits.MOST_JOBS and not yes:
        raise ConfigError([f"{' '.join(swept(whole))}: {jobs:,} jobs (more than {limits.MOST_JOBS:,} need --yes)"])
    return [[*job, *files.of_scheme(job)] for job in expanded(whole, files)]


def _whole(overrides: list[str], base: Any) -> list[str]:
    """The overrides of a sweep, those of its experiment's file included."""
    parameters = OmegaConf.to_container(base.hydra.sweeper.params or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    given = {one.get_key_element() for one in parsed(overrides)}
    return [*(f"{key!s}={value}" for key, value in parameters.items() if key not in given), *overrides]


def _tracker(base: Any) -> tuple[str, dict[str, Any]] | None:
    """Who is told about finished runs, with its keys; None where nobody is.

    Raises:
        ConfigError: where its library is not installed.
    """
    name = OmegaConf.select(base, "hydra.callbacks.tracker.to")
    if name is None:
        return None
    if find_spec(name) is None:
        raise ConfigError([f"tracker={name}: is not installed: pip install 'dtsim[{name}]'"])
    return name, {key: OmegaConf.select(base, f"{TRACKER}.{key}") for key in keys_of(base[TRACKER])}


def _sweep_folder(base: Any) -> list[str]:
    """Where Hydra's launchers put what is theirs, with ~ expanded as in `outputs`."""
    folder = str(base.hydra.sweep.dir)
    return [f"hydra.sweep.dir={quoted(str(Path(folder).expanduser()))}"] if folder.startswith("~") else []
