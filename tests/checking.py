"""What checks the shapes of arrays at every call while tests run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args, get_type_hints

from beartype import beartype
from jaxtyping import AbstractArray

Function = TypeVar("Function", bound=Callable[..., Any])


def checked(function: Function) -> Function:
    """`function`, whose arrays must have the shapes that its annotations say; what is no array is not looked at."""
    hints = get_type_hints(function)
    function.__annotations__ = {name: hint for name, hint in hints.items() if _is_shape(hint)}
    return beartype(function)


def _is_shape(hint: object) -> bool:
    return any(isinstance(one, type) and issubclass(one, AbstractArray) for one in (hint, *get_args(hint)))
