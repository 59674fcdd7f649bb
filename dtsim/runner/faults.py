"""What Hydra refuses, one line a fault: the key, its value and what is allowed."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.types import ChoiceSweep
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dtsim.core.parts import ConfigError
from dtsim.runner.hints import keys_of, meant, no_such_key
from dtsim.runner.overrides import parsed

_EXTRAS = {"ray": "ray", "ray_cluster": "ray", "submitit_slurm": "slurm", "submitit_local": "slurm", "slurm": "slurm"}
"""Launchers that need an extra of dtsim, which Hydra does not find without it."""


_KINDS = {
    "merge DictConfig with ListConfig": "a list", "incompatible container types": "a list",
    "converted to Integer": "a whole number",
    "converted to Float": "a number", "is not a valid bool": "true or false",
}  # fmt: skip
"""What OmegaConf says of a value of another type, and what the value must be."""


class _Files(Protocol):
    """The YAML files that can be chosen from."""

    def is_group(self, name: str) -> bool: ...
    def choices(self, group: str) -> list[str]: ...
    def groups(self) -> list[str]: ...


def of(
    error: Exception, overrides: Sequence[str], files: _Files, compose: Callable[[list[str]], Any]
) -> tuple[list[str], Any]:
    """A line for each fault of `overrides` that can be told from the others.

    Args:
        error: what Hydra raised for all of them.
        overrides: without sweeps.
        files: what can be chosen from.
        compose: makes a configuration of overrides.

    Returns:
        The lines, and what is composed of the overrides that have no fault; None where nothing can be.
    """
    try:
        found = parsed(overrides)
    except ConfigError as unreadable:
        return unreadable.lines, None
    groups = [one for one in found if is_choice(one, files)]
    wrong = {one.key_or_group: line for one in groups if (line := bad_choice(one, files))}
    good = [one for one in groups if one.key_or_group not in wrong]
    lines = list(wrong.values())
    try:
        base = compose([one.input_line for one in found if one in good or _is_searchpath(one)])
    except Exception as again:  # its kind was seen by the caller, who asks what it means
        return lines or [_unplaced(again, good, files)], None
    keys = [*files.groups(), *keys_of(base)]
    for one in found:
        if one in groups or _is_searchpath(one) or one.key_or_group.partition(".")[0] in wrong:
            continue  # which keys a group has depends on what is chosen
        above = one.key_or_group.rpartition(".")[0]
        if above in keys and not OmegaConf.is_dict(OmegaConf.select(base, above, throw_on_missing=False)):
            written = f"{above}={one.input_line.partition('=')[2]}"
            lines.append(f"{one.input_line}: {above} is a value and has no keys: write {written}")
            continue
        try:
            ConfigLoaderImpl._apply_overrides_to_config([one], base)
        except (HydraException, OmegaConfBaseException, ValueError, TypeError, AttributeError) as bad:
            lines.append(_bad_key(one, bad, keys))
    return lines or [_unplaced(error, good, files)], base


def is_choice(one: Any, files: _Files) -> bool:
    """Whether an override chooses one of a group's files."""
    return files.is_group(one.key_or_group) and not isinstance(one.value(), dict)


def _is_searchpath(one: Any) -> bool:
    return bool(one.get_key_element() == "hydra.searchpath")


def without_bad_choices(overrides: Sequence[str], files: _Files) -> tuple[list[str], list[str]]:
    """`overrides` without what leaves a group out or sweeps over choices that do not exist, and a line for each.

    Raises:
        ConfigError: where no value of a sweep is left, or one override names several choices for one job.
    """
    kept, lines = [], []
    for one in parsed(overrides):
        kept.append(one.input_line)
        if not files.is_group(one.key_or_group):
            continue
        if one.is_delete() and (line := bad_choice(one, files)):
            lines.append(line)  # Hydra says nothing where nothing is chosen, as of experiments
            kept.pop()
            continue
        if isinstance(one.value(), list) and (line := bad_choice(one, files)):  # Hydra would merge the files
            raise ConfigError([line])
        if isinstance(one.value(), ChoiceSweep):
            choices = files.choices(one.key_or_group)
            values = list(one.sweep_string_iterator())
            allowed = f"must be one of {', '.join(choices) or 'none, there are none'}"
            wrong = [value for value in values if value not in choices]
            lines += [f"{one.get_key_element()}={value}: {allowed}{meant(value, choices)}" for value in wrong]
            if len(wrong) == len(values):
                raise ConfigError(lines)
            if wrong:
                kept[-1] = f"{one.get_key_element()}={','.join(value for value in values if value in choices)}"
    return kept, lines


