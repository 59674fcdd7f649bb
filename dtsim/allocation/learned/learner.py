"""The interface between the training loop and an agent's learner."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

from dtsim.allocation.learned.checkpoint import Design
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.problem import ProblemSource
from dtsim.core.seeding import Streams

State: TypeAlias = dict[str, object]
"""Tensors and plain values by name, as stored in files."""


class Learner(Protocol):
    """An agent in training."""

    actor: Actor
    total: int
    """Total number of training slots."""
    steps: int
    """Training slots so far."""
    updates: int
    """Gradient updates so far."""

    def round(self) -> None:
        """Collect some slots and learn from them."""

    def state_dict(self) -> State:
        """All state that affects the next rounds: tensors and plain values."""

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore the state that `state_dict` returned."""


LearnerFactory: TypeAlias = Callable[[Design, ProblemSource, Streams], Learner]
"""Makes a learner for slots of a source, with an actor of a design; torch's global generator draws its weights."""
