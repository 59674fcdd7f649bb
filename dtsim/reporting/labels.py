"""What tells runs apart: the keys that differ, by the names that were typed, and the variants that they make.

A key is dotted, such as `generator.amount`; the choice of a group goes by the group's name, such as `channel`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

# Keys that affect the place or time of a run, but not its result; mu and seed have their own columns.
_NO_CHOICE = ("outputs", "cache", "fresh", "format", "mu", "seed", "scheme.name")
_CLASS = "._target_"

_FEW_KEYS = 3
"""More columns of keys leave a table no room for numbers."""

USUAL = "usual"
"""The variant in which every differing key has its most common value, if too many keys differ to name them."""

SCHEMES = (
    *("proposed", "without_dt", "without_il", "single_timescale"),
    *("oracle", "never_retrain"),
    *("prior_correction", "scratch_with_twin"),
)
"""Display order of the schemes: the paper's, the bounds, more baselines; others follow by name."""


def labelled(runs: pd.DataFrame) -> pd.DataFrame:
    """`runs` with `variant` and `scheme` for statistics: runs with equal `variant`, `mu` and `seed` are compared.

    `variant` lists the configuration keys, with their values, that differ between runs of one scheme, such as
    "generator.amount=kl, channel=umi" ("" if none does). If more than two keys differ, it lists only those without
    their most common value, and is `USUAL` if all have it. A key that differs only from scheme to scheme belongs to the
    scheme. If a key of the scheme itself was changed, `scheme` shows it: "proposed, associate=slot". Call this again
    after selecting runs, since fewer keys may differ then.
    """
    name = runs["config.scheme.name"]
    kept = differing(runs, name)
    scheme = name
    for key in kept:
        if key.startswith("scheme."):
            scheme = scheme + ", " + key.removeprefix("scheme.") + "=" + text(runs, key)
    variant = variants(runs, [key for key in kept if not key.startswith("scheme.")])
    return ordered(runs.assign(scheme=scheme, variant=variant), scheme.map(rank))


def ordered(runs: pd.DataFrame, places: pd.Series) -> pd.DataFrame:
    """`runs` by variant (`USUAL` first), mu, what `places` sorts by, and seed."""
    sorted_by = ["_other", "variant", "mu", "_rank", "seed"]
    placed = runs.assign(_other=runs["variant"] != USUAL, _rank=places)
    return placed.sort_values(sorted_by, ignore_index=True).drop(columns=["_other", "_rank"])


def variants(runs: pd.DataFrame, keys: Sequence[str]) -> pd.Series:
    """The variant of each run that `keys` make: "key=value" of all, or of those that are not usual if they are many."""
    common = {key: str(text(runs, key).mode().iloc[0]) for key in keys} if len(keys) > 2 else {}
    variant = _nothing(runs)
    for key in keys:
        said = key + "=" + text(runs, key)
        if key in common:
            said = said.where(text(runs, key) != common[key], "")
        variant = variant.where((variant == "") | (said == ""), variant + ", ") + said
    return variant.where(variant != "", USUAL) if common else variant


def usual(runs: pd.DataFrame) -> str:
    """The meaning of `USUAL` in the variants of `runs`, such as "channel=free_space, objective=makespan"."""
    base = runs[runs["variant"] == USUAL]
    several = [key for key in varying(runs) if not key.startswith("scheme.")]
    fixed = [key for key in several if len(base) and text(base, key).nunique() == 1]
    kept = [key for key in fixed if not any(follows(runs, key, group) for group in _above(key))]
    return ", ".join(f"{key}={text(base, key).iloc[0]}" for key in kept)


def swept(runs: pd.DataFrame) -> list[str]:
    """The keys that differ between runs of one scheme, in addition to mu and seed: the columns of every table."""
    return differing(runs, runs["config.scheme.name"])


def telling_apart(runs: pd.DataFrame, keys: Sequence[str]) -> list[str]:
    """`keys`, or if they are many those that tell runs apart: the choices of groups, then what adds a distinction."""
    if len(keys) <= _FEW_KEYS:
        return list(keys)
    kept, said = [], _nothing(runs)
    for key in sorted(keys, key=lambda key: f"choice.{key}" not in runs):
        with_it = said + "|" + text(runs, key)
        if with_it.nunique() > said.nunique():
            kept.append(key)
            said = with_it
    return [key for key in keys if key in kept]


def differing(runs: pd.DataFrame, within: pd.Series) -> list[str]:
    """The keys that differ between runs with equal `within`, without those that follow from a choice that differs."""
    found = [key for key in varying(runs) if (text(runs, key).groupby(within).nunique() > 1).any()]
    kept = [key for key in found if not any(follows(runs, key, group) for group in _above(key) if group in found)]
    return _telling(runs, kept)


