"""The training loop of agents among queues: episodes, measurements on held-out ones, and resuming."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.gym.queue_frames import QueueSimulator
from dtsim.allocation.learned.learner import State
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.learned.queue_keys import QueueKeys
from dtsim.allocation.learned.queue_learner import QueueLearner
from dtsim.allocation.learned.training import Trained, isolated_randomness
from dtsim.allocation.problem import FrameSource
from dtsim.core.cache import packed, unpacked, write_atomically
from dtsim.core.checked import checked
from dtsim.core.errors import TrainingDiverged
from dtsim.core.progress import Progress
from dtsim.core.rows import Row
from dtsim.core.seeding import Streams


def train_queues(config: QueueKeys, source: FrameSource, state_file: Path, progress: Progress) -> Trained:
    """Train an actor on episodes of `source`; resume from `state_file` if it exists. The caller deletes that file.

    Raises:
        TrainingDiverged: if the actor's actions are not finite.
    """
    streams = Streams(config.seed)
    held_out = HeldOutEpisodes(config, source, streams)
    with isolated_randomness(streams.integer("allocator/weights")):
        learner = QueueLearner(config, source, streams)
        _resume(state_file, learner, held_out, progress)
        saved = learner.steps
        with progress.phase("DRL training", learner.total) as phase:
            phase.advance(learner.steps)
            while True:
                if learner.steps >= held_out.due or learner.steps >= learner.total:
                    phase.advance(0, f"reward {held_out.measure(learner):.4f}")
                if learner.steps >= learner.total:
                    break
                before = learner.steps
                learner.round()
                if learner.steps - saved >= config.save_every:
                    saved = learner.steps
                    state = {"learner": learner.state_dict(), "held_out": held_out.state_dict()}
                    write_atomically(state_file, packed(state))
                phase.advance(learner.steps - before)
    return {
        "design": asdict(config.design),
        "actor": held_out.best,
        "last": _copied(learner.actor),
        "curve": held_out.curve,
        "updates": learner.updates,
        "cpu_s": held_out.cpu_s(),
    }


def _resume(state_file: Path, learner: QueueLearner, held_out: HeldOutEpisodes, progress: Progress) -> None:
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


class HeldOutEpisodes:
    """Episodes that training never uses, and the actor's mean reward in them so far."""

    def __init__(self, config: QueueKeys, source: FrameSource, streams: Streams) -> None:
        self.config, self.streams = config, streams
        self.simulator = QueueSimulator(
            source=source,
            users=config.train_users,
            count=config.held_out_episodes,
            networks=config.networks,
            rules=config.rules,
            held_out=True,
        )
        self.due = 0
        self.started_s, self.started_cpu_s = time.perf_counter(), time.process_time()
        self.curve: list[Row] = []
        self.highest = -float("inf")
        self.best: dict[str, Tensor] = {}

    def reward(self, actor: Actor | None) -> float:
        """Mean reward of a slot; without an actor that of the proportional rule.

        Raises:
            TrainingDiverged: if an action is not finite.
        """
        simulator = self.simulator
        rngs = [self.streams.numpy("allocator/held-out", n) for n in range(simulator.count)]
        observation, over, total = simulator.reset(rngs), False, 0.0
        while not over:
            action = torch.zeros(*observation.shape[:-1], 3)
            if actor is not None:
                with torch.no_grad():
                    action = actor(torch.from_numpy(observation))
            if not torch.isfinite(action).all():
                raise TrainingDiverged(
                    "DRL training diverged: the policy's actions are not finite; try lower learning rates"
                )
            observation, reward, over = simulator.step(action.numpy())
            total += float(np.mean(reward))
        return total / self.config.horizon

    def measure(self, learner: QueueLearner) -> float:
        """Record the reward and the number of updates, and the weights if they are the best so far."""
        if not self.curve:
            self._note(learner.steps, "reward_proportional", self.reward(None))
        value = self.reward(learner.actor)
        if value > self.highest:
            self.highest, self.best = value, _copied(learner.actor)
        self._note(learner.steps, "reward", value)
        self._note(learner.steps, "updates", learner.updates)
        while self.due <= learner.steps:
            self.due += self.config.evaluate_every
        return value

    def cpu_s(self) -> float:
        """CPU time since the training began, including earlier parts, s."""
        return time.process_time() - self.started_cpu_s

    def state_dict(self) -> State:
        """The state that training changes."""
        return {
            "curve": self.curve,
            "highest": self.highest,
            "best": self.best,
            "due": self.due,
            "seconds": time.perf_counter() - self.started_s,
            "cpu_s": self.cpu_s(),
        }

    def load_state_dict(self, state: State) -> None:
        """Restore `state`."""
        self.curve = checked(state["curve"], list, "curve")
        self.highest = checked(state["highest"], float, "highest")
        self.best = checked(state["best"], dict, "best")
        self.due = checked(state["due"], int, "due")
        self.started_s -= checked(state["seconds"], float, "seconds")
        self.started_cpu_s -= checked(state["cpu_s"], float, "cpu_s")

    def _note(self, step: int, metric: str, value: float) -> None:
        seconds = time.perf_counter() - self.started_s
        self.curve.append(
            {"phase": "allocator", "user": "", "step": step, "seconds": seconds, "metric": metric, "value": value}
        )
