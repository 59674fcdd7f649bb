"""The training loop of every agent: rounds, measurements on held-out slots, and resuming after an interruption."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.heuristics import Equal, Proportional
from dtsim.allocation.learned.keys import LearnedKeys
from dtsim.allocation.learned.learner import Learner, LearnerFactory, State
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.learned.observation import observe
from dtsim.allocation.optimal import gap
from dtsim.allocation.problem import Allocation, ProblemSource
from dtsim.core.cache import packed, unpacked, write_atomically
from dtsim.core.checked import checked
from dtsim.core.errors import TrainingDiverged
from dtsim.core.progress import Progress
from dtsim.core.rows import Row
from dtsim.core.seeding import Streams


class Trained(TypedDict):
    """The result of a training."""

    design: dict[str, object]
    """Design of the actor, see `checkpoint.Design`."""
    actor: dict[str, Tensor]
    """Weights with the smallest mean gap on held-out slots."""
    last: dict[str, Tensor]
    """Weights at the end."""
    curve: list[Row]
    """Rows of learning_curve.csv."""
    updates: int
    """Number of gradient updates."""
    cpu_s: float
    """CPU time of the training, s."""


@contextmanager
def isolated_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators of torch (CPU), NumPy and Python; restore their states on exit."""
    numpy_state, python_state = np.random.get_state(), random.getstate()  # noqa: NPY002 - to protect it
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)


def train(
    config: LearnedKeys, source: ProblemSource, state_file: Path, progress: Progress, make_learner: LearnerFactory
) -> Trained:
    """Train an actor on `source`; resume from `state_file` if it exists. The caller deletes that file.

    Raises:
        TrainingDiverged: if the actor's actions are not finite.
    """
    streams = Streams(config.seed)
    held_out = HeldOut(config, source, streams.torch("allocator/held-out"))
    with isolated_randomness(streams.integer("allocator/weights")):
        learner = make_learner(held_out.design, source, streams)
        _restore(state_file, learner, held_out, progress)
        with progress.phase("DRL training", learner.total) as phase:
            phase.advance(learner.steps)
            saved = learner.steps
            while True:
                if learner.steps >= held_out.due or learner.steps >= learner.total:
                    phase.advance(0, f"gap {held_out.measure(learner):.2%}")
                if learner.steps >= learner.total:
                    break
                before = learner.steps
                learner.round()
                if learner.steps - saved >= config.save_every:
                    saved = learner.steps
                    write_atomically(
                        state_file, packed({"learner": learner.state_dict(), "held_out": held_out.state_dict()})
                    )
                phase.advance(learner.steps - before)
    return {
        "design": asdict(held_out.design),
        "actor": held_out.best,
        "last": _copied(learner.actor),
        "curve": held_out.curve,
        "updates": learner.updates,
        "cpu_s": held_out.cpu_s(),
    }


def _restore(state_file: Path, learner: Learner, held_out: HeldOut, progress: Progress) -> None:
    try:
        state = unpacked(state_file.read_bytes())
    except FileNotFoundError:
        return
    except ValueError:
        progress.say(f"training state {state_file} is damaged: the training starts again")
        state_file.unlink(missing_ok=True)
        return
    learner.load_state_dict(checked(state["learner"], dict, "learner"))
    held_out.load_state_dict(checked(state["held_out"], dict, "held_out"))
    progress.say(f"training resumes at {learner.steps} of {learner.total} slots")


def _copied(actor: Actor) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in actor.state_dict().items()}


class HeldOut:
    """Slots that training never uses, their optima, and the actor's results on them so far."""

    def __init__(self, config: LearnedKeys, source: ProblemSource, rng: torch.Generator) -> None:
        self.problem = source.sample(config.held_out_slots, config.train_users, rng)
        self.design = config.design(self.problem.station_flops.shape[-1])
        self.observation = observe(self.problem)
        self.every, self.due = config.evaluate_every, 0
        self.started_s, self.started_cpu_s = time.perf_counter(), time.process_time()
        self.curve: list[Row] = []
        self.lowest = float("inf")
        self.best: dict[str, Tensor] = {}

    def gap(self, actor: Actor) -> float:
        """Mean gap between the actor's makespan and the optimum.

        Raises:
            TrainingDiverged: if an action is not finite.
        """
        with torch.no_grad():
            action = actor(self.observation)
        if not torch.isfinite(action).all():
            raise TrainingDiverged(
                "DRL training diverged: the policy's actions are not finite; try lower learning rates"
            )
        return self._gap_of(self.design.actions.allocation(self.problem, action))

    def measure(self, learner: Learner) -> float:
        """Record the gap and the number of updates, and the weights if they are the best so far."""
        if not self.curve:  # record the reference lines once
            self._note(learner.steps, "gap_equal", self._gap_of(Equal().allocate(self.problem)))
            self._note(learner.steps, "gap_proportional", self._gap_of(Proportional().allocate(self.problem)))
        value = self.gap(learner.actor)
        if value < self.lowest:
            self.lowest, self.best = value, _copied(learner.actor)
        self._note(learner.steps, "gap", value)
        self._note(learner.steps, "updates", learner.updates)
        self.due += self.every
        return value

    def cpu_s(self) -> float:
        """CPU time since the training began, including earlier parts, s."""
        return time.process_time() - self.started_cpu_s

    def state_dict(self) -> State:
        """The state that training changes."""
        return {
            "curve": self.curve,
            "lowest": self.lowest,
            "best": self.best,
            "due": self.due,
            "seconds": time.perf_counter() - self.started_s,
            "cpu_s": self.cpu_s(),
        }

    def load_state_dict(self, state: Mapping[str, object]) -> None:
        """Restore `state`."""
        self.curve = checked(state["curve"], list, "curve")
        self.lowest = checked(state["lowest"], float, "lowest")
        self.best = checked(state["best"], dict, "best")
        self.due = checked(state["due"], int, "due")
        self.started_s -= checked(state["seconds"], float, "seconds")
        self.started_cpu_s -= checked(state["cpu_s"], float, "cpu_s")

    def _gap_of(self, allocation: Allocation) -> float:
        return float(gap(self.problem, allocation, "makespan").mean())

    def _note(self, step: int, metric: str, value: float) -> None:
        seconds = time.perf_counter() - self.started_s
        self.curve.append(
            {"phase": "allocator", "user": "", "step": step, "seconds": seconds, "metric": metric, "value": value}
        )
