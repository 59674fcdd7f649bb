"""Whose model is retrained, eq. (15), on what data, and what it costs, eq. (10)."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from dtsim.learning.curve import Curve
from dtsim.learning.learners import Learners, Update
from dtsim.learning.prior import corrected, log_ratio
from dtsim.learning.probe import Probe
from dtsim.progress import Progress
from dtsim.results import Records
from dtsim.schemes import Scheme
from dtsim.seeding import Streams
from dtsim.twin.distribution import smoothed
from dtsim.twin.predictor import Hits, Predictor, Situation
from dtsim.twin.store import Store
from dtsim.twin.twin import TrainingSet, Twin
from dtsim.world import Frame, Slot, World


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


@dataclass(frozen=True)
class Retrainings:
    """What one decision epoch decided and did, for every MU; [K] each."""

    predicted_accuracy: np.ndarray
    """The accuracy that (15) compared with the threshold; NaN where the scheme had none."""
    prediction_flop: np.ndarray
    """Work of predicting, in FLOP; charged where `retraining.charge` is all."""
    accuracy_without: np.ndarray
    """Accuracy that the model would have had in the frame without its update; NaN where there was none, or where
    updates are decided every slot."""
    updated: np.ndarray
    """b_k: whether the model was updated."""
    diverged: np.ndarray
    """Whether an update failed and left the old model; its work was done and is charged."""
    slot_flop: np.ndarray
    """W_k: work charged to each slot of the decision window, in FLOP."""
    real: np.ndarray
    """Uploaded samples trained on."""
    generated: np.ndarray
    """Generated samples trained on."""
    kl_nat: np.ndarray
    """KL(P ‖ Q) of the generated samples, in nat; NaN where there are none."""
    generator_flop: np.ndarray
    """Work of the generator itself for the update, in FLOP; charged where `retraining.charge` is all."""


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
        users = self.world.users
        self._prediction_flop[:] = 0
        predicted = self._judges[self.scheme.decision](frame, slot)
        updated, diverged = np.zeros(users, dtype=bool), np.zeros(users, dtype=bool)
        without = np.full(users, np.nan)
        asked: list[tuple[Update, TrainingSet, Curve]] = []
        flop, generator_flop, kl_nat = np.zeros(users), np.zeros(users), np.full(users, np.nan)
        real, generated = np.zeros(users, dtype=np.int64), np.zeros(users, dtype=np.int64)
        for user in np.flatnonzero(predicted < self.accuracy_threshold).tolist():
            region = int(frame.region[user])
            belief = self._belief(region)
            before = self._share_right(frame.slots, [user])[0] if self._by_frame else np.nan
            if self.scheme.training == "prior_correction":
                if self._reweight(user, region, belief):
                    updated[user], without[user] = True, before
                    self._take_note(user, frame)
                continue
            data = self.twin.training_set(
                user=user,
                region=region,
                belief=belief,
                trained_on=self.learners.trained_on[user],
                wanted=self.learners.retraining.samples,
                generate=self.scheme.generated,
                everything=self._from_scratch,
                generator=self.streams.numpy("generation", slot.index, user),
            )
            if data is None:  # nothing was uploaded yet: there is nothing to learn from
                continue
            real[user], generated[user], kl_nat[user] = data.real, data.generated, data.kl_nat
            generator_flop[user] = data.generator_flop
            flop[user] = self.learners.retraining.update_flop(
                self.learners.cost, data.real, data.generated, from_scratch=self._from_scratch
            )
            if self.learners.retraining.charge == "all":
                flop[user] += data.generator_flop
            without[user] = before
            curve = self._curve(user, region, len(data.samples))
            generator = self.streams.torch("retraining", slot.index, user)
            asked.append((Update(user, data.samples, generator, curve.watch), data, curve))
        failures = self.learners.update(
            [update for update, _, _ in asked], from_scratch=self._from_scratch, anew=self.untrained
        )
        for (update, data, curve), failure in zip(asked, failures, strict=True):
            user = update.user
            if failure is not None:
                self.progress.say(f"user {user}, slot {slot.index}: {failure}; the old model is kept")
                diverged[user], without[user] = True, np.nan
                continue
            updated[user] = True
            self.learners.trained_on[user] = data.distribution
            self._take_note(user, frame)
            self._record(curve, user, frame, slot, len(data.samples))
        charged = flop + (self._prediction_flop if self.learners.retraining.charge == "all" else 0)
        return Retrainings(
            predicted_accuracy=predicted,
            prediction_flop=self._prediction_flop.copy(),
            accuracy_without=without,
            updated=updated,
            diverged=diverged,
            slot_flop=charged / self._window_slots,
            real=real,
            generated=generated,
            kl_nat=kl_nat,
            generator_flop=generator_flop,
        )

    def _reweight(self, user: int, region: int, belief: np.ndarray) -> bool:
        """Correct the model of `user` for `belief` [C]; whether anything is believed, and so was done."""
        if self.scheme.belief == "twin" and not self.twin.store.class_counts[region].any():
            return False
        smoothing = self.twin.smoothing
        trained_on = smoothed(self.learners.trained_on[user], smoothing)
        self.learners.models[user] = corrected(
            self.learners.models[user], log_ratio(smoothed(belief, smoothing), trained_on)
        )
        return True

    def _take_note(self, user: int, frame: Frame) -> None:
        """The model of `user` is now one for where the MU is."""
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

    def _curve(self, user: int, region: int, samples: int) -> Curve:
        keys = self.learners.retraining
        return Curve(
            self.probe,
            region=region,
            before=self.learners.models[user],
            epochs=keys.passes(self._from_scratch),
            steps_per_epoch=math.ceil(samples / keys.batch_size),
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
