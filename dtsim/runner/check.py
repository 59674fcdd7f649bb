"""All checks of a job that are possible before its first frame; nothing is written or trained."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dtsim.allocation.allocator import SizedAllocator
from dtsim.core.errors import DatasetError
from dtsim.core.parts import ConfigError
from dtsim.core.progress import QUIET, Progress
from dtsim.core.seeding import Streams
from dtsim.learning.data.splits import RawDataset, Splits
from dtsim.results.folders import is_done
from dtsim.results.formats import has_parquet
from dtsim.runner.config import Config
from dtsim.runner.parts import Parts, Shape, device_of, layout_of


@dataclass
class Checker:
    """Checks the jobs of one command; checks that several jobs share are done once."""

    progress: Progress = QUIET
    reads_data: bool = False
    """Whether data sets are read, as in a run; otherwise only the size of their images is determined."""
    runs: bool = True
    """Whether the jobs are to be run; benchmarks only borrow their parts."""
    notes: dict[str, None] = field(default_factory=dict)
    """Remarks that are not errors, one line each, in order."""
    _layouts: dict[str, tuple[Shape, int]] = field(default_factory=dict)
    _data: dict[str, RawDataset] = field(default_factory=dict)
    _seen: dict[str, list[str]] = field(default_factory=dict)

    def check(self, config: Config) -> Parts:
        """Construct the parts of a job and check them against each other, the data and this machine.

        Raises:
            ConfigError: with a line for every fault found.
        """
        parts = Parts(config)
        lines: list[str] = []
        looks = [_check_device, _check_format, _check_outputs, _check_cache]
        for look in [*looks, _check_policy] if self.runs else looks:
            try:
                look(config, parts)
            except ConfigError as error:
                lines += error.lines
        groups = ("dataset", "drift", "model", "retraining")
        lines += self._once({group: getattr(config, group) for group in groups}, config, parts)
        if lines:
            raise ConfigError(lines)
        return parts

    def _once(self, content: dict[str, Any], config: Config, parts: Parts) -> list[str]:
        """The faults between data, drift and model; equal combinations are checked only once."""
        key = _key(content)
        if key not in self._seen:
            try:
                self._check_data(config, parts)
                self._seen[key] = []
            except (ConfigError, DatasetError) as error:
                self._seen[key] = str(error).splitlines()
        return self._seen[key]

    def _check_data(self, config: Config, parts: Parts) -> None:
        if self.reads_data:
            raw = self._loaded(config, parts)
            shape, classes = raw.sample_shape, len(raw.classes)
        else:
            shape, classes = self._layout(config, parts)
        unseen = parts.drift.unseen(classes)
        parts.drift.class_distributions(classes, Streams(0).numpy("check"))
        try:
            model = parts.model.build(shape, classes, 0)
        except ValueError as error:
            raise ConfigError([f"model.{error}"]) from None
        try:
            parts.retraining.cost(model, shape)
        except ValueError as error:
            raise ConfigError([f"retraining.trainable={parts.retraining.trainable!r}: {error}"]) from None
        if self.reads_data:
            splits = parts.dataset.split(raw, unseen, Streams(0).numpy("split"))
            self.notes |= dict.fromkeys(smaller_splits(parts.dataset, splits))

    def _layout(self, config: Config, parts: Parts) -> tuple[Shape, int]:
        key = _key(config.dataset)
        if key not in self._layouts:
            self._layouts[key] = layout_of(parts.dataset, config.cache_folder)
        return self._layouts[key]

    def _loaded(self, config: Config, parts: Parts) -> RawDataset:
        key = _key(config.dataset)
        if key not in self._data:
            self._data[key] = parts.dataset.load(config.cache_folder, self.progress)
        return self._data[key]


def smaller_splits(dataset: object, splits: Splits) -> list[str]:
    """A line for every split that holds fewer images than its key requests."""
    lines = []
    for name, part in vars(splits).items():
        asked = getattr(dataset, f"{name}_images", 0)  # a user-defined class need not have such keys
        if len(part) < asked:
            lines.append(f"dataset.{name}_images={asked}: the data set has only {len(part):,} for it")
    return lines


def _check_device(config: Config, parts: Parts) -> None:
    device_of(config.device)


def _check_format(config: Config, parts: Parts) -> None:
    if config.format == "parquet" and not has_parquet():
        raise ConfigError(["format=parquet: must be csv unless pyarrow is installed: pip install 'dtsim[parquet]'"])


def _check_outputs(config: Config, parts: Parts) -> None:
    """Reject a folder that cannot be written, unless the result already exists; create nothing."""
    if not config.fresh and is_done(config.folder):
        return
    there = _nearest(Path(config.outputs))
    if not there.is_dir():
        raise ConfigError([f"outputs={config.outputs!r}: must be a folder that can be written (Not a directory)"])
    if not _can_be_written(there):
        raise ConfigError([f"outputs={config.outputs!r}: must be a folder that can be written (no permission)"])


def _can_be_written(folder: Path) -> bool:
    if not os.access(folder, os.W_OK | os.X_OK):
        return False
    if not hasattr(os, "statvfs"):
        return True
    disk = os.statvfs(folder)
    if disk.f_blocks == 0:  # no disk, as /proc: there root may write, but not create; only an attempt tells
        try:
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            return False
    return not disk.f_flag & os.ST_RDONLY


def _nearest(path: Path) -> Path:
    """`path`, or the nearest folder above it that exists."""
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def _check_cache(config: Config, parts: Parts) -> None:
    """Reject a cache that is something else than a folder."""
    there = _nearest(config.cache_folder)
    if not there.is_dir():
        raise ConfigError([f"cache={str(config.cache_folder)!r}: must be a folder, {there} is none"])


def _check_policy(config: Config, parts: Parts) -> None:
    """Reject a policy that cannot serve the run's number of MUs or BSs."""
    if isinstance(parts.allocator, SizedAllocator):
        parts.allocator.check_fits(users=config.mu, stations=parts.topology.build().stations)


def _key(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True)
