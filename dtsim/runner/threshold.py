"""The accuracy threshold A_th: a number, or an amount below what the base model reaches."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError

from dtsim.core.parts import ConfigError

_RELATIVE = re.compile(r"base(?:-(?P<below>0?\.\d+|0))?")


def _relative(given: object) -> str:
    if not isinstance(given, str) or not _RELATIVE.fullmatch(given):
        raise PydanticCustomError("relative", "must be base-x with x >= 0 and < 1, such as base-0.05")
    return given


Relative = Annotated[str, BeforeValidator(_relative)]
"""The text `base-0.05`, or `base`."""


def resolved(threshold: float | str, base_accuracy: float) -> float:
    """A_th as a number.

    Args:
        threshold: `accuracy_threshold` as configured.
        base_accuracy: accuracy of the base model on its validation images.

    Raises:
        ConfigError: if nothing is left of a base model's accuracy.
    """
    if not isinstance(threshold, str):
        return threshold
    found = _RELATIVE.fullmatch(threshold)
    assert found is not None, "checked when the configuration was read"
    number = base_accuracy - float(found["below"] or 0.0)
    if not number > 0:
        raise ConfigError(
            [f"accuracy_threshold={threshold}: must stay above 0, the base model's accuracy is {base_accuracy:.3f}"]
        )
    return number
