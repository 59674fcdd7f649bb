"""What the training of every agent does: rounds, measurements on held-out data, and resuming after an interruption."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, TypedDict

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.learned.learner import Learner, State
from dtsim.allocation.learned.networks import Actor
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


class Measured(ABC):
    """Data that training never uses, and how an actor has done on them so far."""

    metric: ClassVar[str]
    """Name of what is measured, in learning_curve.csv."""
    falls: ClassVar[bool]
    """Whether a smaller value is better."""

    def __init__(self, every: int) -> None:
        """Measure every `every` slots of training, from the first on."""
        self.every, self.due = every, 0
        self.started_s, self.started_cpu_s = time.perf_counter(), time.process_time()
        self.curve: list[Row] = []
        self.lowest = float("inf")
        """The best value so far; with the other sign where a larger value is better."""
        self.best: dict[str, Tensor] = {}

    @abstractmethod
    def references(self) -> dict[str, float]:
        """What rules reach on the same data, by the name of the metric."""

    @abstractmethod
    def value(self, actor: Actor) -> float:
        """What `actor` reaches.

        Raises:
            TrainingDiverged: if an action is not finite.
        """

    @abstractmethod
    def said(self, value: float) -> str:
        """A value for people."""

    def measure(self, learner: Learner) -> float:
        """Record the value and the number of updates, and the weights if they are the best so far."""
        if not self.curve:  # record the reference lines once
            for name, reference in self.references().items():
                self._note(learner.steps, name, reference)
        value = self.value(learner.actor)
        if (loss := value if self.falls else -value) < self.lowest:
            self.lowest, self.best = loss, copied(learner.actor)
        self._note(learner.steps, self.metric, value)
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

    def _note(self, step: int, metric: str, value: float) -> None:
        seconds = time.perf_counter() - self.started_s
        self.curve.append(
            {"phase": "allocator", "user": "", "step": step, "seconds": seconds, "metric": metric, "value": value}
        )


def copied(actor: Actor) -> dict[str, Tensor]:
    """The weights of `actor`."""
    return {name: value.clone() for name, value in actor.state_dict().items()}


def finite(action: Tensor) -> Tensor:
    """`action` of a policy.

    Raises:
        TrainingDiverged: if it is not finite.
    """
    if not torch.isfinite(action).all():
        raise TrainingDiverged("DRL training diverged: the policy's actions are not finite; try lower learning rates")
    return action


def trained(
    make_learner: Callable[[], Learner],
    held_out: Measured,
    *,
    streams: Streams,
    design: Any,
    save_every: int,
    state_file: Path,
    progress: Progress,
) -> Trained:
    """Train until the learner is done; resume from `state_file` if it exists. The caller deletes that file.

    Args:
        make_learner: called where torch's global generator is seeded, from which it draws its weights.
        held_out: measures the actor.
        streams: of the training.
        design: the actor's design, a dataclass.
        save_every: slots between two savings of the state.
        state_file: where the state is kept.
        progress: shows the slots.

    Raises:
        TrainingDiverged: if the actor's actions are not finite.
    """
    with isolated_randomness(streams.integer("allocator/weights")):
        learner = make_learner()
        _restore(state_file, learner, held_out, progress)
        with progress.phase("DRL training", learner.total) as phase:
            phase.advance(learner.steps)
            saved = learner.steps
            while True:
                if learner.steps >= held_out.due or learner.steps >= learner.total:
                    phase.advance(0, held_out.said(held_out.measure(learner)))
                if learner.steps >= learner.total:
                    break
                before = learner.steps
                learner.round()
                if learner.steps - saved >= save_every:
                    saved = learner.steps
                    write_atomically(
                        state_file, packed({"learner": learner.state_dict(), "held_out": held_out.state_dict()})
                    )
                phase.advance(learner.steps - before)
    return {
        "design": asdict(design),
        "actor": held_out.best,
        "last": copied(learner.actor),
        "curve": held_out.curve,
        "updates": learner.updates,
        "cpu_s": held_out.cpu_s(),
    }


def _restore(state_file: Path, learner: Learner, held_out: Measured, progress: Progress) -> None:
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
