"""A group of verbs that answers in a line where Typer would draw a box: what was typed, and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from typer.core import TyperGroup

from dtsim.cli.options import fail

_UsageError: Any = typer.BadParameter.__base__  # which Typer exports under no name
_KINDS = {"valid int": "a whole number", "valid float": "a number", "valid number": "a number"}
"""What Typer and pydantic call a type, and what people call it."""


class Verbs(TyperGroup):
    """Verbs whose mistyped names and options are answered as everything else is."""

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Read the options of the group itself."""
        with _answered():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Read the options of a verb, and execute it."""
        with _answered():
            return super().invoke(ctx)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The verb that `args` begin with."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            from dtsim.runner.hints import meant

            verbs = self.list_commands(ctx)
            fail([f"{name}: there is no such command, must be one of {', '.join(verbs)}{meant(name, verbs)}"])
        return super().resolve_command(ctx, args)


@contextmanager
def _answered() -> Iterator[None]:
    """End the program with a line where Typer cannot take what was typed; help where nothing was is left to it."""
    try:
        yield
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            raise
        fail([_line(error)])


def _line(error: Any) -> str:
    """Typer's words for people; it does not always say which verb was typed."""
    option = getattr(error, "option_name", None)
    if option is None and (parameter := getattr(error, "param", None)) is not None:
        option = parameter.opts[0]
    said = " ".join(error.message.split()).rstrip(".")
    if option is None or error.ctx is None:
        needs = "needs a value" if "requires an argument" in said else "takes no value" if "not take" in said else said
        return f"{option}: {needs}" if option else f"{said} (--help says what the command takes)"
    if "No such option" in said:
        from dtsim.runner.hints import meant

        options = [name for known in error.ctx.command.params for name in known.opts if name.startswith("--")]
        allowed = meant(option, options) or f", must be one of {', '.join([*options, '--help'])}"
        return f"{option}: there is no such option of {error.ctx.command_path}{allowed}"
    kind = next((kind for name, kind in _KINDS.items() if name in said), None)
    return f"{option}: must be {kind}" if kind else f"{option}: {said}"
