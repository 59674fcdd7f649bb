"""Type checks for values of unknown type."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def checked(value: object, kind: type[T], name: str) -> T:
    """Return `value` if it is of type `kind`; `name` identifies it in the error message.

    Raises:
        TypeError: if it is of another type.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name}: must be {kind.__name__}, is {type(value).__name__}")
    return value
