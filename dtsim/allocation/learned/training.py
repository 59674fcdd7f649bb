"""The training of agents that see one slot at a time."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.learned.keys import LearnedKeys
from dtsim.allocation.learned.learner import LearnerFactory
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.learned.observation import observe
from dtsim.allocation.learned.training_loop import Measured, Trained, finite, trained
from dtsim.allocation.optimal import gap
from dtsim.allocation.problem import Allocation, ProblemSource
from dtsim.core.progress import Progress
from dtsim.core.seeding import Streams


def train(
    config: LearnedKeys, source: ProblemSource, state_file: Path, progress: Progress, make_learner: LearnerFactory
) -> Trained:
    """Train an actor on `source`; resume from `state_file` if it exists. The caller deletes that file.

    Raises:
        TrainingDiverged: if the actor's actions are not finite.
    """
    streams = Streams(config.seed)
    held_out = HeldOut(config, source, streams.torch("allocator/held-out"))
    return trained(
        partial(make_learner, held_out.design, source, streams),
        held_out,
        streams=streams,
        design=held_out.design,
        save_every=config.save_every,
        state_file=state_file,
        progress=progress,
    )


class HeldOut(Measured):
    """Slots that training never uses, and their optima."""

    metric, falls = "gap", True

    def __init__(self, config: LearnedKeys, source: ProblemSource, rng: torch.Generator) -> None:
        super().__init__(config.evaluate_every)
        self.problem = source.sample(config.held_out_slots, config.train_users, rng)
        self.design = config.design(self.problem.station_flops.shape[-1])
        self.observation = observe(self.problem)

    def references(self) -> dict[str, float]:
        """Mean gaps of the equal and the proportional allocation."""
        rules: dict[str, Allocator] = {"gap_equal": Equal(), "gap_proportional": Proportional()}
        return {name: self._gap_of(rule.allocate(self.problem)) for name, rule in rules.items()}

    def value(self, actor: Actor) -> float:
        """Mean gap between the actor's makespan and the optimum."""
        with torch.no_grad():
            action = finite(actor(self.observation))
        return self._gap_of(self.design.actions.allocation(self.problem, action))

    def said(self, value: float) -> str:
        """A gap in per cent."""
        return f"gap {value:.2%}"

    def _gap_of(self, allocation: Allocation) -> float:
        return float(gap(self.problem, allocation, "makespan").mean())
