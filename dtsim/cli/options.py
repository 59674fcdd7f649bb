"""What the verbs share: types of arguments, lists of numbers, errors and progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from dtsim.core.progress import Progress
    from dtsim.runner.arguments import Arguments
    from dtsim.runner.jobs import Plan

T = TypeVar("T", int, float)

HYDRA: dict[str, Any] = {
    "context_settings": {
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "allow_interspersed_args": False,
    },
    "add_help_option": False,
}
"""Settings of a command whose arguments are all Hydra's."""


def _complete(ctx: typer.Context, args: list[str], incomplete: str) -> list[str]:
    from dtsim.runner.completion import offers

    return offers(incomplete)


Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        help="group=choice, key=value and Hydra's flags", autocompletion=_complete, metavar="[OVERRIDES]..."
    ),
]
"""Hydra's flags too."""

Keys = Annotated[
    list[str] | None, typer.Argument(help="group=choice and key=value, as for run", metavar="[OVERRIDES]...")
]
"""Overrides without flags."""


def names(text: str) -> list[str]:
    """Names with commas between them; an empty text has none."""
    return [name for name in text.split(",") if name]


def whole_numbers(option: str, text: str) -> list[int]:
    """Whole numbers with commas between them."""
    return _listed(option, text, int, "whole numbers", 1, 10**5)


def numbers(option: str, text: str) -> list[float]:
    """Numbers with commas between them."""
    return _listed(option, text, float, "numbers", 0.0, 1000.0)


def pairs(option: str, text: str) -> list[tuple[int, int]]:
    """Pairs of whole numbers such as 50/5, with commas between them."""
    try:
        listed = [[int(number) for number in part.split("/")] for part in text.split(",")]
        return [(one, other) for one, other in listed]
    except ValueError:
        fail([f"{option}={text!r}: must be pairs of whole numbers such as 50/5 with commas between them"])


def _listed(option: str, text: str, kind: Callable[[str], T], what: str, low: float, high: float) -> list[T]:
    try:
        listed = [kind(part) for part in text.split(",")]
    except ValueError:
        fail([f"{option}={text!r}: must be {what} with commas between them"])
    if not all(low <= number <= high for number in listed):
        fail([f"{option}={text!r}: must be {what} from {low:,g} to {high:,g}"])
    return listed


def progress() -> Progress:
    """Progress for a person: bars on a terminal, lines in a log; on standard error."""
    from rich.console import Console

    from dtsim.core.terminal import LineProgress, TerminalProgress

    console = Console(stderr=True)
    return TerminalProgress(console) if console.is_terminal else LineProgress()


def understood(arguments: list[str] | None) -> Arguments:
    """The flags and overrides of `dtsim run` and `dtsim check`; a flag that is none ends the program."""
    from dtsim.core.parts import ConfigError
    from dtsim.runner import arguments as command_line

    try:
        return command_line.understood(arguments or [])
    except ConfigError as error:
        fail(error.lines)


def answered(asked: Arguments, verb: str) -> bool:
    """Whether --help or --version was asked for, and printed."""
    if asked.help:
        from dtsim.runner.help import show_help

        show_help([] if asked.config_dir is None else ["--config-dir", str(asked.config_dir)], verb=verb)
    elif asked.version:
        show_version()
    return asked.help or asked.version


def show_version() -> None:
    """Print the version of dtsim."""
    from importlib.metadata import version

    typer.echo(f"dtsim {version('dtsim')}")


def checked(asked: Arguments) -> list[str]:
    """The overrides of what one of Hydra's flags is to show; what is wrong with them ends the program."""
    from dtsim.core.parts import ConfigError
    from dtsim.runner.jobs import overrides_of_one

    try:
        return overrides_of_one(asked)
    except ConfigError as error:
        fail(error.lines)


def planned(asked: Arguments, *, reads_data: bool = False) -> Plan:
    """The jobs that are asked for; what is wrong with them ends the program."""
    from dtsim.core.parts import ConfigError
    from dtsim.core.progress import Delayed
    from dtsim.runner.jobs import plan

    try:
        return plan(asked, Delayed(progress()), reads_data=reads_data)
    except ConfigError as error:
        fail(error.lines)


def show_notes(plan: Plan) -> None:
    """Say on standard error what is worth knowing before the jobs run."""
    for note in plan.notes:
        typer.echo(f"note: {note}", err=True)


def fail(lines: list[str]) -> NoReturn:
    """End the program with exit code 2 and a line for each error."""
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(2)
