"""Starts jobs with Hydra's launchers: one run, or the missing runs of a sweep, and collects their outcomes."""

from __future__ import annotations

import copy
import os
import sys
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra._internal.callbacks import Callbacks
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig, open_dict, read_write
from rich.console import Console

from dtsim.core.parts import ConfigError
from dtsim.runner.composition import MODULE, PRIMARY, choices_of, config_of
from dtsim.runner.config import Config
from dtsim.runner.jobs import Job, Plan
from dtsim.runner.lock import RunLocked, has_traces, run_lock, wait_for
from dtsim.runner.signals import announce_sweep, begin_worker, end_with_sweep
from dtsim.runner.sweep import Sweep


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job."""

    state: Literal["done", "failed", "elsewhere"]
    why: str = ""


def launch(arguments: Sequence[str]) -> None:
    """Pass `arguments` to Hydra, which runs the job or jobs (or prints what one of its own flags requests).

    Raises:
        SystemExit: with code 1 if a single job failed. A failed job of a sweep only leaves its `failed` file.
    """
    sys.argv = ["dtsim run", *arguments]
    hydra.main(config_path=f"pkg://{MODULE}", config_name=PRIMARY, version_base="1.3")(job)()


def run_sweep(asked: Plan, *, with_results: bool = True) -> bool:
    """Execute the missing runs of a sweep with Hydra's launcher and show the progress; return whether all are done.

    At the end it shows what failed and, `with_results`, a table of the results.

    Runs that another sweep executes are waited for at the end; this sweep executes those that the other did not finish.
    """
    sweep, why = completed(asked, Console(stderr=True))
    return sweep.show_end(why, with_results=with_results)


def completed(asked: Plan, console: Console) -> tuple[Sweep, dict[Path, str]]:
    """Execute the missing runs of a sweep, with its progress on `console`; return it, and why runs were not done."""
    announce_sweep()
    jobs = {job.config.folder: job for job in asked.jobs}  # duplicates are executed once
    sweep = Sweep([job.config for job in jobs.values()])
    for folder in filter(has_traces, sweep.of("skipped")):  # killed after the result was written
        with suppress(RunLocked, OSError), run_lock(folder):
            pass
    why: dict[Path, str] = {}
    with sweep.followed(console):
        batches = deque([sweep.undone()])
        while batches:
            if not (batch := batches.popleft()):
                continue
            try:
                outcomes = _launched(asked, [jobs[folder] for folder in batch])
            except Exception as error:  # any error of a launcher, such as a killed worker or a missing queue
                sweep.look()
                left = [folder for folder in batch if folder in sweep.undone()]
                begun = [folder for folder in left if has_traces(folder)]
                why |= dict.fromkeys(left, f"{type(error).__name__}: {_first_line(error)}")
                if begun and len(batch) > 1:  # one of these killed its launcher: run the others first, these singly
                    batches.extend([[folder for folder in left if folder not in begun], *([one] for one in begun)])
                continue
            outcome_of = dict(zip(batch, outcomes, strict=True))
            why |= {folder: outcome.why for folder, outcome in outcome_of.items()}
            elsewhere = [folder for folder, outcome in outcome_of.items() if outcome.state == "elsewhere"]
            for folder in elsewhere:
                wait_for(folder)
            sweep.look()
            batches.append([folder for folder in elsewhere if folder in sweep.undone()])
    return sweep, why


def _launched(asked: Plan, jobs: Sequence[Job]) -> list[Outcome]:
    """The outcomes of `jobs` with the launcher of the plan."""
    driver = Hydra.create_main_hydra2("dtsim", create_config_search_path(f"pkg://{MODULE}"))
    try:
        overrides = [*asked.overrides, "hydra.mode=MULTIRUN"]
        config = driver.compose_config(PRIMARY, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        _limit_workers(config.hydra.launcher, len(jobs))
        _watch_from_the_start(config.hydra.launcher)
        context = HydraContext(_PlannedConfigs(driver.config_loader.get_search_path()), Callbacks(config))
        launcher = Plugins.instance().instantiate_launcher(context, task_function=job, config=config)
        own = [[_Planned.of(one)] for one in jobs]
        return [_outcome(one) for one in launcher.launch(own, initial_job_idx=0)]
    finally:
        GlobalHydra.instance().clear()


class _Planned(str):
    """The overrides of a job as one text, which carries its configuration to the process that executes the job."""

    config: Config

    @classmethod
    def of(cls, one: Job) -> _Planned:
        """Carry the configuration of `one`."""
        carrier = cls(" ".join(one.overrides))
        carrier.config = one.config
        return carrier


class _PlannedConfigs(ConfigLoaderImpl):  # type: ignore[misc]
    """Gives Hydra's launchers the configurations that are composed already, since composing takes 0.1 s a job."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """The configuration of the sweep with that of one job in it."""
        (planned,) = sweep_overrides
        assert isinstance(planned, _Planned)
        config = copy.deepcopy(master_config)
        with open_dict(config), read_write(config):
            for key, value in planned.config.settings.items():
                config[key] = value
            config.hydra.runtime.choices = planned.config.choices
            config.hydra.overrides.task = planned.split()
        return config


def _limit_workers(launcher: DictConfig, jobs: int) -> None:
    """Start at most one joblib worker per job: a worker without a job would keep waiting.

    A single job gets two all the same. With one joblib would execute it in this process, and a job that is killed must
    not take the sweep with it.
    """
    asked = launcher.get("n_jobs")
    if asked is not None:
        workers = asked if asked > 0 else os.cpu_count() or 1
        with open_dict(launcher), read_write(launcher):
            launcher.n_jobs = min(workers, max(2, jobs))


def _watch_from_the_start(launcher: DictConfig) -> None:
    """Let joblib's workers watch for the end of this process from their own start on."""
    if "joblib" not in str(launcher.get("_target_")):
        return
    from joblib import register_parallel_backend
    from joblib.parallel import LokyBackend

    class WatchedWorkers(LokyBackend):  # type: ignore[misc]
        def configure(self, *arguments: Any, **keywords: Any) -> Any:
            return super().configure(*arguments, initializer=begin_worker, **keywords)

    register_parallel_backend("loky", WatchedWorkers)


def _outcome(returned: JobReturn) -> Outcome:
    value = returned._return_value  # the property prints a failure and raises it
    return value if isinstance(value, Outcome) else Outcome("failed", f"{type(value).__name__}: {value}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def job(composed: Any) -> Outcome:
    """The task function that Hydra calls for every job, possibly in a worker process.

    An exception here would make Hydra print a traceback and, in a sweep, hide all failures after the first.
    """
    from dtsim.runner import experiment

    asked = HydraConfig.get()
    in_sweep = asked.mode == RunMode.MULTIRUN
    if in_sweep:
        end_with_sweep()
    try:
        experiment.run(config_of(composed, choices_of(asked)), in_sweep=in_sweep)
    except RunLocked as error:
        return Outcome("elsewhere", str(error))
    except (ConfigError, experiment.JobError) as error:
        if not (in_sweep and sys.stderr.isatty()):  # else the sweep's table shows it at the end
            print(f"error: {error}", file=sys.stderr, flush=True)
        if not in_sweep:
            sys.exit(1)
        return Outcome("failed", str(error))
    return Outcome("done")
