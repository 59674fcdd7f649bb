"""One job: skipped if it is already done, else built from its configuration alone, simulated and recorded."""

from __future__ import annotations

import errno
import logging
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from dtsim.allocation.learned.agents import VERSION
from dtsim.core.errors import DatasetError, TrainingDiverged
from dtsim.core.notebook import NotebookProgress, in_notebook
from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Progress
from dtsim.core.terminal import LineProgress, TerminalProgress
from dtsim.reporting import run_table
from dtsim.results import files
from dtsim.results.folders import is_done
from dtsim.results.names import FAILED, RUN
from dtsim.results.summary import queues_summary, summary
from dtsim.runner.assembly import assemble
from dtsim.runner.config import Config
from dtsim.runner.lock import HeartbeatProgress, RunLock, run_lock
from dtsim.runner.log import LoggedProgress, run_log
from dtsim.runner.parts import allocator_name
from dtsim.simulation.contiguous import ContiguousSimulation
from dtsim.simulation.loop import Simulation
from dtsim.simulation.recorder import NotFinite


class JobError(Exception):
    """A run that failed; the message is one line for the user."""


def run(config: Config, *, in_sweep: bool = False, table: bool = True) -> Path:
    """Execute one run and return the folder of its results; a run that is already done is skipped.

    If another process executes it, a single run waits for that process; a job of a sweep raises `RunLocked`. A single
    run prints a `table` of its results.

    Raises:
        JobError: if the run fails; the traceback is in the file `failed` of its folder.
        RunLocked: if another process executes it (`in_sweep`).
        KeyboardInterrupt: if the user interrupts it; no incomplete folder looks finished.
    """
    folder = config.folder
    name = f"{config.scheme['name']} mu={config.mu} seed={config.seed}"
    console = Console(stderr=True)
    shown: Progress = LineProgress(name)
    if console.is_terminal or in_notebook():  # in a sweep, one table shows all jobs
        shown = QUIET if in_sweep else NotebookProgress() if in_notebook() else TerminalProgress(console)
    if not config.fresh and is_done(folder):  # checked without the lock, since the disk may be read-only
        shown.say(f"already done: {folder} (--fresh runs it again)")
        if table and not in_sweep:
            run_table.show([folder])
        return folder
    try:
        with run_lock(folder, on_wait=None if in_sweep else shown.say) as lock:
            if (lock.waited or not config.fresh) and is_done(folder):
                shown.say(f"done by another process in the meantime: {folder}")
            else:
                _do(config, name, lock, shown)
    except OSError as error:
        raise JobError(f"{name}: {_plain(error)}") from error
    if table and not in_sweep:
        run_table.show([folder])
    return folder


def _do(config: Config, name: str, lock: RunLock, shown: Progress) -> None:
    """Execute a run whose lock this process holds."""
    folder = config.folder
    try:
        with run_log(lock.log) as logger:
            _log_start(logger, config, name)
            simulation = assemble(config, HeartbeatProgress(LoggedProgress(shown, logger), lock))
            with simulation.records.timed("simulation"):
                simulation.run(config.frames)
            logger.info("finished")
        _write(config, simulation, lock.log)
    except KeyboardInterrupt:
        shown.say(f"interrupted in {lock.phase}: nothing of this run was written")
        raise
    except (ConfigError, DatasetError, TrainingDiverged, NotFinite, OSError) as error:
        files.write_failure(folder, error, lock.log)
        raise JobError(f"{name}: {_plain(error)}") from error
    except Exception as error:
        files.write_failure(folder, error, lock.log)
        kind = type(error).__name__
        raise JobError(f"{name}: {kind}: {error} (the traceback is in {folder / FAILED})") from error
    shown.say(f"written: {folder}")


def _log_start(logger: logging.Logger, config: Config, name: str) -> None:
    logger.info("run %s, digest %s", name, config.digest)
    logger.info("versions: %s", ", ".join(f"{package} {found}" for package, found in files.versions().items()))


def _write(config: Config, simulation: Simulation | ContiguousSimulation, log: Path) -> None:
    """Write all files of a finished run."""
    records, model = simulation.records, simulation.learners.cost
    topology = simulation.world.network.topology
    allocator = allocator_name(config.allocator)
    row = summary(records, config.objective, allocator, simulation.recorder.accuracy_threshold)
    if isinstance(simulation, ContiguousSimulation):
        row |= queues_summary(records, simulation.ledger.deadline_s, simulation.power.weight_s_per_j)
    records.add(RUN, **row)
    files.write(
        config.folder,
        records,
        form=config.format,
        own={"scheme": config.scheme["name"], "mu": config.mu, "seed": config.seed},
        result={
            "config": config.settings,
            "choices": config.choices,
            "digest": config.digest,
            "versions": {**files.versions(), "policies": str(VERSION)},
            "model": {**asdict(model), "kappa": model.kappa, "flop_per_byte": model.flop_per_byte},
            "splits": {name: len(part) for name, part in vars(simulation.world.splits).items()},
            "topology": {"stations_m": topology.stations_m.tolist(), "area_m": list(topology.area_m)},
            "wall_times_s": records.wall_times_s,
        },
        log=log,
    )


def _plain(error: Exception) -> str:
    """An error in one line, with its path if it has one."""
    if isinstance(error, OSError) and error.filename is not None:
        freed = "; free some space and run the same command again" if error.errno == errno.ENOSPC else ""
        return f"{error.filename}: {error.strerror}{freed}"
    return str(error)
