"""Whose model is retrained, eq. (15), on what data, and what it costs, eq. (10)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from dtsim.core.progress import Progress
from dtsim.core.seeding import Streams
from dtsim.learning.curve import Curve
from dtsim.learning.learners import Learners, Update
from dtsim.learning.prior import corrected, log_ratio
from dtsim.learning.probe import Probe
from dtsim.results.records import Records
from dtsim.simulation.decision import Retrainings
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.world import Frame, Slot, World
from dtsim.twin.distribution import smoothed
from dtsim.twin.predictor import Hits, Predictor, Situation
from dtsim.twin.store import Store
from dtsim.twin.twin import TrainingSet, Twin


def share_right(correct: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Accuracy of every MU, `correct` / `images`; NaN, below no threshold, where it had no image; [K] each."""
    return np.divide(correct, images, out=np.full(len(images), np.nan), where=images > 0)


def held_out_hits(learners: Learners, store: Store, region: np.ndarray) -> Hits:
    """What every MU's model gets right of the samples that `store` holds out of its region; int64 [K]."""
    right, seen = np.zeros(len(region), dtype=np.int64), np.zeros(len(region), dtype=np.int64)
    for user, where in enumerate(region.tolist()):
        samples = store.held_out(where)
        if samples is not None:
            right[user], seen[user] = learners.correct(user, samples), len(samples)
    return right, seen


