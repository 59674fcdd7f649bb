"""What a command would take: refused with an estimate before it starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dtsim.runner.config import Config

MOST_JOBS = 10_000
"""A sweep of more asks for --yes."""


def check_launcher(launcher: Any) -> None:
    pass


def check(configs: Sequence[Config], launcher: Any) -> None:
    pass
