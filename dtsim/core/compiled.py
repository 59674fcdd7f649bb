"""Loops compiled by numba. Import this module late: importing numba takes a part of a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from numba import njit

_Loop = TypeVar("_Loop", bound=Callable[..., object])


def compiled(loop: _Loop) -> _Loop:
    """`loop` compiled by numba, with the same signature; later processes load the code that this one compiles."""
    try:
        ready: _Loop = njit(cache=True, error_model="numpy")(loop)
    except RuntimeError:  # no folder that numba may write to
        ready = njit(error_model="numpy")(loop)
    return ready


@contextmanager
def interruptible() -> Iterator[None]:
    """Let Ctrl-C in a call of a compiled loop be a KeyboardInterrupt: numba may make a SystemError of it."""
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KeyboardInterrupt):
            raise error.__cause__ from None  # SIGTERM is one of its own kind
        raise