@dataclass
class Retrainer:
    """Decides and carries out retraining as the scheme says."""

    scheme: Scheme
    world: World
    learners: Learners
    twin: Twin
    predictor: Predictor
    accuracy_threshold: float
    untrained: nn.Module
    probe: Probe
    streams: Streams
    records: Records
    progress: Progress

    def __post_init__(self) -> None:
        """Start with nothing measured."""
        users = self.world.users
        self._last_window = np.full(users, np.nan)  # accuracy measured in the last decision window
        self._correct = np.zeros(users)
        self._images = np.zeros(users)
        self._judges = {
            "twin": self._predicted,
            "measured_before": self._measured_before,
            "measured_now": self._measured_now,
            "truth": self._true,
            "never": self._unknown,
        }
        self._prediction_flop = np.zeros(users)
        self._start = time.monotonic()

    def decide_and_train(self, frame: Frame, slot: Slot) -> Retrainings:
        """Open a decision window: close the last one, decide b (15), update the models that b names."""
        self._close_window()
        self._prediction_flop[:] = 0
        predicted = self._judges[self.scheme.decision](frame, slot)
        done = Retrainings.none_yet(predicted, self._prediction_flop.copy(), self._window_slots)
        below = np.flatnonzero(predicted < self.accuracy_threshold).tolist()
        if self.scheme.training == "prior_correction":
            self._correct_priors(below, frame, done)
        else:
            self._train(below, frame, slot, done)
        if self.learners.retraining.charge == "all":
            done.charged_flop[:] += done.prediction_flop
        return done

    def _correct_priors(self, users: list[int], frame: Frame, done: Retrainings) -> None:
        """Reweight the classes of the models of `users` for what is believed of their regions; that is no work."""
        smoothing = self.twin.smoothing
        for user in users:
            region = int(frame.region[user])
            if self.scheme.belief == "twin" and not self.twin.store.class_counts[region].any():
                continue  # nothing is believed yet
            done.accuracy_without[user] = self._without_update(user, frame)
            trained_on = smoothed(self.learners.trained_on[user], smoothing)
            self.learners.models[user] = corrected(
                self.learners.models[user], log_ratio(smoothed(self._belief(region), smoothing), trained_on)
            )
            self._take_note(user, frame, done)

    def _train(self, users: list[int], frame: Frame, slot: Slot, done: Retrainings) -> None:
        """Train the models of those `users` that the twin has data for; a training that fails leaves the old model."""
        sets = {user: self._training_set(user, frame, slot) for user in users}
        known = {user: data for user, data in sets.items() if data is not None}
        curves = {user: self._curve(user, frame, len(data.samples)) for user, data in known.items()}
        for user, data in known.items():
            self._charge(user, data, done)
            done.accuracy_without[user] = self._without_update(user, frame)
        failures = self.learners.update(
            [
                Update(user, data.samples, self.streams.torch("retraining", slot.index, user), curves[user].watch)
                for user, data in known.items()
            ],
            from_scratch=self._from_scratch,
            anew=self.untrained,
        )
        for (user, data), failure in zip(known.items(), failures, strict=True):
            if failure is not None:
                self.progress.say(f"user {user}, slot {slot.index}: {failure}; the old model is kept")
                done.diverged[user], done.accuracy_without[user] = True, np.nan
                continue
            self.learners.trained_on[user] = data.distribution
            self._take_note(user, frame, done)
            self._record(curves[user], user, frame, slot, len(data.samples))

    def _training_set(self, user: int, frame: Frame, slot: Slot) -> TrainingSet | None:
        """What an update of `user` would train on; None where nothing was uploaded yet."""
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

    def _charge(self, user: int, data: TrainingSet, done: Retrainings) -> None:
        """Take note of the size of an update of `user` and of its work, eq. (10)."""
        keys = self.learners.retraining
        flop = keys.update_flop(self.learners.cost, data.real, data.generated, from_scratch=self._from_scratch)
        done.real[user], done.generated[user], done.kl_nat[user] = data.real, data.generated, data.kl_nat
        done.generator_flop[user] = data.generator_flop
        done.charged_flop[user] = flop + (data.generator_flop if keys.charge == "all" else 0)

    def _without_update(self, user: int, frame: Frame) -> float:
        """Accuracy in the frame of the model of `user` as it is; NaN where updates are decided every slot."""
        return float(self._share_right(frame.slots, [user])[0]) if self._by_frame else math.nan

    def _take_note(self, user: int, frame: Frame, done: Retrainings) -> None:
        """The model of `user` was updated: it is now one for where the MU is."""
        done.updated[user] = True
        self.learners.trained_region[user] = frame.region[user]
        self.learners.updated_frame[user] = frame.index

    def measured(self, correct: np.ndarray, images: np.ndarray) -> None:
        """Take note of a slot's served accuracy."""
        self._correct += correct
        self._images += images

    def end_of_frame(self, frame: Frame, correct: np.ndarray) -> None:
        """Let the twin learn from the frame's accuracy."""
        images = np.sum([slot.images for slot in frame.slots], axis=0)
        self.predictor.observe(self._situation(frame), correct, images)
        self.twin.store.forget()

    @property
    def _from_scratch(self) -> bool:
        return self.scheme.training == "from_scratch"

    @property
    def _by_frame(self) -> bool:
        return self.scheme.retrain == "frame"

    @property
    def _window_slots(self) -> int:
        return self.world.slots_per_frame if self._by_frame else 1

    def _close_window(self) -> None:
        self.twin.store.close_window()
        self._last_window = share_right(self._correct, self._images)
        self._correct[:] = 0
        self._images[:] = 0

    def _situation(self, frame: Frame) -> Situation:
        age = frame.index - self.learners.updated_frame
        return Situation(
            region=frame.region,
            trained_region=self.learners.trained_region.copy(),
            age_frames=age,
            held_out=lambda: self._held_out(frame.region),
            truth=lambda: self._share_right(frame.slots),
        )

    def _held_out(self, region: np.ndarray) -> Hits:
        """What every MU's model gets right of the samples held out of its region; counts the work."""
        right, seen = held_out_hits(self.learners, self.twin.store, region)
        self._prediction_flop += self.learners.cost.stored_flop * seen
        return right, seen

    def _belief(self, region: int) -> np.ndarray:
        return self.twin.belief(region) if self.scheme.belief == "twin" else self.world.class_distributions[region]

    def _predicted(self, frame: Frame, slot: Slot) -> np.ndarray:
        return self.predictor.predict(self._situation(frame))

    def _measured_before(self, frame: Frame, slot: Slot) -> np.ndarray:
        return self._last_window

    def _measured_now(self, frame: Frame, slot: Slot) -> np.ndarray:
        return self._share_right([slot])

    def _true(self, frame: Frame, slot: Slot) -> np.ndarray:
        return self._share_right(frame.slots if self._by_frame else [slot])

    def _unknown(self, frame: Frame, slot: Slot) -> np.ndarray:
        return np.full(self.world.users, np.nan)

    def _share_right(self, slots: list[Slot], users: Sequence[int] | None = None) -> np.ndarray:
        """Accuracy that the models of `users`, by default all, as they are would have in `slots`; [users]."""
        chosen = range(self.world.users) if users is None else users
        sets = [self.world.scored(slot, user) for user in chosen for slot in slots]
        correct = self.learners.correct_each(np.repeat(chosen, len(slots)).tolist(), sets)
        return share_right(
            correct.reshape(len(chosen), -1).sum(axis=1), np.sum([slot.images[list(chosen)] for slot in slots], axis=0)
        )

    def _curve(self, user: int, frame: Frame, samples: int) -> Curve:
        keys = self.learners.retraining.training(from_scratch=self._from_scratch)
        return Curve(
            self.probe,
            region=int(frame.region[user]),
            before=self.learners.models[user],
            epochs=keys.epochs,
            steps_per_epoch=keys.steps_per_epoch(samples),
        )

    def _record(self, curve: Curve, user: int, frame: Frame, slot: Slot, samples: int) -> None:
        when = {
            "phase": self.scheme.training,
            "user": user,
            "frame": frame.index,
            "slot": slot.index,
            "seconds": time.monotonic() - self._start,
        }
        rows = curve.rows(self.learners.models[user], self.learners.cost.training_flop * samples)
        self.records.extend("learning_curve.csv", [{**when, **row} for row in rows])