def bad_choice(one: Any, files: _Files) -> str | None:
    """What is wrong with group=choice; none where it can be chosen."""
    group, value = one.key_or_group, one.value()
    choices = files.choices(group)
    allowed = f"must be one of {', '.join(choices) or 'none, there are none'}"
    if one.is_delete() or value is None:
        without = "for none, leave the key out" if group == "experiment" else "a group cannot be left out"
        return f"{one.input_line}: {allowed}; {without}"
    if one.package is not None and not one.is_add():
        return f"{one.input_line}: a choice cannot be put elsewhere with @: write {group}={value}"
    if value in choices:
        return None
    if group == "hydra/launcher" and str(value) in _EXTRAS:
        return f"{one.input_line}: is not installed: pip install 'dtsim[{_EXTRAS[str(value)]}]'"
    return f"{one.input_line}: {allowed}{meant(str(value), choices)}"


def _bad_key(one: Any, error: Exception, keys: Sequence[str]) -> str:
    """What is wrong with key=value."""
    key, said = one.key_or_group, str(error)
    cause = error.__cause__
    if one.package is not None:
        written = f"{key}={one.input_line.partition('=')[2]}"
        return f"{one.input_line}: @ is for a choice of a group, and {key} is none: write {written}"
    if "Could not append" in said:
        return f"{one.input_line}: there is such a key already: write {one.input_line.lstrip('+')}"
    if isinstance(cause, OmegaConfBaseException) and not said.startswith("Could not override"):
        reason = next(iter(str(cause).splitlines()), "")
        plain = next((kind for words, kind in _KINDS.items() if words in reason), None)
        return f"{one.input_line}: {f'must be {plain}' if plain else reason[:1].lower() + reason[1:]}"
    if key.startswith("hydra.launcher.") and "hydra.launcher._target_" in keys:
        inside = [name for name in keys if name.startswith("hydra.launcher.")]
        if len(inside) == 1:
            return f"{one.input_line}: needs a launcher that has it, as in hydra/launcher=laptop"
    return f"{one.input_line}: there is no key {key}: {no_such_key(key, keys)}"


def _unplaced(error: Exception, groups: Sequence[Any], files: _Files) -> str:
    """One line for what none of the overrides alone explains."""
    text = str(error)
    plugin = re.search(r"Could not (?:find|load) 'hydra/launcher/(\w+)", text)
    if plugin and plugin[1] in _EXTRAS:
        asked = next((one.input_line for one in groups if one.key_or_group == "hydra/launcher"), "hydra/launcher")
        return f"{asked}: is not installed: pip install 'dtsim[{_EXTRAS[plugin[1]]}]'"
    missing = re.search(r"(?:In '(?P<file>[^']+)': )?Could not (?:find|load) '(?P<group>.+)/(?P<choice>[^/']*)'", text)
    if missing:
        choices = files.choices(missing["group"])
        said = f"{missing['group']}={missing['choice']}: must be one of {', '.join(choices) or 'none, there are none'}"
        where = f"{missing['file']}.yaml" if missing["file"] not in (None, "config") else "a defaults list"
        return f"{where}: {said}{meant(missing['choice'], choices)}"
    unknown = re.search(
        r"(?:In '(?P<file>[^']+)': )?(?:Could not|Invalid Defaults List) override '/?(?P<group>[^':]+)", text
    )
    if unknown:
        where = f"{unknown['file']}.yaml" if unknown["file"] else "a defaults list"
        return f"{where}: override {unknown['group']}: there is no such group{meant(unknown['group'], files.groups())}"
    twice = re.search(r"Multiple values for (?P<group>[^.]+)\.|(?P<own>\S+) appears more than once", text)
    if twice:
        group = twice["group"] or twice["own"]
        given = [one for one in groups if f"{group}/".startswith(f"{one.key_or_group}/")]  # it may choose what it holds
        if not given:
            return f"{group}: there is a choice of it already"
        line, chosen = given[-1].input_line, given[-1].key_or_group
        return f"{line}: there is a choice of {chosen} already: write {line.lstrip('+')}"
    if isinstance(error, RecursionError):
        return "the defaults lists of the files that are chosen lead back to themselves"
    return " ".join(text.split()) or type(error).__name__
