"""Did you mean: what a mistyped word is closest to."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from typing import Any

from omegaconf import DictConfig

_CHOICES = re.compile(r"^(?P<key>[^=\s]+)=(?P<value>'.*?'|\S+): must be one of (?P<choices>.+)$")
_NO_KEY = re.compile(r"^(?P<key>[^=:\s]+)(?:=.*)?: there is no such key$")
_NO_GROUP = re.compile(r"^(?P<key>[^=\s]+)='(?P<value>.*)': must be a group of keys$")
_SHOWN = 12
_BEGUN = 4
"""Letters after which a key is recognised, whatever follows."""


def meant(typed: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where one of `known` is close to what was typed, else an empty text."""
    candidates = list(known)
    if (found := _begun(typed, candidates)) is None:
        lower = {candidate.lower(): candidate for candidate in candidates}
        close = difflib.get_close_matches(typed.lower(), lower, n=1, cutoff=0.6)
        if not close:  # the last part alone, as in bandwidth_hz for channel.bandwidth_hz
            lower = {_end(candidate): candidate for candidate in candidates}
            close = difflib.get_close_matches(_end(typed), lower, n=1, cutoff=0.8)
        found = lower[close[0]] if close else None
    return f"; did you mean {found}?" if found else ""


def _begun(typed: str, candidates: Iterable[str]) -> str | None:
    """The one whose last part begins with the last part of what was typed, as slots_per_frame does with slots."""
    start = _end(typed)
    found = [one for one in candidates if len(start) >= _BEGUN and _end(one).startswith(start)]
    return min(found, key=lambda one: (one.startswith("hydra"), len(_end(one))), default=None)


def _end(key: str) -> str:
    return re.split("[./]", key.lower())[-1]


def listed(known: Iterable[str]) -> str:
    """`known` with commas between them, the first dozen of them."""
    names = list(known)
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def keys_of(composed: Any, prefix: str = "") -> Iterator[str]:
    """Every key of a composed configuration, dotted, and every group of keys."""
    for name in composed:
        yield f"{prefix}{name}"
        node = composed._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from keys_of(node, f"{prefix}{name}.")


def no_such_key(key: str, known: Iterable[str]) -> str:
    """What to say of a key that does not exist: the one that was meant, or those of its group."""
    keys = list(known)
    group = key.rpartition(".")[0]
    inside = [name for name in keys if group and name.startswith(f"{group}.")]
    if inside:  # what all of them begin with would make any of them close
        last = {name.removeprefix(f"{group}."): name for name in inside}
        close = difflib.get_close_matches(key.removeprefix(f"{group}."), last, n=1, cutoff=0.6)
        found = _begun(key, inside) or (last[close[0]] if close else None)
        return f"did you mean {found}?" if found else f"must be one of {listed(inside)}"
    if hint := meant(key, keys):
        return hint.removeprefix("; ")
    return "dtsim run --help lists them"


def hinted(line: str, known: Iterable[str]) -> str:
    """An error line about a key or a choice with what was meant; any other line as it is.

    Args:
        line: as `dtsim.core.parts` writes it.
        known: keys, dotted, and groups of choices.
    """
    if found := _NO_KEY.match(line):
        return f"{line}: {no_such_key(found['key'], (key for key in known if key != found['key']))}"
    if found := _CHOICES.match(line):
        choices = [choice.strip("' ") for choice in re.split(r",| or ", found["choices"])]
        return line + meant(found["value"].strip("'"), choices)
    if (found := _NO_GROUP.match(line)) and (group := found["key"].replace(".", "/")) in known:
        return f"{line}; write {group}={found['value']}"
    return line
