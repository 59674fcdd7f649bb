"""Runs and sweeps from Python, with the folders and digests of the command line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from dtsim.core.parts import ConfigError
from dtsim.reporting.finished import RunResult, SweepResult
from dtsim.results.folders import is_done, why_not_done
from dtsim.runner import experiment
from dtsim.runner.arguments import understood
from dtsim.runner.experiment import JobError
from dtsim.runner.jobs import plan
from dtsim.runner.launch import run_sweep

__all__ = ["JobError", "run", "sweep"]

Scalar = str | int | float | bool | None
Value = Scalar | Iterable["Value"]
Place = str | os.PathLike[str]


def run(*overrides: str, config_dir: Place | None = None, **keys: Value) -> RunResult:
    """Do one run, unless it is done already, and return its result.

    Args:
        overrides: as on the command line, such as "scheme=proposed" or "channel.bandwidth_hz=1e7".
        config_dir: a folder with choices of one's own, as --config-dir.
        keys: keys of the top level and groups, such as mu=20; a nested key is given as **{"generator.amount": "kl"}, a
            list as a list.

    Returns:
        The result, with its files as DataFrames: `slots`, `frames`, `summary` and others.

    Raises:
        ConfigError: with a line for every bad value.
        JobError: where the run fails; the traceback is in its folder.
    """
    asked = plan([*_folder(config_dir), *overrides, *(f"{key}={_text(value)}" for key, value in keys.items())])
    if asked.sweep:
        raise ConfigError(["-m: asks for several runs, which sweep() does"])
    _tell(asked.notes)
    config = asked.jobs[0].config
    was_done = not config.fresh and is_done(config.folder)
    folder = experiment.run(config, table=False)
    if asked.tracker is not None and not was_done:
        from dtsim.runner.tracker import track

        track(*asked.tracker, folder)
    return RunResult(folder)


def sweep(*overrides: str, config_dir: Place | None = None, **keys: Value) -> SweepResult:
    """Do what is missing of a sweep, each run once, and return the results of all of its runs.

    An interrupted sweep is continued by the same call, or by the same command `dtsim run -m`. A notebook shows how far
    it is in one line.

    With `hydra/sweeper=optuna` it does the trials that a study lacks, and returns the folders of their runs.

    Args:
        overrides: as on the command line, with commas between the values of a key: "mu=5,10", "seed=0,1,2", or
            "hydra/launcher=laptop" for a process for each core.
        config_dir: a folder with choices of one's own, as --config-dir.
        keys: further keys of the top level and groups; a list, tuple or range gives several values: seed=range(3).

    Returns:
        The results in the order of the jobs; its `runs` has a row for each, as `dtsim.load` gives them.

    Raises:
        ConfigError: with a line for every bad value of every job; then nothing was run.
        JobError: where a run failed, with a line for each; all others are done.
    """
    texts = [f"{key}={_choice(value)}" for key, value in keys.items()]
    given = understood(["-m", *_folder(config_dir), *overrides, *texts])
    asked = plan(given)
    _tell(asked.notes)
    if asked.space is not None:
        from dtsim.runner.study import optimise  # imports Optuna, which nothing else needs

        studied = optimise(given, asked)
        if not studied.done:
            raise JobError("not all trials of the study are done: the lines above say why")
        return SweepResult(studied.folders)
    folders = list(dict.fromkeys(job.config.folder for job in asked.jobs))
    if not run_sweep(asked, with_results=False):
        left = {folder: why for folder in folders if (why := why_not_done(folder))}
        raise JobError("\n".join(f"{folder}: {why}" for folder, why in left.items()))
    return SweepResult(folders)


def _folder(config_dir: Place | None) -> Sequence[str]:
    return [] if config_dir is None else [f"--config-dir={Path(config_dir)}"]


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _choice(value: Value) -> str:
    """The values of a key in a sweep, with commas between them."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        return _text(value)
    return ",".join(map(_text, value))


def _text(value: Value) -> str:
    """A value as the command line takes it; a list is one value in brackets."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Iterable) and not isinstance(value, str):
        return f"[{','.join(map(_text, value))}]"
    return str(value)