def belonging(runs: pd.DataFrame, to: pd.Series, own: Sequence[str]) -> dict[str, dict[str, str]]:
    """Keys that differ only from one value of `to` to another: for each key, its value for each of them.

    Args:
        runs: as `runs.load` gives them.
        to: a label of each run, such as its scheme.
        own: the groups and keys that the labels are made of, which say nothing more.
    """
    found = {}
    for key in varying(runs):
        values = text(runs, key)
        if any(key == name or key.startswith(f"{name}.") for name in own):
            continue
        if (values.groupby(to).nunique() > 1).any() or any(follows(runs, key, group) for group in _above(key)):
            continue
        firsts = pd.DataFrame({"to": to, "value": values}).drop_duplicates("to")
        found[key] = {str(label): str(value) for label, value in zip(firsts["to"], firsts["value"], strict=True)}
    return found


def with_scheme(runs: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Keys that differ only from scheme to scheme, except the scheme's own keys: for each key the value per scheme."""
    return belonging(runs, runs["config.scheme.name"], ["scheme"])


def rank(scheme: str) -> tuple[int, str]:
    """Sort key of a scheme."""
    name = scheme.partition(",")[0]
    return (SCHEMES.index(name) if name in SCHEMES else len(SCHEMES), scheme)


def keys_of(runs: pd.DataFrame) -> list[str]:
    """The keys of the configurations in `runs` that can affect results; a group with a class goes by its name."""
    columns = set(map(str, runs))
    found: dict[str, None] = {}  # in order, each once
    for key in (column.removeprefix("config.") for column in map(str, runs) if column.startswith("config.")):
        if key in _NO_CHOICE:
            continue
        group = key.partition(".")[0]
        if f"choice.{group}" in columns and group != "scheme":
            found[group] = None
        found[key.removesuffix(_CLASS)] = None
    return list(found)


def varying(runs: pd.DataFrame) -> list[str]:
    """Those of `keys_of` that differ between any runs."""
    found = []
    for key in keys_of(runs):
        values = runs[_column(runs, key)]
        if (values != values.iloc[0]).any() and text(runs, key).nunique() > 1:
            found.append(key)
    return found


def text(runs: pd.DataFrame, key: str) -> pd.Series:
    """The value of a key of every run as text; that of a group is the choice that was typed."""
    return runs[_column(runs, key)].map(shown)


def _column(runs: pd.DataFrame, key: str) -> str:
    if key in ("scheme", "mu", "seed"):
        return {"scheme": "config.scheme.name"}.get(key, key)
    return next(name for name in (f"choice.{key}", f"config.{key}", f"config.{key}{_CLASS}") if name in runs)


def shown(value: Any) -> str:
    """A value as text: a class by its name, an absent key as a dash, a large number as it would be typed."""
    if isinstance(value, float):
        short = f"{value:g}".replace("e+0", "e").replace("e+", "e")
        if value != value:
            return "–"
        return short if abs(value) >= 1e5 and float(short) == value else str(value)
    if isinstance(value, bool):
        return str(value).lower()
    return value.rpartition(".")[2] if isinstance(value, str) and value.startswith("dtsim.") else str(value)


def follows(runs: pd.DataFrame, key: str, group: str) -> bool:
    """Whether `key` of `group` has one value for each choice of the group."""
    if not key.startswith(f"{group}.") or not {f"choice.{group}", f"config.{group}{_CLASS}"} & set(map(str, runs)):
        return False
    return not (text(runs, key).groupby(text(runs, group)).nunique() > 1).any()


def told(values: Mapping[str, str]) -> str:
    """For each value the labels that have it: "4 in cpsat; 8 in greedy, strongest"."""
    by_value: dict[str, list[str]] = {}
    for label, value in values.items():
        by_value.setdefault(value, []).append(label)
    return "; ".join(f"{value} in {', '.join(labels)}" for value, labels in by_value.items())


def _above(key: str) -> list[str]:
    """The groups that `key` is in: "twin" and "twin.predictor" for "twin.predictor.prior"."""
    steps = key.split(".")
    return [".".join(steps[:count]) for count in range(1, len(steps))]


def _telling(runs: pd.DataFrame, keys: list[str]) -> list[str]:
    """`keys` without those that some runs lack (for example, runs of an older version) and that add no distinction."""
    values = {key: text(runs, key) for key in keys}
    whole = [key for key in keys if not (values[key] == "–").any()]
    said = pd.DataFrame({key: values[key] for key in whole}).agg("|".join, axis=1) if whole else _nothing(runs)
    for key in keys:
        if key not in whole and (values[key].groupby(said).nunique() > 1).any():
            whole.append(key)
            said = said + "|" + values[key]
    return whole


def _nothing(runs: pd.DataFrame) -> pd.Series:
    return pd.Series("", index=runs.index)
