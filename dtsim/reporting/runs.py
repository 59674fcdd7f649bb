"""Runs as a table: one row for each finished run, with what it measured and every key of its configuration."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from dtsim.results.folders import failed, find, read_run, why_failed
from dtsim.results.seal import DamagedRun, read_result

# What says where and when a run was made, not what was run; mu and seed have columns of their own.
_NO_CHOICE = ("outputs", "cache", "fresh", "mu", "seed", "scheme.name")
_CLASS = "._target_"

USUAL = "usual"
"""The variant that has the commonest value of every key that differs, where they are too many to be named."""

SCHEMES = (
    *("proposed", "without_dt", "without_il", "single_timescale"),
    *("oracle", "never_retrain"),
    *("prior_correction", "scratch_with_twin"),
)
"""The order that schemes are shown in: the paper's, the bounds, more baselines; others follow by name."""


class ReportError(Exception):
    """Results that cannot be reported; the message is one line for the person who asked for it."""


def load(path: str | Path) -> pd.DataFrame:
    """The finished runs under `path`, one row each, by variant, mu, scheme and seed.

    Columns: all of run.csv (SI units, in the names); `folder` (Path); `digest`; `config.<key>` for each key of the
    resolved configuration, such as `config.generator.amount` or `config.channel._target_` (null is the text "null", a
    list its JSON; a key that a run's configuration does not have is NaN); `versions.<package>`; and `variant` (and
    `scheme`) as `labelled` gives them. A run that is there twice (same digest) is taken once.

    Raises:
        ReportError: where `path` is no folder, or there is no finished run that can be read under it.
    """
    runs, failures = read(folders(path))
    if runs.empty:
        raise ReportError(f"PATH={str(path)!r}: none of the {len(failures)} runs under it has finished")
    return runs


def folders(path: str | Path) -> list[Path]:
    """Folders of runs, finished or failed, under `path`.

    Raises:
        ReportError: where `path` is no folder or there is none.
    """
    path = Path(path)
    if not path.is_dir():
        raise ReportError(f"PATH={str(path)!r}: there is no such folder")
    found = find(path)
    if not found:
        raise ReportError(f"PATH={str(path)!r}: there is no result under it")
    return found


def read(found: Iterable[Path]) -> tuple[pd.DataFrame, dict[Path, str]]:
    """The finished runs among the folders `found`, as `load` gives them, and for each other folder why it is none."""
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
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:  # written by another version
            failures[folder] = f"cannot be read: {type(error).__name__}: {error}"
            continue
        if row["digest"] not in digests:
            digests.add(row["digest"])
            rows.append(row)
    if not rows:
        return pd.DataFrame(), failures
    runs = labelled(_table(rows))
    # What a digest knows and the keys do not show, such as the content of a file that a key names.
    again = runs.duplicated(["variant", "mu", "scheme", "seed"])
    for folder in runs.loc[again, "folder"]:
        failures[folder] = "left out: another run has the same scheme, mu, seed and keys, but another digest"
    return runs[~again].reset_index(drop=True), failures


def columns_of(run: pd.Series, file: str, columns: Sequence[str] | None = None) -> pd.DataFrame:
    """All or some columns of a file of one run, a row of `load`'s.

    Raises:
        ReportError: where the file or a column is missing or damaged.
    """
    path = Path(run["folder"]) / file
    try:
        return pd.read_csv(path, usecols=None if columns is None else list(columns))
    except (OSError, ValueError) as error:
        raise ReportError(f"{path}: {' '.join(str(error).split())}") from error


def labelled(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with `variant` and `scheme` as statistics need them: runs that share `variant`, `mu` and `seed` are peers.

    `variant` names the configuration keys, with their values, that differ between runs of one scheme ("" where none
    does), such as "generator.amount=kl, channel=Umi". Where more than two keys differ it names those alone that do not
    have their commonest value, and is `USUAL` where all have it. A key that only differs from scheme to scheme belongs
    to the scheme. Where a key of the scheme itself was changed, `scheme` says so: "proposed, associate=slot".
    Call it again on a selection of runs, for fewer keys may differ there.
    """
    name = runs["config.scheme.name"]
    differing = [key for key in choices(runs) if (_text(runs, key).groupby(name).nunique() > 1).any()]
    # Where the class itself differs, keys that follow from it say nothing more.
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
    """What `USUAL` stands for in the variants of `runs`, such as "channel=FreeSpace, objective=makespan"."""
    base = runs[runs["variant"] == USUAL]
    differing = [key for key in choices(runs) if not key.startswith("scheme.") and _text(runs, key).nunique() > 1]
    fixed = [key for key in differing if len(base) and _text(base, key).nunique() == 1]
    kept = [key for key in fixed if not _follows(runs, key, key.rpartition(".")[0])]
    return ", ".join(f"{_name(key)}={shown(base[f'config.{key}'].iloc[0])}" for key in kept)


def _usual(runs: pd.DataFrame, keys: Sequence[str]) -> dict[str, str]:
    """The commonest value of each of `keys`, where they are too many to name them all."""
    return {key: str(_text(runs, key).mode().iloc[0]) for key in keys} if len(keys) > 2 else {}


def rank(scheme: str) -> tuple[int, str]:
    """Sort key of a scheme."""
    name = scheme.partition(",")[0]
    return (SCHEMES.index(name) if name in SCHEMES else len(SCHEMES), scheme)


def choices(runs: pd.DataFrame) -> list[str]:
    """The keys of the configuration in `runs`, without those that are no choice of what is run."""
    keys = [column.removeprefix("config.") for column in map(str, runs) if column.startswith("config.")]
    return [key for key in keys if key not in _NO_CHOICE]


def with_scheme(runs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """What differs from scheme to scheme only, the scheme's own keys aside: for each key the value of each scheme."""
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
    """A configuration value for people: a class by its name, an absent key as a dash."""
    if isinstance(value, float) and value != value:
        return "–"
    return value.rpartition(".")[2] if isinstance(value, str) and value.startswith("dtsim.") else str(value)


def _telling(runs: pd.DataFrame, keys: list[str]) -> list[str]:
    """`keys` without those that some runs lack (of an older program, say) and that the others tell apart already."""
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
    # A key that some runs lack stays as it is written: among NaN, 4000 would become 4000.0.
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
