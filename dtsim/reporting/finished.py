"""Finished runs as objects: what `dtsim.run` and `dtsim.sweep` return."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import pandas as pd

from dtsim.reporting.labels import labelled
from dtsim.reporting.runs import ReportError, load, read, row_of, table_of
from dtsim.results.folders import read_run
from dtsim.results.formats import read_table
from dtsim.results.names import ASSOCIATIONS, DRIFT, FRAMES, JOBS, LEARNING_CURVE, REGIONS, SLOTS, TASKS
from dtsim.results.seal import read_result

_SHOWN = (
    *("system_delay_mean_s", "system_delay_p95_s", "accuracy_mean", "breakout_rate", "frame_breakout_rate"),
    *("retrains", "retrain_flop", "allocator_gap_mean", "association_gap_mean"),
    *("deadline_miss_rate", "tasks_waiting", "tasks_dropped", "stale_mean_s", "energy_per_task_j"),
)


class RunResult(os.PathLike[str]):
    """A finished run, with its files as DataFrames; they are read on first use.

    It can be used as the path of its folder: `open(os.path.join(result, "slots.csv"))`. The columns of each file are
    listed in *Files of a run*; every column with a dimension has its SI unit in its name.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        """Of the run in `folder`.

        Raises:
            ReportError: if there is no finished run in it, or it is damaged.
        """
        self.folder = Path(folder)
        """Its folder."""
        try:
            self._row = row_of(self.folder)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReportError(f"{self.folder}: is no finished run ({error})") from None

    @property
    def row(self) -> pd.Series:
        """Its row in the table of `dtsim.load`."""
        return self.table.iloc[0]

    @property
    def table(self) -> pd.DataFrame:
        """The table of `dtsim.load` of this run alone."""
        return labelled(table_of([self._row]))

    @cached_property
    def summary(self) -> pd.Series:
        """What was measured over the whole run: the row of run.csv."""
        return pd.Series(read_run(self.folder))

    @cached_property
    def slots(self) -> pd.DataFrame:
        """One row for each MU in each slot: slots.csv."""
        return self._file(SLOTS)

    @cached_property
    def frames(self) -> pd.DataFrame:
        """One row for each MU in each frame: frames.csv."""
        return self._file(FRAMES)

    @cached_property
    def associations(self) -> pd.DataFrame:
        """One row for each association problem that was solved: associations.csv."""
        return self._file(ASSOCIATIONS)

    @cached_property
    def learning_curve(self) -> pd.DataFrame:
        """One row for each measured step of a training: learning_curve.csv."""
        return self._file(LEARNING_CURVE)

    @cached_property
    def drift(self) -> pd.DataFrame:
        """The region of each MU in each frame: drift.csv."""
        return self._file(DRIFT)

    @cached_property
    def regions(self) -> pd.DataFrame:
        """The class distribution of each region: regions.csv."""
        return self._file(REGIONS)

    @cached_property
    def jobs(self) -> pd.DataFrame:
        """One row for each training job: jobs.csv.

        Raises:
            ReportError: if time does not pass in the run.
        """
        if JOBS not in read_result(self.folder)["files"]:
            raise ReportError(f"{self.folder}: has no {JOBS}, which time=contiguous writes")
        return self._file(JOBS)

    @cached_property
    def tasks(self) -> pd.DataFrame:
        """One row for each task: tasks.csv.

        Raises:
            ReportError: if the run did not write it.
        """
        if TASKS not in read_result(self.folder)["files"]:
            raise ReportError(f"{self.folder}: has no {TASKS}, which time=contiguous writes with time.tasks=true")
        return self._file(TASKS)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, nested as in conf/."""
        config: dict[str, Any] = read_result(self.folder)["config"]
        return config

    def _file(self, name: str) -> pd.DataFrame:
        return read_table(self.folder / name)

    def __fspath__(self) -> str:
        return str(self.folder)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunResult) and self.folder.resolve() == other.folder.resolve()

    def __hash__(self) -> int:
        return hash(self.folder.resolve())

    def __repr__(self) -> str:
        row = self._row
        name = f"{row['scheme']} mu={row['mu']} seed={row['seed']}"
        measured = f"system delay {1e3 * row['system_delay_mean_s']:.1f} ms, accuracy {row['accuracy_mean']:.3f}"
        return f"<run {name}: {measured}, {row['retrains']} retrainings; {self.folder}>"

    def _repr_html_(self) -> str:
        measured = {name: self._row[name] for name in ("scheme", "mu", "seed", *_SHOWN) if name in self._row}
        return str(pd.DataFrame({str(self.folder): measured}).to_html())


class SweepResult(Sequence[RunResult]):
    """The finished runs of a sweep, in the order of its jobs."""

    def __init__(self, folders: Iterable[str | os.PathLike[str]]) -> None:
        """Of the runs in `folders`.

        Raises:
            ReportError: if one holds no finished run.
        """
        self._results = [RunResult(folder) for folder in folders]

    @property
    def folders(self) -> list[Path]:
        """The folder of each run."""
        return [result.folder for result in self._results]

    @cached_property
    def runs(self) -> pd.DataFrame:
        """One row for each run, as `dtsim.load` gives them."""
        found, failures = read(self.folders)
        for folder, why in failures.items():
            raise ReportError(f"{folder}: {why}")
        return found

    @overload
    def __getitem__(self, place: int) -> RunResult: ...
    @overload
    def __getitem__(self, place: slice) -> list[RunResult]: ...
    def __getitem__(self, place: int | slice) -> RunResult | list[RunResult]:
        return self._results[place]

    def __len__(self) -> int:
        return len(self._results)

    def __iter__(self) -> Iterator[RunResult]:
        return iter(self._results)

    def __repr__(self) -> str:
        return f"<sweep of {len(self)} runs>"

    def _repr_html_(self) -> str:
        names = [name for name in ("variant", "scheme", "mu", "seed", *_SHOWN) if name in self.runs]
        return str(self.runs[names].to_html())


Runs = pd.DataFrame | RunResult | SweepResult | str | os.PathLike[str] | Iterable[str | os.PathLike[str]]
"""Finished runs: the table of `dtsim.load`, what `dtsim.run` or `dtsim.sweep` returned, or folders."""


def runs_of(given: Runs) -> pd.DataFrame:
    """`given` as a table of `dtsim.load`.

    Raises:
        ReportError: if a folder holds no finished run.
    """
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, RunResult):
        return given.table
    if isinstance(given, SweepResult):
        return given.runs
    if isinstance(given, str | os.PathLike):
        return load(Path(given))
    return load(*map(Path, given))
