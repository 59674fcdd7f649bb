"""Command line → jobs: composes with Hydra, checks every job before the first starts, and hands over to Hydra.

The only module that knows how Hydra is driven.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import hydra
from hydra import compose, initialize_config_module
from hydra._internal.callbacks import Callbacks
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import HydraContext, RunMode
from omegaconf import OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from rich.console import Console

from dtsim.core.parts import ConfigError
from dtsim.runner.config import Config, Parts, typed
from dtsim.runner.lock import RunLocked, has_traces, run_lock, wait_for
from dtsim.runner.sweep import Sweep

_MODULE = "dtsim.conf"


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


@dataclass(frozen=True)
class Outcome:
    """What became of a job."""

    state: Literal["done", "failed", "elsewhere"]
    why: str = ""


def plan(arguments: Sequence[str]) -> Plan:
    """Compose, check and construct every job that `arguments` (those of `dtsim run`) ask for.

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
    base = _composed(name, _without_sweeps(overrides))
    sweep = bool(arguments_seen.multirun) or base.hydra.mode == RunMode.MULTIRUN
    expanded = _expanded(overrides, base) if sweep else [overrides]
    if not sweep and (swept := _swept(overrides)):
        raise ConfigError([f"{swept[0]}: several values need a sweep: add -m"])
    jobs: list[Job] = []
    lines: dict[str, None] = {}  # in order, each fault once though many jobs may share it
    for job in expanded:
        try:
            config = config_of(_composed(name, job))
            Parts(config)
            _check_writable(config.outputs)
            jobs.append(Job(job, config))
        except ConfigError as error:
            lines.update(dict.fromkeys(error.lines))
    if lines:
        raise ConfigError(list(lines))
    return Plan(jobs, sweep, name, _without_sweeps(overrides), known=not sweep or _is_basic(base))


def config_of(composed: Any) -> Config:
    """The typed configuration in what Hydra composed.

    Raises:
        ConfigError: with a line for every bad value of the top level.
    """
    try:
        own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
        plain = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ConfigError([f"{error.full_key}: must be given"]) from None
    except OmegaConfBaseException as error:
        raise ConfigError([" ".join(str(error).split())]) from None
    assert isinstance(plain, dict)
    return typed({str(key): value for key, value in plain.items()})


