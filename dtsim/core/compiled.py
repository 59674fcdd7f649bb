"""Loops compiled by numba. Import this module late: importing numba takes a part of a second."""

from __future__ import annotations

from collections.abc import Callable
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
