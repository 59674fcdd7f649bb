"""Composes the jobs of a sweep: with Hydra once for each set of choices, since most jobs differ in plain values."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from dtsim.core.parts import ConfigError
from dtsim.runner.composition import Files, choices_of, composed, config_in, config_of
from dtsim.runner.config import Config


class Composer:
    """Configurations of jobs that may choose from `files`."""

    def __init__(self, files: Files) -> None:
        self._is_group = cache(files.is_group)
        self._override = cache(OverridesParser.create().parse_override)
        self._of_choices: dict[tuple[str, ...], dict[str, Any] | None] = {}
        self._made: dict[tuple[str, ...], dict[str, str]] = {}

    def config(self, overrides: Sequence[str]) -> Config:
        """The configuration of one job.

        Hydra sets values after all choices are made. So what the choices give is composed once and copied, and values
        that are not more than a number or a text for a key that exists are set here. All else is left to Hydra: what
        adds, deletes, merges, refers to another key, or is wrong.

        Raises:
            ConfigError: with a line for every fault.
        """
        read = [self._override(text) for text in overrides]
        sets = [self._is_plain(one) for one in read]
        plain = [one for one, is_set in zip(read, sets, strict=True) if is_set]
        with suppress(ConfigError):  # told below: all faults at once, with what may have been meant
            chosen = tuple(text for text, is_set in zip(overrides, sets, strict=True) if not is_set)
            values = self._copy(chosen)
            if values is not None and all(_set(values, one.key_or_group, one.value()) for one in plain):
                return config_in(values, self._made[chosen])
        return config_of(composed(overrides))

    def _copy(self, chosen: tuple[str, ...]) -> dict[str, Any] | None:
        """What these choices compose, in plain containers; None where a value refers to another or is missing."""
        if chosen not in self._of_choices:
            whole = composed(chosen)
            plain = OmegaConf.to_container(OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"]))
            assert isinstance(plain, dict)
            done = not isinstance(plain.get("experiment"), dict)  # `config_of` refuses it
            done &= not any(isinstance(value, str) and ("${" in value or value == "???") for value in _leaves(plain))
            self._made[chosen] = choices_of(whole.hydra)
            self._of_choices[chosen] = {str(key): value for key, value in plain.items()} if done else None
        return copy.deepcopy(self._of_choices[chosen])

    def _is_plain(self, one: Any) -> bool:
        """Whether an override gives a key a number or a text, and does nothing else."""
        if one.is_add() or one.is_force_add() or one.is_delete() or one.is_hydra_override() or one.package is not None:
            return False
        value = one.value()
        is_simple = value is None or (
            isinstance(value, bool | int | float | str) and "${" not in str(value) and value != "???"
        )
        return is_simple and not self._is_group(one.key_or_group)


def _set(values: dict[str, Any], key: str, value: object) -> bool:
    """Set a dotted key that holds a number or a text; False where there is none."""
    *path, last = key.split(".")
    for name in path:
        inner = values.get(name)
        if not isinstance(inner, dict):
            return False
        values = inner
    if last not in values or isinstance(values[last], dict):
        return False
    values[last] = value
    return True


def _leaves(node: object) -> Iterator[object]:
    if isinstance(node, dict | list):
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _leaves(inner)
    else:
        yield node
