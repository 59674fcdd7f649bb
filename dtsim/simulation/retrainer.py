"""Executes a decision: the training set of each update, eqs. (8)-(9), the training, and its work, eq. (10)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from dtsim.core.errors import TrainingDiverged
from dtsim.core.progress import Progress
from dtsim.core.seeding import Streams
from dtsim.learning.curve import Curve
from dtsim.learning.learners import Learners, Update
from dtsim.learning.prior import corrected, log_ratio
from dtsim.learning.probe import Probe
from dtsim.simulation.decision import Decision
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.scoring import accuracy_in
from dtsim.simulation.updates import Updates
from dtsim.simulation.world import Frame, Slot, World
from dtsim.twin.distribution import smoothed
from dtsim.twin.twin import TrainingSet, Twin

Tell = Callable[[str], None]
"""Takes a line about progress."""

TOGETHER_BYTES = 2**27
"""Models are trained together until their training sets exceed this; more would only take memory."""


@dataclass
class Retrainer:
    """Updates the models that a decision names, in the scheme's way."""

    scheme: Scheme
    world: World
    learners: Learners
    twin: Twin
    untrained: nn.Module
    """Initial model of an update from scratch."""
    probe: Probe
    streams: Streams
    recorder: Recorder
    at_once: bool
    """Whether a new model serves from now on, or waits in `learners`."""
    progress: Progress

    def execute(self, decision: Decision, frame: Frame, slot: Slot, tell: Tell = lambda _: None) -> Updates:
        """Update the models that `decision` names, before inference in `slot`; `tell` is told how far it is."""
        updates = Updates.none_yet(decision)
        users = np.flatnonzero(decision.retrain).tolist()
        if self.scheme.training == "prior_correction":
            self._correct_priors(users, frame, updates)
        else:
            self._train(users, frame, slot, updates, tell)
        if self.learners.retraining.charge == "all":
            updates.charged_flop[:] += decision.prediction_flop
        return updates

    def _correct_priors(self, users: list[int], frame: Frame, updates: Updates) -> None:
        """Correct the logits of the models of `users` for the believed class distribution of their regions; no work."""
        smoothing = self.twin.smoothing
        if self.scheme.belief == "twin":  # where nothing was uploaded there is no belief yet
            users = [user for user in users if self.twin.store.class_counts[frame.region[user]].any()]
        updates.accuracy_without[users] = self._without_update(users, frame)
        for user in users:
            region = int(frame.region[user])
            trained_on = smoothed(self.learners.trained_on[user], smoothing)
            correction = log_ratio(smoothed(self._belief(region), smoothing), trained_on)
            # Without work it is done at once.
            self.learners.replace(
                user, corrected(self.learners.models[user], correction), region=region, frame=frame.index
            )
            updates.updated[user] = True

    def _train(self, users: list[int], frame: Frame, slot: Slot, updates: Updates, tell: Tell) -> None:
        """Train the models of those `users` that the twin has data for, as many together as memory allows."""
        known: dict[int, TrainingSet] = {}
        held_bytes = 0
        for place, user in enumerate(users):
            data = self._training_set(user, frame, slot)
            if data is not None:
                known[user] = data
                held_bytes += data.samples.bytes
            if place == len(users) - 1 or held_bytes > TOGETHER_BYTES:
                self._train_together(known, frame, slot, updates)
                tell(f"retrained {place + 1} of {len(users)}")
                known, held_bytes = {}, 0

    def _train_together(self, known: dict[int, TrainingSet], frame: Frame, slot: Slot, updates: Updates) -> None:
        """Train a model on each of the sets `known`, by user; if a training fails, the old model stays."""
        curves = {user: self._curve(user, frame, len(data.samples)) for user, data in known.items()}
        for user, data in known.items():
            self._charge(user, data, updates)
        updates.accuracy_without[list(known)] = self._without_update(list(known), frame)
        results = self.learners.update(
            [
                Update(user, data.samples, self.streams.torch("retraining", slot.index, user), curves[user].watch)
                for user, data in known.items()
            ],
            from_scratch=self._from_scratch,
            anew=self.untrained,
        )
        for (user, data), result in zip(known.items(), results, strict=True):
            if isinstance(result, TrainingDiverged):
                self.progress.say(f"user {user}, slot {slot.index}: {result}; the old model is kept")
                updates.diverged[user], updates.accuracy_without[user] = True, np.nan
                continue
            flop_per_epoch = self.learners.cost.training_flop * len(data.samples)
            self.recorder.update(user, frame, slot, curves[user].rows(result, flop_per_epoch))
            self.learners.replace(
                user,
                result,
                region=int(frame.region[user]),
                frame=frame.index,
                distribution=data.distribution,
                at_once=self.at_once,
            )
            updates.updated[user] = True

    def _training_set(self, user: int, frame: Frame, slot: Slot) -> TrainingSet | None:
        """The training set of an update of `user`; None if nothing was uploaded yet."""
        region = int(frame.region[user])
        return self.twin.training_set(
            user=user,
            region=region,
            belief=self._belief(region),
            trained_on=self.learners.trained_on[user],
            wanted=self.learners.retraining.samples,
            generate=self.scheme.generated,
            everything=self._from_scratch,
            rng=self.streams.numpy("generation", slot.index, user),
        )

    def _charge(self, user: int, data: TrainingSet, updates: Updates) -> None:
        """Record the size of an update of `user` and its work, eq. (10)."""
        keys = self.learners.retraining
        flop = keys.update_flop(self.learners.cost, data.real, data.generated, from_scratch=self._from_scratch)
        updates.real[user], updates.generated[user], updates.kl_nat[user] = data.real, data.generated, data.kl_nat
        updates.generator_flop[user] = data.generator_flop
        updates.charged_flop[user] = flop + (data.generator_flop if keys.charge == "all" else 0)

    def _without_update(self, users: list[int], frame: Frame) -> np.ndarray:
        """Accuracy of the current models of `users` in the frame [users]; NaN if updates are decided every slot."""
        if self.scheme.retrain == "slot":
            return np.full(len(users), np.nan)
        return accuracy_in(self.world, self.learners, frame.slots, users)

    @property
    def _from_scratch(self) -> bool:
        return self.scheme.training == "from_scratch"

    def _belief(self, region: int) -> np.ndarray:
        return self.twin.belief(region) if self.scheme.belief == "twin" else self.world.class_distributions[region]

    def _curve(self, user: int, frame: Frame, samples: int) -> Curve:
        keys = self.learners.retraining.training(from_scratch=self._from_scratch)
        return Curve(
            self.probe,
            region=int(frame.region[user]),
            before=self.learners.models[user],
            epochs=keys.epochs,
            steps_per_epoch=keys.steps_per_epoch(samples),
        )