def _composed(name: str, overrides: list[str]) -> Any:
    try:
        with initialize_config_module(_MODULE, version_base="1.3"):
            return compose(name, overrides=overrides, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # a group given a number is a ValueError
        raise ConfigError([_one_line(error, overrides)]) from None


def _one_line(error: Exception, overrides: list[str]) -> str:
    """Hydra's several lines as one that names the key, the value and what is allowed."""
    text = str(error)
    missing = re.search(r"Could not find '(?P<group>.+)/(?P<choice>[^/']*)'", text)
    plugin = re.search(r"Could not (?:find|load) 'hydra/launcher/(ray|submitit)", text)
    if plugin:
        asked = next((o for o in overrides if o.startswith("hydra/launcher=")), "hydra/launcher")
        return f"{asked}: is not installed: pip install 'dtsim[{'ray' if plugin[1] == 'ray' else 'slurm'}]'"
    if missing:
        options = re.findall(r"^\t(?!provider=)(.+)$", text, flags=re.MULTILINE)
        return f"{missing['group']}={missing['choice']}: must be one of {', '.join(options) or 'none, there are none'}"
    unknown = re.search(r"Could not override '(?P<key>[^']+)'", text)
    if unknown:
        key = unknown["key"]
        given = next((o for o in overrides if o.lstrip("+~").split("=")[0] == key), key)
        return f"{given}: there is no key {key} (dtsim run --help lists them)"
    return " ".join(text.split())


def _parsed(overrides: list[str]) -> list[Any]:
    try:
        return list(OverridesParser.create().parse_overrides(overrides))
    except HydraException as error:
        text = " ".join(str(error).split())
        unquoted = [override for override in overrides if override.count("=") > 1]
        if unquoted and "mismatched input '='" in text:  # as in every path to a result
            text = f"{unquoted[0]}: a value with = in it needs quotes: \"key='value'\""
        raise ConfigError([text]) from None


def _swept(overrides: list[str]) -> list[str]:
    return [o.input_line for o in _parsed(overrides) if o.is_sweep_override()]


def _without_sweeps(overrides: list[str]) -> list[str]:
    """`overrides` with the first value of each sweep: enough to see the mode and the sweeper."""
    first = BasicSweeper.split_arguments(_parsed(overrides), max_batch_size=1)
    return list(first[0][0]) if first and first[0] else []


def _expanded(overrides: list[str], base: Any) -> list[list[str]]:
    """The overrides of every job of a sweep, in the basic sweeper's order."""
    if not _is_basic(base):
        return [_without_sweeps(overrides)]  # only the sweeper itself knows what it will try
    parameters = OmegaConf.to_container(base.hydra.sweeper.params or OmegaConf.create({}))
    assert isinstance(parameters, dict)
    given = {o.get_key_element() for o in _parsed(overrides)}
    added = [f"{key!s}={value}" for key, value in parameters.items() if key not in given]
    batches = BasicSweeper.split_arguments(_parsed([*added, *overrides]), max_batch_size=None)
    return [list(job) for batch in batches for job in batch]


def _is_basic(base: Any) -> bool:
    return str(base.hydra.sweeper._target_).endswith("BasicSweeper")


def _check_writable(outputs: str) -> None:
    folder = Path(outputs)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError([f"outputs={outputs!r}: must be a folder that can be written ({error.strerror})"]) from None


def launch(arguments: Sequence[str]) -> None:
    """Hand `arguments` to Hydra, which runs the job or jobs (or shows what a flag of its own asks for).

    Raises:
        SystemExit: with code 1 where a single job failed. A failed job of a sweep only leaves its mark.
    """
    sys.argv = ["dtsim run", *arguments]
    hydra.main(config_path=f"pkg://{_MODULE}", config_name="config", version_base="1.3")(job)()


def run_sweep(asked: Plan) -> bool:
    """Do what is missing of a sweep with Hydra's launcher, and show how it goes; whether all is done in the end.

    What another sweep is doing is left to it; this one waits for it last, and does it where the other did not.
    """
    jobs = {job.config.folder: job for job in asked.jobs}  # one that is asked for twice is done once
    sweep = Sweep([job.config for job in jobs.values()])
    for folder in filter(has_traces, sweep.of("skipped")):  # killed between its result and its end
        with suppress(RunLocked), run_lock(folder):
            pass
    why: dict[Path, str] = {}
    with sweep.followed(Console(stderr=True)):
        batches = deque([sweep.undone()])
        while batches:
            if not (batch := batches.popleft()):
                continue
            try:
                outcomes = _launched(asked, [jobs[folder] for folder in batch])
            except Exception as error:  # whatever an engine raises, where a worker was killed or a queue is not there
                sweep.look()
                left = [folder for folder in batch if folder in sweep.undone()]
                begun = [folder for folder in left if has_traces(folder)]
                why |= dict.fromkeys(left, f"{type(error).__name__}: {_first_line(error)}")
                if begun and len(batch) > 1:  # one of these took its engine with it: the others first, then one by one
                    batches.extend([[folder for folder in left if folder not in begun], *([one] for one in begun)])
                continue
            outcome_of = dict(zip(batch, outcomes, strict=True))
            why |= {folder: outcome.why for folder, outcome in outcome_of.items()}
            elsewhere = [folder for folder, outcome in outcome_of.items() if outcome.state == "elsewhere"]
            for folder in elsewhere:
                wait_for(folder)
            sweep.look()
            batches.append([folder for folder in elsewhere if folder in sweep.undone()])
    return sweep.show_results(why)


def _launched(asked: Plan, jobs: Sequence[Job]) -> list[Outcome]:
    """What became of `jobs` under the launcher that the plan names."""
    driver = Hydra.create_main_hydra2("dtsim", create_config_search_path(f"pkg://{_MODULE}"))
    try:
        overrides = [*asked.overrides, "hydra.mode=MULTIRUN"]
        config = driver.compose_config(asked.name, overrides, run_mode=RunMode.MULTIRUN, with_log_configuration=False)
        launcher = Plugins.instance().instantiate_launcher(
            HydraContext(driver.config_loader, Callbacks(config)), task_function=job, config=config
        )
        # What is Hydra's own is in `config`; a job is told the rest.
        own = [[o.input_line for o in _parsed(one.overrides) if not o.is_hydra_override()] for one in jobs]
        return [_outcome(one) for one in launcher.launch(own, initial_job_idx=0)]
    finally:
        GlobalHydra.instance().clear()


def _outcome(returned: JobReturn) -> Outcome:
    value = returned._return_value  # the property prints a failure and raises it
    return value if isinstance(value, Outcome) else Outcome("failed", f"{type(value).__name__}: {value}")


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "")


def job(composed: Any) -> Outcome:
    """What Hydra runs for every job; it may be in a worker process.

    An exception here would make Hydra print a traceback and, in a sweep, hide the failures after the first.
    """
    from dtsim.runner import experiment

    in_sweep = HydraConfig.get().mode == RunMode.MULTIRUN
    try:
        experiment.run(config_of(composed), in_sweep=in_sweep)
    except RunLocked as error:
        return Outcome("elsewhere", str(error))
    except (ConfigError, experiment.JobError) as error:
        if not (in_sweep and sys.stderr.isatty()):  # the sweep's table says it at the end
            print(f"error: {error}", file=sys.stderr, flush=True)
        if not in_sweep:
            sys.exit(1)
        return Outcome("failed", str(error))
    return Outcome("done")
