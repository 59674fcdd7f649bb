"""What cannot fit or end, refused before it starts with an estimate of its memory and hours.

The estimates are rough, within a factor of a few, and know dtsim's own classes only. They catch slips, such as a number
with three zeros too many; --yes starts a run that somebody means.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from dtsim.core.parts import ConfigError
from dtsim.runner.config import FILES, Config
from dtsim.runner.workload import Term, Workload, value_of

MOST_JOBS = 10_000
"""A sweep of more asks for --yes."""

MOST_HOURS = 1000.0
"""A run that would take longer asks for --yes."""

_CONTAINER = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container says how much memory it has, version 2 and 1."""
_SHARE_OF_MEMORY = 0.9
_UNITS = {"TB": 1e12, "GB": 1e9, "MB": 1e6, "kB": 1e3, "B": 1.0}
_WORKER_BYTES = 0.5e9
"""What a process takes before it has any data: Python, torch and the libraries."""


def check(jobs: Sequence[tuple[Config, Collection[str]]], launcher: Any = None) -> None:
    """Refuse jobs that cannot fit into this machine's memory or would not end for weeks.

    Args:
        jobs: the configuration of each, and the keys that were typed.
        launcher: Hydra's node of what runs the jobs of a sweep; None where there is one job.

    Raises:
        ConfigError: with a line for each kind of excess.
    """
    lines: dict[str, None] = {}
    here, most = memory_bytes(), _SHARE_OF_MEMORY * memory_bytes()
    for config, typed in jobs:
        workload = Workload(config)
        if (found := _excess(config, typed, workload.memory(), most)) is not None:
            lines[f"{found[0]} would need about {_bytes(found[1])} of memory, this machine has {_bytes(here)}"] = None
        if (found := _excess(config, typed, workload.time(), 3600 * MOST_HOURS)) is not None:
            hours = f"{found[1] / 3600:,.0f}" if found[1] < 3.6e9 else "a million and more"
            lines[f"{found[0]} would take about {hours} hours, more than {MOST_HOURS:,.0f}"] = None
    workers = _workers(launcher, len(jobs))
    if workers * _WORKER_BYTES > most:
        asked = f".n_jobs={launcher.n_jobs}" if "n_jobs" in launcher else "=submitit_local"
        needed = f"would need about {_bytes(workers * _WORKER_BYTES)} of memory, this machine has {_bytes(here)}"
        lines[f"hydra.launcher{asked}: {workers:,} processes {needed}"] = None
    if lines:
        raise ConfigError([f"{line} (--yes starts it anyway)" for line in lines])


def _excess(config: Config, typed: Collection[str], terms: Iterable[Term], most: float) -> tuple[str, float] | None:
    """The keys of the largest of `terms` and what it is, and the sum of all; None where that is not over `most`."""
    found = list(terms)
    total, largest = sum(term.amount for term in found), max(found, key=lambda term: term.amount)
    if not total > most:
        return None
    named = [key for key in largest.keys if key in typed] or largest.keys
    keys = ", ".join(f"{key}={value}" for key in named if (value := value_of(config, key)) is not None)
    return f"{keys}: {largest.what}", total


def memory_bytes() -> float:
    """The memory of this machine, or of the container that the process is in."""
    found = [float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))]
    for path in _CONTAINER:
        with suppress(OSError, ValueError):  # no container, or no limit: the word max
            found.append(float(Path(path).read_text()))
    return min(found)


def _bytes(count: float) -> str:
    """A size for people."""
    if count >= 1e15:
        return "1,000 TB and more"
    unit = next(unit for unit in ("TB", "GB", "MB", "kB", "B") if count >= _UNITS[unit] or unit == "B")
    return f"{count / _UNITS[unit]:,.3g} {unit}"


def _workers(launcher: Any, jobs: int) -> int:
    """Processes that run at once on this machine."""
    if launcher is None:
        return 1
    asked = launcher.get("n_jobs")
    if isinstance(asked, int):
        return asked if asked > 0 else os.cpu_count() or 1
    return jobs if str(launcher.get("_target_")).endswith("LocalLauncher") else 1


_LEAST = {
    "timeout": 1, "verbose": 0, "timeout_min": 1, "cpus_per_task": 1, "mem_gb": 1, "nodes": 1, "tasks_per_node": 1,
    "array_parallelism": 1, "gpus_per_node": 0,
}  # fmt: skip
"""Of keys of the launchers' that must be no smaller."""


def check_launcher(launcher: Any) -> None:
    """Refuse what a launcher would fail at, or wait on for ever.

    Args:
        launcher: Hydra's node of what runs the jobs of a sweep.

    Raises:
        ConfigError: with a line for each bad value.
    """
    lines = []
    if launcher.get("n_jobs") == 0:
        lines.append("n_jobs=0: must be the number of processes, or -1 for as many as there are cores")
    for name, word in (("pre_dispatch", "all"), ("batch_size", "auto")):
        given = launcher.get(name)
        if given is not None and not re.fullmatch(rf"{word}|[1-9]\d*|[1-9]\d*\*n_jobs", str(given)):
            lines.append(f"{name}={given}: must be {word} or a whole number >= 1")
    for name, low in _LEAST.items():
        given = launcher.get(name)
        if isinstance(given, int | float) and given < low:
            lines.append(f"{name}={given}: must be >= {low}")
    if launcher.get("require") is not None:
        lines.append(f"require={launcher.require}: must be null, every job needs a process of its own")
    if lines:
        raise ConfigError([f"hydra.launcher.{line}" for line in lines])


def check_files(config: Config) -> None:
    """Refuse a FIFO, a device or a folder where a file is to be read: it would be waited on for ever, or never end.

    Raises:
        ConfigError: with a line for each.
    """
    lines = []
    for group, key in FILES:
        given = getattr(config, group).get(key)
        if isinstance(given, str) and (path := Path(given).expanduser()).exists() and not path.is_file():
            lines.append(f"{group}.{key}={given!r}: must be a file, not a folder, a pipe or a device")
    if lines:
        raise ConfigError(lines)
