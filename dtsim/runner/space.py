"""What a study searches: its settings, and the keys whose values are drawn with the range or the choices of each."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, RangeSweep
from omegaconf import OmegaConf
from pydantic import Field

from dtsim.core.parts import ConfigError, part, validated
from dtsim.results.names import RUN
from dtsim.results.queue_columns import MORE
from dtsim.results.schema import OWN, SCHEMAS
from dtsim.runner.hints import meant
from dtsim.runner.overrides import parsed, values_of

METRICS = [name for name in SCHEMAS[RUN] if name not in (*OWN, "objective", "accuracy_threshold", "allocator")]
"""Columns of run.csv that are measured."""
PASSING_METRICS = [name for name in MORE[RUN] if name != "deadline_s"]
"""Those that are measured only where time passes."""

_BETWEEN = 0.382  # a place in a range that is no whole number, so that a key that must be one says so at once


@part
class StudyKeys:
    """The keys of `hydra/sweeper=optuna`."""

    metric: str
    """What is made best: `objective`, the mean system delay, or a column of run.csv."""
    direction: Literal["minimize", "maximize"]
    """Whether a small or a large value is best."""
    trials: int = Field(ge=1, le=100_000)
    """Trials of the study, with those of earlier commands."""
    at_once: int = Field(ge=1, le=1000)
    """Trials drawn before any of them is known: as many as a launcher runs at once."""
    sampler: Literal["tpe", "random", "gp"]
    """How values are drawn: by density ratios (tpe), without learning, or by a Gaussian process."""
    sampler_seed: int = Field(ge=0)
    """Random seed of the sampler."""
    seeds: list[Annotated[int, Field(ge=0)]] | None = Field(min_length=1)
    """Values of `seed` over which the metric is averaged; null: the one of `seed`."""
    study: str | None
    """Name of the study; null: a digest of what is searched."""
    storage: str | None = Field(min_length=1)
    """Database of the study [URL]; null: the SQLite file outputs/studies/<study>.db."""

    @property
    def column(self) -> str:
        """The column of run.csv that is made best."""
        return "system_delay_mean_s" if self.metric == "objective" else self.metric


@dataclass(frozen=True)
class Searched:
    """A key whose value is drawn."""

    key: str
    choices: tuple[str, ...] = ()
    """What it may be; empty where it is a number from `low` to `high`, both included."""
    low: float = 0
    high: float = 0
    step: float | None = None
    log: bool = False

    @property
    def whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int)

    def text(self, value: Any) -> str:
        """The override that gives the key a drawn value."""
        return f"{self.key}={value:.12g}" if isinstance(value, float) else f"{self.key}={value}"

    def probes(self) -> list[str]:
        """Overrides that show whether all of its values are allowed: every choice, or both ends and one between."""
        if self.choices:
            return [self.text(choice) for choice in self.choices]
        between = [] if self.whole or self.step else [self.low + _BETWEEN * (self.high - self.low)]
        return [self.text(value) for value in (self.low, *between, self.high)]


@dataclass(frozen=True)
class Space:
    """All keys that are drawn, and the overrides that every job has."""

    search: StudyKeys
    searched: list[Searched]
    fixed: list[str]

    @property
    def probes(self) -> list[list[str]]:
        """The overrides of jobs that are checked before the first trial: each key through its probes, singly."""
        first = {one.key: one.probes()[0] for one in self.searched}
        jobs = [list(first.values())]
        jobs += [list((first | {one.key: probe}).values()) for one in self.searched for probe in one.probes()[1:]]
        return [[*self.fixed, *job] for job in jobs]

    @property
    def runs(self) -> int:
        """How many runs all trials are."""
        return self.search.trials * len(self.search.seeds or [0])

    def check_metric(self, times: Sequence[dict[str, Any]]) -> None:
        """Refuse a metric that runs with the keys of `times`, those of their groups `time`, do not have.

        Raises:
            ConfigError: in one line.
        """
        if self.search.metric in PASSING_METRICS and any(time["mode"] != "contiguous" for time in times):
            raise ConfigError([f"hydra.sweeper.metric={self.search.metric}: needs time=contiguous"])

    def jobs(self, values: dict[str, Any]) -> list[list[str]]:
        """The overrides of the jobs of a trial with these drawn values: one, or one for each of `seeds`."""
        job = [*self.fixed, *(one.text(values[one.key]) for one in self.searched)]
        return [job] if self.search.seeds is None else [[*job, f"seed={seed}"] for seed in self.search.seeds]


def space_of(node: Any, overrides: Sequence[str], files: Any) -> Space:
    """What Hydra's node of the sweeper and `overrides`, those of its `params` included, ask to search.

    Raises:
        ConfigError: with a line for every fault.
    """
    if find_spec("optuna") is None:
        raise ConfigError(["hydra/sweeper=optuna: is not installed: pip install 'dtsim[optuna]'"])
    keys = OmegaConf.to_container(node, resolve=True)
    assert isinstance(keys, dict)
    search = validated(
        StudyKeys, {str(k): v for k, v in keys.items() if k not in ("_target_", "params")}, "hydra.sweeper"
    )
    lines = []
    known = ["objective", *METRICS, *PASSING_METRICS]
    if search.metric not in known:
        said = f"hydra.sweeper.metric={search.metric}: must be one of {', '.join(known)}"
        lines.append(said + meant(search.metric, known))
    if search.study is not None and not re.fullmatch(r"\w[\w.-]*", search.study):
        lines.append(f"hydra.sweeper.study={search.study}: must be a name of letters, digits, _, - and .")
    searched, fixed = [], []
    for one in {found.get_key_element(): found for found in parsed(overrides)}.values():  # the last of a key counts
        if not one.is_sweep_override():
            fixed.append(str(one.input_line))
            continue
        try:
            searched.append(_searched(one, files))
        except ConfigError as error:
            lines += error.lines
    keys_searched = [one.key for one in searched]
    if search.seeds is not None and "seed" in keys_searched:
        lines.append("seed: is averaged over hydra.sweeper.seeds, and cannot be searched too")
    if not searched and not lines:
        lines.append("hydra/sweeper=optuna: needs a key to search, as in generator.kl_scale_nat=interval(0.05,1)")
    if lines:
        raise ConfigError(lines)
    return Space(search, searched, fixed)


def _searched(one: Any, files: Any) -> Searched:
    """The range or the choices of an override that gives several values.

    Raises:
        ConfigError: where it gives none.
    """
    key, asked, line = str(one.get_key_element()), one.value(), one.input_line
    if isinstance(asked, IntervalSweep):
        low, high, log = asked.start, asked.end, "log" in asked.tags
        if not (isinstance(low, int | float) and isinstance(high, int | float) and -math.inf < low < high < math.inf):
            raise ConfigError([f"{line}: must be interval(LOW,HIGH) with LOW < HIGH"])
        if log and low <= 0:
            raise ConfigError([f"{line}: a logarithmic interval must begin above 0"])
        return Searched(key, low=low, high=high, log=log)
    if isinstance(asked, RangeSweep):
        values_of(one, files)  # refuses one that is empty
        start, stop, step = _ends(asked)
        ends = start, start + (math.ceil((stop - start) / step) - 1) * step
        return Searched(key, low=min(ends), high=max(ends), step=abs(step))
    return Searched(key, choices=tuple(dict.fromkeys(values_of(one, files))))


def _ends(asked: RangeSweep) -> Sequence[Any]:
    """Start, stop and step of a range: whole numbers only if all three are."""
    numbers = asked.start, asked.stop, asked.step
    return numbers if all(isinstance(number, int) for number in numbers) else tuple(map(float, numbers))
