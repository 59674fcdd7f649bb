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


def meant(typed: str, known: Iterable[str]) -> str:
    """`; did you mean X?` where one of `known` is close to what was typed, else an empty text."""
    candidates = list(known)
    lower = {candidate.lower(): candidate for candidate in candidates}
    close = difflib.get_close_matches(typed.lower(), lower, n=1, cutoff=0.6)
    if not close:  # the last part alone, as in bandwidth_hz for channel.bandwidth_hz
        ends = {_end(candidate): candidate for candidate in candidates}
        close = difflib.get_close_matches(_end(typed), ends, n=1, cutoff=0.8)
        lower = ends
    return f"; did you mean {lower[close[0]]}?" if close else ""


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
        return f"did you mean {last[close[0]]}?" if close else f"must be one of {listed(inside)}"
    if found := meant(key, keys):
        return found.removeprefix("; ")
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
