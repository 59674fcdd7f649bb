"""What training asks of an agent at work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from dtsim.allocation.learned.checkpoint import Design
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.problem import ProblemSource
from dtsim.core.seeding import Streams

State: TypeAlias = dict[str, object]
"""Tensors and plain values by name, as files keep them."""


class Learner(Protocol):
    """An agent at work."""

    actor: Actor
    total: int
    """Training slots it will take."""
    steps: int
    """Training slots so far."""
    updates: int
    """Gradient updates so far."""

    def round(self) -> None:
        """Take some slots and learn from them."""

    def state_dict(self) -> State:
        """All that its next rounds depend on: tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Become what `state_dict` described."""


LearnerFactory: TypeAlias = Callable[[Design, ProblemSource, Streams], Learner]
"""Makes a learner of slots of a source, whose actor is of a design; its weights draw from torch's global generator."""
