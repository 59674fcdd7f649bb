"""Runs as a table: one row for each finished run, with its measurements and every key of its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dtsim.reporting.labels import labelled
from dtsim.reporting.named import names_of
from dtsim.results.folders import failed, find, read_run, why_failed
from dtsim.results.formats import read_table
from dtsim.results.seal import DamagedRun, read_result


class ReportError(Exception):
    """Results that cannot be reported; the message is one line for the user."""


def load(*paths: str | Path) -> pd.DataFrame:
    """The finished runs under `paths`, one row each, by variant, mu, scheme and seed.

    Columns: all of run.csv (SI units, in the names); `folder` (Path); `digest`; `config.<key>` for each key of the
    resolved configuration, such as `config.generator.amount` or `config.channel._target_` (null is the text "null", a
    list is JSON; a key that a run's configuration does not have is NaN); `choice.<group>` for the choice of each group
    by the name that was typed, such as "umi"; `versions.<package>`; and `variant` (and `scheme`) as in
    `labels.labelled`. Of several runs with the same digest one is kept.

    Raises:
        ReportError: if a path is not a folder, or there is no readable finished run.
    """
    runs, failures = read(folders(*paths))
    if runs.empty:
        raise ReportError(f"PATH={_listed(paths)!r}: none of the {len(failures)} runs under it has finished")
    return runs


def folders(*paths: str | Path) -> list[Path]:
    """Folders of runs, finished or failed, under `paths`, each once.

    Raises:
        ReportError: if a path is not a folder or contains no run.
    """
    found: dict[Path, Path] = {}  # the folder as it is shown, by where it really is
    for path in map(Path, paths):
        if not path.is_dir():
            raise ReportError(f"PATH={str(path)!r}: there is no such folder")
        under = find(path)
        if not under:
            raise ReportError(f"PATH={str(path)!r}: there is no result under it")
        for folder in under:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def _listed(paths: Sequence[str | Path]) -> str:
    return " ".join(map(str, paths))


def read(found: Iterable[Path]) -> tuple[pd.DataFrame, dict[Path, str]]:
    """The finished runs in the folders `found`, as in `load`, and for each other folder the reason why it has none."""
    rows: list[dict[str, Any]] = []
    failures: dict[Path, str] = {}
    digests: set[str] = set()
    for folder in found:
        if failed(folder):
            failures[folder] = f"failed: {why_failed(folder)}"
            continue
        try:
            row = row_of(folder)
        except DamagedRun as error:
            failures[folder] = str(error)
            continue
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # another version wrote it
            failures[folder] = f"cannot be read: {type(error).__name__}: {error}"
            continue
        if row["digest"] not in digests:
            digests.add(row["digest"])
            rows.append(row)
    if not rows:
        return pd.DataFrame(), failures
    runs = labelled(table_of(rows))
    # Differences that the digest contains but the keys do not, such as the content of a file that a key names.
    again = runs.duplicated(["variant", "mu", "scheme", "seed"])
    for folder in runs.loc[again, "folder"]:
        failures[folder] = "left out: another run has the same scheme, mu, seed and keys, but another digest"
    return runs[~again].reset_index(drop=True), failures


def columns_of(run: pd.Series, file: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All or some columns of a file of one run, a row of `load`'s table.

    Raises:
        ReportError: if the file or a column is missing or damaged.
    """
    path = Path(run["folder"]) / file
    try:
        return read_table(path, columns)
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: {' '.join(str(error).split())}") from error


def threshold_of(run: Mapping[str, Any] | pd.Series) -> float:
    """The accuracy threshold A_th of a run as a number, from a row of `load`'s table."""
    number = run.get("accuracy_threshold")
    # Runs of older versions have it in their configuration alone.
    return float(run["config.accuracy_threshold"] if number is None or pd.isna(number) else number)


def table_of(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows of `row_of` as a table."""
    table = pd.DataFrame(rows, dtype=object)
    # A key that some runs lack stays text: in a column with NaN, 4000 would become 4000.0.
    lacking = [name for name in table if str(name).startswith("config.") and table[name].isna().any()]
    return table.drop(columns=lacking).infer_objects().join(table[lacking])


def row_of(folder: Path) -> dict[str, Any]:
    """The row of a finished run in `load`'s table, without `variant`.

    Raises:
        DamagedRun: if a file is missing or was changed.
        OSError: if it cannot be read.
        ValueError: if it holds something else.
    """
    result = read_result(folder)
    return {
        **read_run(folder),
        "folder": folder,
        "digest": result["digest"],
        **{f"config.{key}": value for key, value in _flat(result["config"])},
        **{f"choice.{group}": name for group, name in names_of(result).items()},
        **{f"versions.{package}": version for package, version in result["versions"].items()},
    }


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is None or isinstance(value, list):
            yield prefix + key, json.dumps(value)
        else:
            yield prefix + key, value
