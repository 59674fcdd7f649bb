"""What Tab offers after `dtsim run`: groups, their choices, keys and what they hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from dtsim.core.parts import ConfigError
from dtsim.runner.arguments import understood
from dtsim.runner.composition import Files, composed
from dtsim.runner.hints import keys_of

_BREAKS = ("=", ":")
"""Where bash ends a word, beside spaces."""


def offers(incomplete: str) -> list[str]:
    """What the shell may put in place of the word `incomplete`, which is the one that is typed.

    bash ends words at = and hands over the rest alone, which is then all that it replaces.
    """
    if "COMP_WORDS" not in os.environ:
        before = os.environ.get("_TYPER_COMPLETE_ARGS", "").split()[2:]
        return completions(incomplete, [word for word in before if word != incomplete])
    words, place = os.environ["COMP_WORDS"].split("\n"), int(os.environ["COMP_CWORD"])
    before, typed = _joined(words[2 : place + 1])
    kept = len(typed) - len(incomplete)
    return [offer[kept:] for offer in completions(typed, before)]


def _joined(words: Sequence[str]) -> tuple[list[str], str]:
    """The words before the last as they were typed, and the last; bash made several of each."""
    whole: list[str] = []
    joins = False
    for word in words:
        is_break = bool(word) and all(character in _BREAKS for character in word)
        if whole and (is_break or joins):
            whole[-1] += word
        else:
            whole.append(word)
        joins = is_break
    return whole[:-1], whole[-1] if whole else ""


def completions(incomplete: str, before: Sequence[str] = ()) -> list[str]:
    """Groups, choices and keys that begin with `incomplete`, after the words `before` it."""
    config, files = _known(before)
    key, is_value, value = incomplete.partition("=")
    if is_value:
        first, comma, last = value.rpartition(",")  # of a sweep
        return [f"{key}={first}{comma}{one}" for one in _values(key, config, files) if one.startswith(last)]
    mark = next((sign for sign in ("++", "+", "~") if incomplete.startswith(sign)), "")
    found = _next_steps(incomplete.removeprefix(mark), config, files)
    if len(found) == 1 and found[0].endswith("="):  # a space would follow what is offered alone
        (only,) = found
        found = [f"{only}{one}" for one in _values(only[:-1], config, files)] or found
    return [f"{mark}{one}" for one in found]


def _known(before: Sequence[str]) -> tuple[Any, Files]:
    """What `before` composes, or its flags alone where it is not finished, and what can be chosen from."""
    try:
        asked = understood(before)
    except ConfigError:
        return composed([]), Files([])
    own = [] if asked.config_dir is None else [f"hydra.searchpath=[file://{asked.config_dir.resolve()}]"]
    files = Files(own)
    choices = [one for one in asked.overrides if files.is_group(one.partition("=")[0])]
    for overrides in ([*own, *choices], own, []):
        try:
            return composed(overrides), files
        except ConfigError:
            continue
    return OmegaConf.create({}), files


def _next_steps(incomplete: str, config: Any, files: Files) -> list[str]:
    """Keys and groups that begin with `incomplete`, up to their next dot."""
    keys = [key for key in keys_of(config) if incomplete.startswith("hydra") or not key.startswith("hydra")]
    groups = [*files.groups(), "hydra/launcher", "hydra/sweeper"]
    found: dict[str, None] = {}
    for name in [*groups, *keys]:
        if not name.startswith(incomplete):
            continue
        dot = name.find(".", len(incomplete))
        holds = name in keys and OmegaConf.is_dict(config) and OmegaConf.is_dict(OmegaConf.select(config, name))
        if dot >= 0:
            found[name[: dot + 1]] = None
        elif name in groups or not holds:
            found[f"{name}="] = None
    if len(found) == 1 and next(iter(found)).endswith(".") and next(iter(found)) != incomplete:
        return _next_steps(next(iter(found)), config, files)
    return list(found)


def _values(key: str, config: Any, files: Files) -> list[str]:
    """The choices of a group, what a switch can be, or the value that a key has."""
    name = key.lstrip("+~")
    if files.is_group(name):
        return files.choices(name)
    try:
        value = OmegaConf.select(config, name, throw_on_missing=False)
    except Exception:  # a ${...} that only a whole configuration resolves
        return []
    if isinstance(value, bool):
        return ["true", "false"]
    return [str(value)] if isinstance(value, int | float | str) else []
