"""A study of Optuna's: trials whose runs are planned, checked, executed and kept as those of any sweep.

Its database is written after every trial. A trial that was drawn and never ended, since its process was killed, is the
first that the same command goes on with, with the same values; a run of it that is done is not done again. The sampler
is seeded anew for every trial, so a study that was killed draws what it would have drawn.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from filelock import FileLock, Timeout
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState
from rich.console import Console

from dtsim.core.cache import digest_of
from dtsim.core.parts import ConfigError
from dtsim.results.folders import read_run, why_failed
from dtsim.runner.arguments import Arguments
from dtsim.runner.jobs import Plan, plan
from dtsim.runner.launch import completed
from dtsim.runner.space import Searched, Space, StudyKeys

_SEARCH = "search"  # what a study searches, among its attributes
_WHY = "why"  # a trial failed, among its attributes


@dataclass(frozen=True)
class Studied:
    """What became of a study."""

    done: bool
    """Whether it has all its trials and none of this command failed."""
    folders: list[Path]
    """Of the runs of this command's trials."""


def optimise(asked: Arguments, planned: Plan) -> Studied:
    """Do the trials that a study lacks.

    Args:
        asked: the command line.
        planned: what it asks for.

    Raises:
        ConfigError: where its database cannot be used, searches something else, or is in use.
    """
    space, config = planned.space, planned.jobs[0].config
    assert space is not None
    search = space.search
    what = digest_of([[repr(one) for one in space.searched], config.digest, search.column, search.direction,
                      search.seeds])  # fmt: skip
    name = search.study or what[:8]
    folder = Path(config.outputs).expanduser() / "studies"
    folder.mkdir(parents=True, exist_ok=True)
    with _held(folder / f".{name}.lock", name), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = _opened(search, name, folder / f"{name}.db", what, fresh=asked.fresh)
        work = _Work(asked, planned, space, study)
        work.do()
        table = folder / f"{name}.csv"
        scratch = folder / f".{name}.csv"
        work.table().to_csv(scratch, index=False)
        scratch.replace(table)
        work.show_end(table)
    return Studied(not work.failed and work.count() >= search.trials, work.folders)


