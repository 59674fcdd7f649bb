"""The command line of `dtsim run` and `dtsim check`, divided into flags and overrides."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from dtsim.core.parts import ConfigError
from dtsim.runner.hints import meant
from dtsim.runner.overrides import quoted

CFG = ("job", "hydra", "all")
INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")

_PATH = re.compile(r"(~|\.{0,2}/|\w:)[^,()\[\]{}'\"$=]*")
"""A value that can only be meant as a path."""

_REFUSED = {
    "--experimental-rerun": "it would load a pickle, which can execute anything; give the command of that run again",
    "--config-path": "it would replace dtsim's own files; --config-dir=DIR adds those of a folder",
    "--config-name": "the primary configuration is dtsim's; keys of yours are experiment/NAME.yaml in --config-dir=DIR",
    "--shell-completion": "dtsim --install-completion installs the completion of dtsim",
}
"""Flags of Hydra's that dtsim does not take, and what to do instead."""


@dataclass(frozen=True)
class Arguments:
    """What was typed after `dtsim run` or `dtsim check`."""

    overrides: tuple[str, ...]
    """group=choice and key=value."""
    multirun: bool = False
    config_dir: Path | None = None
    """A folder with choices of the user's."""
    fresh: bool = False
    yes: bool = False
    """Start what is estimated to be too large."""
    help: bool = False
    version: bool = False
    package: str | None = None
    """The part of the configuration that --cfg is to show."""
    shows: tuple[str, ...] = ()
    """Hydra's flags that show something in place of a run, as Hydra takes them."""

    @property
    def flags(self) -> list[str]:
        """Those that are Hydra's."""
        return [*(["--multirun"] if self.multirun else []), *self.shows]


def understood(given: Sequence[str]) -> Arguments:
    """Divide `given`; flags may stand before, between and after the overrides.

    Raises:
        ConfigError: for a flag that does not exist, lacks its value, or is refused.
    """
    found, unknown = _parser().parse_known_intermixed_args(list(given))
    for flag, instead in _REFUSED.items():
        if getattr(found, flag[2:].replace("-", "_")) is not None:
            raise ConfigError([f"{flag}: is refused: {instead}"])
    if unknown:
        known = [option for action in _parser()._actions for option in action.option_strings]
        raise ConfigError(
            [
                f"{flag}: there is no such flag{meant(flag.partition('=')[0], known)} (dtsim run --help lists them)"
                for flag in unknown
            ]
        )
    for flag, value, allowed in (("--cfg", found.cfg, CFG), ("--info", found.info, INFO)):
        if value is not None and value not in allowed:
            raise ConfigError([f"{flag}={value}: must be one of {', '.join(allowed)}{meant(value, allowed)}"])
    shows = [f"--{name}={value}" for name in ("cfg", "info") if (value := getattr(found, name)) is not None]
    shows += ["--hydra-help"] if found.hydra_help else []
    if len(shows) > 1:
        raise ConfigError([f"{' '.join(shows)}: only one of them at a time"])
    if shows and found.multirun:
        raise ConfigError([f"{shows[0]}: shows one job at a time, without -m"])
    if found.cfg is None and (found.resolve or found.package is not None):
        raise ConfigError([f"{'--resolve' if found.resolve else '--package'}: needs --cfg=job, hydra or all"])
    if found.resolve:
        shows.append("--resolve")
    if found.package is not None:
        shows.append(f"--package={found.package}")
    folder = None if found.config_dir is None else Path(found.config_dir).expanduser()
    if folder is not None and not folder.is_dir():
        raise ConfigError([f"--config-dir={found.config_dir}: there is no such folder"])
    return Arguments(
        overrides=tuple(map(_with_path_quoted, found.overrides)),
        multirun=found.multirun,
        config_dir=folder,
        fresh=found.fresh,
        yes=found.yes,
        help=found.help,
        version=found.version,
        package=found.package,
        shows=tuple(shows),
    )


def _with_path_quoted(override: str) -> str:
    """A path as Hydra takes it: in quotes where it has a ~, an umlaut or the like."""
    key, _, value = override.partition("=")
    if not _PATH.fullmatch(value) or (value.isascii() and not value.startswith("~")):
        return override
    return f"{key}={quoted(value)}"


class _Parser(argparse.ArgumentParser):
    """Raises where argparse would print its usage and end the program."""

    def error(self, message: str) -> NoReturn:
        message = re.sub(r"ignored explicit argument .*", "takes no value", message)
        flag, _, said = message.removeprefix("argument ").partition(": ")
        raise ConfigError([f"{flag.rpartition('/')[2]}: {said.replace('expected one argument', 'needs a value')}"])


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="dtsim run", add_help=False, allow_abbrev=False)
    parser.add_argument("overrides", nargs="*")
    for short, flag in (
        ("-m", "--multirun"), ("-h", "--help"), ("-y", "--yes"), ("-r", "--run"), ("", "--fresh"), ("", "--version"),
        ("", "--hydra-help"), ("", "--resolve"),
    ):  # fmt: skip
        parser.add_argument(*filter(None, (short, flag)), action="store_true")
    parser.add_argument("-cd", "--config-dir")
    parser.add_argument("-cn", "--config-name")
    parser.add_argument("-p", "--package")
    parser.add_argument("-c", "--cfg")
    parser.add_argument("-i", "--info", nargs="?", const="all")
    parser.add_argument("-cp", "--config-path")
    parser.add_argument("-sc", "--shell-completion", action="store_const", const=True)
    parser.add_argument("--experimental-rerun", nargs="?", const="")
    return parser
