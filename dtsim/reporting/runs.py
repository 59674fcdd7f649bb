"""Runs as a table: one row for each finished run, with its measurements and every key of its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dtsim.results.folders import failed, find, read_run, why_failed
from dtsim.results.formats import read_table
from dtsim.results.seal import DamagedRun, read_result

# Keys that affect the place or time of a run, but not its result; mu and seed have their own columns.
_NO_CHOICE = ("outputs", "cache", "fresh", "format", "mu", "seed", "scheme.name")
_CLASS = "._target_"

USUAL = "usual"
"""The variant in which every differing key has its most common value, if too many keys differ to name them."""

SCHEMES = (
    *("proposed", "without_dt", "without_il", "single_timescale"),
    *("oracle", "never_retrain"),
    *("prior_correction", "scratch_with_twin"),
)
"""Display order of the schemes: the paper's, the bounds, more baselines; others follow by name."""


class ReportError(Exception):
    """Results that cannot be reported; the message is one line for the user."""


def load(path: str | Path) -> pd.DataFrame:
    """The finished runs under `path`, one row each, by variant, mu, scheme and seed.

    Columns: all of run.csv (SI units, in the names); `folder` (Path); `digest`; `config.<key>` for each key of the
    Columns: all of run.csv (SI units, in the names); `folder` (Path); `digest`; `config.<key>` for each key of the
    resolved configuration, such as `config.generator.amount` or `config.channel._target_` (null is the text "null", a
    list is JSON; a key that a run's configuration does not have is NaN); `versions.<package>`; and `variant` (and
    `scheme`) as in `labelled`. Of several runs with the same digest one is kept.

    Raises:
        ReportError: if `path` is not a folder, or has no readable finished run.
    """
    runs, failures = read(folders(path))
    if runs.empty:
        raise ReportError(f"PATH={str(path)!r}: none of the {len(failures)} runs under it has finished")
    return runs


def folders(path: str | Path) -> list[Path]:
    """Folders of runs, finished or failed, under `path`.

    Raises:
        ReportError: if `path` is not a folder or contains no run.
    """
    path = Path(path)
    if not path.is_dir():
        raise ReportError(f"PATH={str(path)!r}: there is no such folder")
    found = find(path)
    if not found:
        raise ReportError(f"PATH={str(path)!r}: there is no result under it")
    return found


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
            row = _row(folder)
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
    runs = labelled(_table(rows))
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