@contextmanager
def _held(path: Path, name: str) -> Iterator[None]:
    """Let one process at a time work on a study: it would take the trials of another for killed ones."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ConfigError([f"hydra.sweeper.study={name}: another process works on this study"]) from None
    try:
        yield
    finally:
        lock.release()


def _opened(search: StudyKeys, name: str, file: Path, what: str, *, fresh: bool) -> optuna.Study:
    url = search.storage or f"sqlite:///{file}"
    try:
        storage = optuna.storages.RDBStorage(url)
        if fresh and name in optuna.get_all_study_names(storage):
            optuna.delete_study(study_name=name, storage=storage)
        study = optuna.create_study(study_name=name, storage=storage, direction=search.direction, load_if_exists=True)
        held = study.user_attrs.get(_SEARCH)
        if held is None:
            study.set_user_attr(_SEARCH, what)
    except Exception as error:  # of a driver, a database, a damaged file
        line = next(iter(str(error).splitlines()), "")
        said = f"cannot be used as the database of a study ({type(error).__name__}: {line})"
        raise ConfigError([f"hydra.sweeper.storage={url}: {said}"]) from None
    if held not in (None, what):
        said = "is a study of other keys, ranges, seeds or another metric: give it another name"
        raise ConfigError([f"hydra.sweeper.study={name}: {said}, or --fresh"])
    return study


def _sampler(search: StudyKeys, number: int) -> optuna.samplers.BaseSampler:
    """The sampler that draws trial `number`."""
    seed = int(np.random.SeedSequence([search.sampler_seed, number]).generate_state(1)[0])
    if search.sampler == "random":
        return optuna.samplers.RandomSampler(seed=seed)
    if search.sampler == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=search.at_once > 1)


def _distribution(one: Searched) -> BaseDistribution:
    if one.choices:
        return CategoricalDistribution(one.choices)
    if one.whole:
        return IntDistribution(int(one.low), int(one.high), log=one.log, step=int(one.step or 1))
    return FloatDistribution(one.low, one.high, log=one.log, step=one.step)


class _Work:
    """The trials of one command."""

    def __init__(self, asked: Arguments, planned: Plan, space: Space, study: optuna.Study) -> None:
        self.failed: list[int] = []
        self.folders: list[Path] = []
        self._asked, self._planned, self._space, self._study = asked, planned, space, study
        self._search = space.search
        self._distributions = {one.key: _distribution(one) for one in space.searched}
        shown = Console(stderr=True)
        self._progress = shown if shown.is_terminal else Console(file=io.StringIO())  # a log has a line for each trial

    def count(self) -> int:
        """How many trials have a value."""
        return len(self._study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]))

    def do(self) -> None:
        """Do what is missing: first what was drawn and not ended."""
        left = self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING])
        if before := self.count():
            self._say(f"{before} of {self._search.trials} trials done before")
        for start in range(0, len(left), self._search.at_once):
            self._run([self._again(one) for one in left[start : start + self._search.at_once]])
        while (missing := self._search.trials - self.count() - len(self.failed)) > 0:
            self._run([self._drawn() for _ in range(min(missing, self._search.at_once))])

    def _drawn(self) -> Trial:
        self._study.sampler = _sampler(self._search, len(self._study.get_trials(deepcopy=False)))
        return self._study.ask(self._distributions)

    def _again(self, left: FrozenTrial) -> Trial:
        """A trial that never ended: values that it has stay, values that it lacks are drawn."""
        self._study.sampler = _sampler(self._search, left.number)
        return Trial(self._study, left._trial_id)

    def _run(self, trials: Sequence[Trial]) -> None:
        """Check and execute the runs of `trials`, and tell the study what they gave."""
        plans: dict[int, Plan] = {}
        why: dict[int, str] = {}
        for trial in trials:
            values = {key: trial._suggest(key, found) for key, found in self._distributions.items()}
            try:
                plans[trial.number] = plan(self._asked, drawn=self._space.jobs(values))
            except ConfigError as error:
                why[trial.number] = "; ".join(error.lines)
        jobs = [job for one in plans.values() for job in one.jobs]
        reasons: dict[Path, str] = {}
        if jobs:
            _, reasons = completed(replace(self._planned, jobs=jobs), self._progress)
        self.folders += dict.fromkeys(job.config.folder for job in jobs)
        for trial in trials:
            found: float | str = why.get(trial.number, "")
            if trial.number in plans:
                found = self._value([job.config.folder for job in plans[trial.number].jobs], reasons)
            self._tell(trial, found)

    def _value(self, folders: Sequence[Path], reasons: dict[Path, str]) -> float | str:
        """The mean of the metric over the runs of a trial, or why there is none."""
        values = []
        for folder in folders:
            try:
                values.append(float(read_run(folder)[self._search.column]))
            except (OSError, ValueError, KeyError):
                return why_failed(folder) or reasons.get(folder) or "no result: its process was killed"
        value = sum(values) / len(values)
        return value if math.isfinite(value) else f"{self._search.column} has no value in {folders[0]}"

    def _tell(self, trial: Trial, found: float | str) -> None:
        values = " ".join(one.text(trial.params[one.key]) for one in self._space.searched)
        place = f"trial {trial.number + 1}"
        if isinstance(found, str):
            self.failed.append(trial.number)
            trial.set_user_attr(_WHY, found)
            self._study.tell(trial, state=TrialState.FAIL)
            self._say(f"{place} failed: {values}: {found}")
            return
        self._study.tell(trial, found)
        self._say(f"{place}: {values}: {self._search.column}={found:.6g}, best {self._study.best_value:.6g}")

    def table(self) -> pd.DataFrame:
        """All trials of the study, one row each: number from 1, state, value and drawn values."""
        rows = [
            {"trial": one.number + 1, "state": one.state.name.lower(), self._search.column: one.value, **one.params}
            for one in self._study.get_trials(deepcopy=False)
        ]
        return pd.DataFrame(rows, columns=["trial", "state", self._search.column, *self._distributions])

    def show_end(self, table: Path) -> None:
        """Print the best trial, and where all of them are."""
        if self.count():
            best = self._study.best_trial
            values = " ".join(one.text(best.params[one.key]) for one in self._space.searched)
            value = f"{self._search.column}={best.value:.6g}"
            print(f"best of {self.count()} trials: {values}  # trial {best.number + 1}: {value}")
        if self.failed:
            print(f"{len(self.failed)} trials failed: the same command draws others in their place")
        print(f"written: {table}", flush=True)

    def _say(self, line: str) -> None:
        Console(stderr=True).print(f"study: {line}", highlight=False, soft_wrap=True, markup=False)
