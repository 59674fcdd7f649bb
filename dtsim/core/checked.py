"""Values of an unknown kind, looked at before they are used."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def checked(value: object, kind: type[T], name: str) -> T:
    """`value`, which must be a `kind`; `name` is what an error calls it.

    Raises:
        TypeError: where it is something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"{name}: must be {kind.__name__}, is {type(value).__name__}")
    return value
