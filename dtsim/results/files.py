"""The files that a run leaves: tidy CSV and one JSON.

A file appears with all others at once, by the rename of a finished folder: a folder that holds `result.json` is a
whole result.
"""

from __future__ import annotations

import json
import platform
import shutil
import traceback
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dtsim.core.cache import naming
from dtsim.learning.models import ModelCost
from dtsim.physical.topology import Topology
from dtsim.results.records import Records
from dtsim.results.schema import SCHEMAS
from dtsim.results.summary import summary
from dtsim.runner.config import Config


def versions() -> dict[str, str]:
    """What the last bits of results depend on: Python, packages, and the instructions that torch uses on this CPU."""
    found = {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()}
    for name in ("dtsim", "torch", "torchvision", "tianshou", "ortools", "highspy", "numpy", "hydra-core"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(config: Config, records: Records, *, model: ModelCost, topology: Topology) -> Path:
    """Write all files of a run at once; return its folder.

    Raises:
        OSError: where they cannot be written; it names the folder. Nothing is left that looks finished.
    """
    folder = config.folder
    scratch, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    try:
        with naming(folder):
            _write_all(scratch, config, records, model, topology)
            if folder.exists():  # a failed run, or one that is redone; deleted piece by piece it would pass for whole
                folder.rename(old)
            scratch.rename(folder)
    finally:
        for left in (scratch, old):
            shutil.rmtree(left, ignore_errors=True)
    return folder


def _write_all(scratch: Path, config: Config, records: Records, model: ModelCost, topology: Topology) -> None:
    scratch.mkdir(parents=True)
    own = {"scheme": config.scheme["name"], "mu": config.mu, "seed": config.seed}
    allocator = str(config.allocator["_target_"]).rpartition(".")[2].lower()
    records.add("run.csv", **summary(records, config.objective, allocator, config.accuracy_threshold))
    for file in SCHEMAS:
        table = records.table(file)
        for place, (column, value) in enumerate(own.items()):
            table.insert(place, column, value)
        table.to_csv(scratch / file, index=False)
    result = {
        "config": asdict(config),
        "digest": config.digest,
        "versions": versions(),
        "model": {**asdict(model), "kappa": model.kappa, "flop_per_byte": model.flop_per_byte},
        "topology": {"stations_m": topology.stations_m.tolist(), "area_m": list(topology.area_m)},
        "wall_times_s": records.wall_times_s,
    }
    (scratch / "result.json").write_text(json.dumps(result, indent=2) + "\n")


def write_failure(folder: Path, error: BaseException) -> None:
    """Leave the traceback of a failed run in its folder, where that can be written."""
    with suppress(OSError):  # a full disk may be why the run failed
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "failed").write_text("".join(traceback.format_exception(error)))