def labelled(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with `variant` and `scheme` for statistics: runs with equal `variant`, `mu` and `seed` are compared.

    `variant` lists the configuration keys, with their values, that differ between runs of one scheme, such as
    "generator.amount=kl, channel=Umi" ("" if none does). If more than two keys differ, it lists only those without
    their most common value, and is `USUAL` if all have it. A key that differs only from scheme to scheme belongs to the
    scheme. If a key of the scheme itself was changed, `scheme` shows it: "proposed, associate=slot". Call this again
    after selecting runs, since fewer keys may differ then.
    """
    name = runs["config.scheme.name"]
    differing = [key for key in choices(runs) if (_text(runs, key).groupby(name).nunique() > 1).any()]
    # If the class of a group differs, the keys that follow from it add no information.
    classes = [key.removesuffix(_CLASS) for key in differing if key.endswith(_CLASS)]
    kept = [key for key in differing if not any(_follows(runs, key, group) for group in classes)]
    kept = _telling(runs, kept)
    own = [key for key in kept if key.startswith("scheme.")]
    variant = _nothing(runs)
    scheme = name
    common = _usual(runs, [key for key in kept if key not in own])
    for key in kept:
        said = _name(key) + "=" + runs[f"config.{key}"].map(shown)
        if key in own:
            scheme = scheme + ", " + said
        elif key in common:
            said = said.where(_text(runs, key) != common[key], "")
            variant = variant.where((variant == "") | (said == ""), variant + ", ") + said
        else:
            variant = variant.where(variant == "", variant + ", ") + said
    if common:
        variant = variant.where(variant != "", USUAL)
    ordered = runs.assign(scheme=scheme, variant=variant, _other=variant != USUAL, _rank=scheme.map(rank))
    order = ["_other", "variant", "mu", "_rank", "seed"]
    return ordered.sort_values(order, ignore_index=True).drop(columns=["_other", "_rank"])


def usual(runs: pd.DataFrame) -> str:
    """The meaning of `USUAL` in the variants of `runs`, such as "channel=FreeSpace, objective=makespan"."""
    base = runs[runs["variant"] == USUAL]
    differing = [key for key in choices(runs) if not key.startswith("scheme.") and _text(runs, key).nunique() > 1]
    fixed = [key for key in differing if len(base) and _text(base, key).nunique() == 1]
    kept = [key for key in fixed if not _follows(runs, key, key.rpartition(".")[0])]
    return ", ".join(f"{_name(key)}={shown(base[f'config.{key}'].iloc[0])}" for key in kept)


def _usual(runs: pd.DataFrame, keys: Sequence[str]) -> dict[str, str]:
    """The most common value of each of `keys`, if there are too many to name them all."""
    return {key: str(_text(runs, key).mode().iloc[0]) for key in keys} if len(keys) > 2 else {}


def rank(scheme: str) -> tuple[int, str]:
    """Sort key of a scheme."""
    name = scheme.partition(",")[0]
    return (SCHEMES.index(name) if name in SCHEMES else len(SCHEMES), scheme)


def choices(runs: pd.DataFrame) -> list[str]:
    """The configuration keys in `runs`, without those that do not affect results."""
    keys = [column.removeprefix("config.") for column in map(str, runs) if column.startswith("config.")]
    return [key for key in keys if key not in _NO_CHOICE]


def with_scheme(runs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Keys that differ only from scheme to scheme, except the scheme's own keys: for each key the value per scheme."""
    name = runs["config.scheme.name"]
    found = {}
    for key in choices(runs):
        values = _text(runs, key)
        varies_within = (values.groupby(name).nunique() > 1).any()
        if key.startswith("scheme.") or varies_within or values.nunique() == 1:
            continue
        if not _follows(runs, key, key.rpartition(".")[0]):
            firsts = runs.drop_duplicates("config.scheme.name").set_index("config.scheme.name")[f"config.{key}"]
            found[_name(key)] = {str(scheme): shown(value) for scheme, value in firsts.items()}
    return found


def shown(value: Any) -> str:
    """A configuration value as text: a class by its name, an absent key as a dash."""
    if isinstance(value, float) and value != value:
        return "–"
    return value.rpartition(".")[2] if isinstance(value, str) and value.startswith("dtsim.") else str(value)


def _telling(runs: pd.DataFrame, keys: list[str]) -> list[str]:
    """`keys` without those that some runs lack (for example, runs of an older version) and that add no distinction."""
    whole = [key for key in keys if runs[f"config.{key}"].notna().all()]
    told = runs[[f"config.{key}" for key in whole]].astype(str).agg("|".join, axis=1) if whole else _nothing(runs)
    for key in keys:
        if key not in whole and (_text(runs, key).groupby(told).nunique() > 1).any():
            whole.append(key)
            told = told + "|" + _text(runs, key)
    return whole


def _nothing(runs: pd.DataFrame) -> pd.Series:
    return pd.Series("", index=runs.index)


def _name(key: str) -> str:
    return key.removesuffix(_CLASS).removeprefix("scheme.")


def _text(runs: pd.DataFrame, key: str) -> pd.Series:
    return runs[f"config.{key}"].astype(str)


def _follows(runs: pd.DataFrame, key: str, group: str) -> bool:
    """Whether `key` of `group` has one value for each class of the group."""
    place = group + _CLASS
    if key == place or not key.startswith(f"{group}.") or f"config.{place}" not in runs:
        return False
    return not (_text(runs, key).groupby(_text(runs, place)).nunique() > 1).any()


def _table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, dtype=object)
    # A key that some runs lack stays text: in a column with NaN, 4000 would become 4000.0.
    lacking = [name for name in table if str(name).startswith("config.") and table[name].isna().any()]
    return table.drop(columns=lacking).infer_objects().join(table[lacking])


def _row(folder: Path) -> dict[str, Any]:
    result = read_result(folder)
    return {
        **read_run(folder),
        "folder": folder,
        "digest": result["digest"],
        **{f"config.{key}": value for key, value in _flat(result["config"])},
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
