"""The training of agents among queues."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import torch

from dtsim.allocation.gym.queue_frames import QueueSimulator
from dtsim.allocation.learned.networks import Actor
from dtsim.allocation.learned.queue_keys import QueueKeys
from dtsim.allocation.learned.queue_learner import QueueLearner
from dtsim.allocation.learned.training_loop import Measured, Trained, finite, trained
from dtsim.allocation.problem import FrameSource
from dtsim.core.progress import Progress
from dtsim.core.seeding import Streams


def train_queues(config: QueueKeys, source: FrameSource, state_file: Path, progress: Progress) -> Trained:
    """Train an actor on episodes of `source`; resume from `state_file` if it exists. The caller deletes that file.

    Raises:
        TrainingDiverged: if the actor's actions are not finite.
    """
    streams = Streams(config.seed)
    return trained(
        partial(QueueLearner, config, source, streams),
        HeldOutEpisodes(config, source, streams),
        streams=streams,
        design=config.design,
        save_every=config.save_every,
        state_file=state_file,
        progress=progress,
    )


class HeldOutEpisodes(Measured):
    """Episodes that training never uses."""

    metric, falls = "reward", False

    def __init__(self, config: QueueKeys, source: FrameSource, streams: Streams) -> None:
        super().__init__(config.evaluate_every)
        self.config, self.streams = config, streams
        self.simulator = QueueSimulator(
            source=source,
            users=config.train_users,
            count=config.held_out_episodes,
            networks=config.networks,
            rules=config.rules,
            held_out=True,
        )

    def references(self) -> dict[str, float]:
        """Mean reward of the proportional rule."""
        return {"reward_proportional": self._reward(None)}

    def value(self, actor: Actor) -> float:
        """Mean reward of a slot."""
        return self._reward(actor)

    def said(self, value: float) -> str:
        """A reward."""
        return f"reward {value:.4f}"

    def _reward(self, actor: Actor | None) -> float:
        """Mean reward of a slot; without an actor that of the proportional rule."""
        simulator = self.simulator
        rngs = [self.streams.numpy("allocator/held-out", n) for n in range(simulator.count)]
        observation, over, total = simulator.reset(rngs), False, 0.0
        while not over:
            action = torch.zeros(*observation.shape[:-1], 3)
            if actor is not None:
                with torch.no_grad():
                    action = finite(actor(torch.from_numpy(observation)))
            observation, reward, over = simulator.step(action.numpy())
            total += float(np.mean(reward))
        return total / self.config.horizon
