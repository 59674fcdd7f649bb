"""Runs, sweeps and their results from Python, with the folders and digests of the command line."""

from __future__ import annotations

from pathlib import Path

from dtsim.core.parts import ConfigError
from dtsim.reporting.runs import load
from dtsim.results.folders import is_done
from dtsim.runner import experiment
from dtsim.runner.arguments import understood
from dtsim.runner.jobs import plan
from dtsim.runner.launch import run_sweep

__all__ = ["load", "run", "sweep"]

Value = str | int | float | bool | None


def run(*overrides: str, **keys: Value) -> Path:
    """Do one run, unless it is done already, and return the folder of its results.

    Args:
        overrides: as on the command line, such as "scheme=proposed" or "channel.bandwidth_hz=1e7".
        keys: keys of the top level and groups, such as mu=20.

    Raises:
        ConfigError: with a line for every bad value.
        JobError: where the run fails; the traceback is in its folder.
    """
    asked = plan([*overrides, *_texts(keys)])
    if asked.sweep:
        raise ConfigError(["-m: asks for several runs, which sweep() does"])
    config = asked.jobs[0].config
    was_done = not config.fresh and is_done(config.folder)
    folder = experiment.run(config)
    if asked.tracker is not None and not was_done:
        from dtsim.runner.tracker import track

        track(*asked.tracker, folder)
    return folder


def sweep(*overrides: str, **keys: Value) -> list[Path]:
    """Do what is missing of a sweep, each run once, and return the folders of all of its runs.

    With `hydra/sweeper=optuna` it does the trials that a study lacks, and returns the folders of their runs.

    Args:
        overrides: as on the command line, with commas between the values of a key: "mu=5,10", "seed=0,1,2".
        keys: further keys of the top level and groups.

    Raises:
        ConfigError: with a line for every bad value of every job; then nothing was run.
        JobError: where a run failed; all others are done.
    """
    given = understood(["-m", *overrides, *_texts(keys)])
    asked = plan(given)
    if asked.space is not None:
        from dtsim.runner.study import optimise  # imports Optuna, which nothing else needs

        studied = optimise(given, asked)
        if not studied.done:
            raise experiment.JobError("not all trials of the study are done: the lines above say why")
        return studied.folders
    if not run_sweep(asked):
        raise experiment.JobError("not all runs of the sweep are done: the table above says why")
    return list(dict.fromkeys(job.config.folder for job in asked.jobs))


def _texts(keys: dict[str, Value]) -> list[str]:
    return [f"{key}={_text(value)}" for key, value in keys.items()]


def _text(value: Value) -> str:
    """A value as the command line takes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)
