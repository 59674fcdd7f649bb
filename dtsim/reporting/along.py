"""Comparisons along any key: runs that differ in it, and in nothing else but what follows from it, seed by seed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from dtsim.reporting.labels import belonging, differing, ordered, rank, telling_apart, text, variants
from dtsim.reporting.runs import ReportError
from dtsim.reporting.selection import known_key, natural
from dtsim.reporting.statistics import GROUP, Interval, aggregate, paired

SCHEME = ("scheme",)
"""What is compared by default."""
USUAL_BASELINE = "single_timescale"
"""The scheme that others are compared with by default, if it was run."""

_PAIRED = (
    *("baseline", "pairs", "unpaired", "difference", "difference_low", "difference_high"),
    *("ratio", "ratio_low", "ratio_high", "t", "p", "p_holm", "p_wilcoxon", "p_wilcoxon_holm"),
)


@dataclass(frozen=True)
class Along:
    """Runs side by side along one or more keys, from `along`.

    `runs` have their choice in the column `scheme`, whatever is compared, and what else differs in `variant`: the
    functions of `dtsim.reporting.statistics` take them as they are.
    """

    runs: pd.DataFrame
    keys: tuple[str, ...]
    """What is compared."""
    others: tuple[str, ...]
    """Further keys that differ: runs are only compared where they have the same value."""
    baseline: str | None
    """The choice that the others are compared with; None: only means."""
    interval: Interval = "t"

    @cached_property
    def telling(self) -> list[str]:
        """Those of `others` that a table shows: all, or if they are many those that tell runs apart."""
        return telling_apart(self.runs, self.others)

    @property
    def along_mu(self) -> bool:
        """Whether numbers of MUs are compared: then all are in one group."""
        return "mu" in self.keys

    @cached_property
    def choices(self) -> list[str]:
        """The choices in display order; that of several keys has commas in it."""
        return list(dict.fromkeys(self.runs.sort_values("_place")["scheme"]))

    def named(self, variant: str, choice: str) -> dict[str, str]:
        """The value of each key, `others` first, of the runs of a group."""
        return self._named[variant, choice]

    @cached_property
    def _named(self) -> dict[tuple[str, str], dict[str, str]]:
        firsts = self.runs.drop_duplicates(["variant", "scheme"])
        own = {key: firsts[f"by.{key}"] for key in self.keys}
        columns = {key: text(firsts, key) for key in self.others} | own
        places = zip(firsts["variant"], firsts["scheme"], strict=True)
        return {
            place: {key: str(values.iloc[row]) for key, values in columns.items()} for row, place in enumerate(places)
        }

    def table(self, metrics: Sequence[str] | None = None) -> pd.DataFrame:
        """Means, and differences from the baseline seed by seed, tidy: one row for each group, choice and metric.

        Args:
            metrics: columns of run.csv; all measured ones where none are given.

        Returns:
            A column for each of `others`, `mu` (unless it is compared), a column for each of `keys`, and `metric, unit,
            n` (seeds)`, mean, low, high` (95 % interval)`, interval`. With a baseline also `baseline, pairs` (seeds
            that both have)`, unpaired, difference, difference_low, difference_high, ratio, ratio_low, ratio_high, t, p,
            p_holm, p_wilcoxon, p_wilcoxon_holm` as in `statistics.paired`, NaN in the baseline's own rows.
        """
        found = aggregate(self.runs, metrics, interval=self.interval)
        if self.baseline is not None:
            pairs = paired(self.runs, metrics, baseline=self.baseline, interval=self.interval)
            pairs = pairs.rename(columns={"n": "pairs"})
            place = [*GROUP, "scheme", "metric"]
            found = found.merge(pairs[[*place, *_PAIRED]], on=place, how="left")
        names = [self.named(*place) for place in zip(found["variant"], found["scheme"], strict=True)]
        keys = {key: _numbers(pd.Series([name[key] for name in names])) for key in (*self.others, *self.keys)}
        leading = {key: keys[key] for key in self.others}
        if not self.along_mu:
            leading["mu"] = found["mu"]
        return pd.DataFrame({**leading, **{key: keys[key] for key in self.keys}}).join(
            found.drop(columns=[*GROUP, "scheme"])
        )

    def remarks(self) -> dict[str, dict[str, str]]:
        """Keys that differ only from choice to choice: for each key, its value for each choice."""
        runs, own = self.runs, ["scheme", *self.keys]
        found = belonging(runs, runs["scheme"], own)
        if "scheme" not in self.keys and "scheme" not in self.others and text(runs, "scheme").nunique() > 1:
            firsts = runs.drop_duplicates("scheme")
            found["scheme"] = dict(zip(firsts["scheme"], text(firsts, "scheme"), strict=True))
        return found

    @property
    def title(self) -> str:
        """What is compared with what, in words."""
        said = " and ".join(self.keys)
        return said if self.baseline is None else f"{said}, against {self.baseline}"


def along(
    runs: pd.DataFrame,
    by: Sequence[str] = SCHEME,
    *,
    baseline: str | None = None,
    interval: Interval = "t",
    pairs: bool = True,
) -> Along:
    """Compare `runs` along the keys `by`.

    Args:
        runs: as `runs.load` gives them.
        by: keys such as "solver", "generator.amount", "scheme" or "mu"; several make combinations.
        baseline: the choice that others are compared with, with a comma between the values of several keys; by default
            `USUAL_BASELINE` for schemes, else the first in order.
        interval: see `statistics.mean_interval`.
        pairs: whether there is a baseline where none is given and none is usual.

    Raises:
        ReportError: if no run has a key or is of the baseline.
    """
    keys = tuple(dict.fromkeys(known_key(runs, key, "by") for key in by))
    if not keys or "seed" in keys:
        raise ReportError("by='seed': runs are compared seed by seed; any other key can be compared")
    base = text(runs, keys[0])
    for key in keys[1:]:
        base = base + ", " + text(runs, key)
    with_scheme = base + "|" + text(runs, "scheme")
    inner = {key: [one for one in differing(runs, base) if one.startswith(f"{key}.")] for key in keys}
    own = {key: _with(text(runs, key), runs, key, inner[key]) for key in keys}
    hidden = {*keys, *(one for ones in inner.values() for one in ones)}
    others = [key for key in differing(runs, with_scheme) if key not in hidden]
    if "scheme" not in keys and (text(runs, "scheme").groupby(base).nunique() > 1).any():
        others.insert(0, "scheme")
    label = _joined(list(own.values()))
    places = _places(pd.DataFrame(own).assign(label=label), keys)
    told = runs.assign(scheme=label, variant=variants(runs, others), **{f"by.{key}": own[key] for key in keys})
    if "mu" in keys:
        told["mu"] = 0  # one group
    told = ordered(told.assign(_place=label.map(places)), label.map(places))
    chosen = _baseline(sorted(places, key=lambda one: places[one]), keys, baseline, pairs)
    return Along(told, keys, tuple(others), chosen, interval)


def split(typed: Iterable[str]) -> list[str]:
    """The keys in texts such as "solver,mu"."""
    return [key.strip() for text in typed for key in text.split(",") if key.strip()]


def _with(values: pd.Series, runs: pd.DataFrame, key: str, inner: Sequence[str]) -> pd.Series:
    """The choices of a group with the keys in it that differ within one: "proposed, associate=slot"."""
    for one in inner:
        said = ", " + one.removeprefix(f"{key}.") + "=" + text(runs, one)
        values = values + said.where(text(runs, one) != "–", "")
    return values


def _joined(values: Sequence[pd.Series]) -> pd.Series:
    joined = values[0]
    for one in values[1:]:
        joined = joined + ", " + one
    return joined


def _places(own: pd.DataFrame, keys: Sequence[str]) -> dict[str, int]:
    """The position of every choice: schemes in their usual order, numbers by size, names by the alphabet."""
    unique = own.drop_duplicates("label").to_dict("records")
    unique.sort(key=lambda row: [rank(row[key]) if key == "scheme" else natural(row[key]) for key in keys])
    return {str(row["label"]): place for place, row in enumerate(unique)}


def _baseline(known: Sequence[str], keys: Sequence[str], asked: str | None, pairs: bool) -> str | None:
    if asked is not None:
        normal = {_bare(choice): choice for choice in known}
        if _bare(asked) not in normal:
            raise ReportError(f"baseline={asked!r}: must be one of {_listed(known, keys)}")
        return normal[_bare(asked)]
    if tuple(keys) == SCHEME and USUAL_BASELINE in known:
        return USUAL_BASELINE
    return known[0] if pairs and len(known) > 1 else None


def _bare(choice: str) -> str:
    return ",".join(part.strip() for part in choice.split(","))


def _listed(known: Sequence[str], keys: Sequence[str]) -> str:
    return ", ".join(known) if len(keys) == 1 else "; ".join(known)


def _numbers(values: pd.Series) -> pd.Series:
    """Texts as numbers if all of them are."""
    try:
        return pd.to_numeric(values)
    except ValueError:
        return values
