"""Which models are retrained, eq. (15), and the accuracy that this decision uses."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from dtsim.learning.learners import Learners
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.scoring import accuracy_in, held_out_hits, share_correct
from dtsim.simulation.world import Frame, Slot, World
from dtsim.twin.predictor import Hits, Predictor, Situation
from dtsim.twin.twin import Twin


@dataclass(frozen=True)
class Decision:
    """The result of one decision epoch for every MU; arrays are [K]."""

    predicted_accuracy: np.ndarray
    """Accuracy that (15) compared with the threshold; NaN if the scheme had none."""
    prediction_flop: np.ndarray
    """Work of predicting, in FLOP; charged if `retraining.charge` is all."""
    retrain: np.ndarray
    """b_k of (15); bool."""
    window_slots: int
    """Slots of the retraining window that follows the decision: τ, or 1 if every slot decides."""


@dataclass
class Decider:
    """Decides retraining according to the scheme, and stores the accuracy measured since the last decision."""

    scheme: Scheme
    world: World
    learners: Learners
    twin: Twin
    predictor: Predictor
    accuracy_threshold: float
    """A_th."""

    def __post_init__(self) -> None:
        """Start without measurements."""
        users = self.world.users
        self._last_window = np.full(users, np.nan)  # accuracy measured in the last retraining window
        self._correct = np.zeros(users)
        self._images = np.zeros(users)
        self._last_slots: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=self.world.slots_per_frame)
        self._prediction_flop = np.zeros(users)
        self._accuracy_by = {
            "twin": self._predicted,
            "measured_before": self._measured_before,
            "measured_window": self._measured_window,
            "measured_now": self._measured_now,
            "truth": self._true,
            "never": self._unknown,
        }

    def decide(self, frame: Frame, slot: Slot) -> Decision:
        """Close the last retraining window and decide b, eq. (15), for the next one."""
        self._close_window()
        self._prediction_flop = np.zeros(self.world.users)
        predicted = self._accuracy_by[self.scheme.decision](frame, slot)
        return Decision(
            predicted_accuracy=predicted,
            prediction_flop=self._prediction_flop,
            retrain=predicted < self.accuracy_threshold,
            window_slots=self.world.slots_per_frame if self.scheme.retrain == "frame" else 1,
        )

    def measured(self, correct: np.ndarray, images: np.ndarray) -> None:
        """Add a slot's served accuracy to the window: `correct` of the scored `images`; int64 [K] each."""
        self._correct += correct
        self._images += images
        self._last_slots.append((correct, images))

    def end_of_frame(self, frame: Frame, correct: np.ndarray, images: np.ndarray) -> None:
        """Update the twin's predictor: of `images` inferred in the frame, `correct` were right; int64 [K] each."""
        self.predictor.observe(self._situation(frame), correct, images)
        self.twin.store.forget()

    def _close_window(self) -> None:
        self.twin.store.close_window()
        self._last_window = share_correct(self._correct, self._images)
        self._correct[:] = 0
        self._images[:] = 0

    def _situation(self, frame: Frame) -> Situation:
        return Situation(
            region=frame.region,
            trained_region=self.learners.trained_region.copy(),
            age_frames=frame.index - self.learners.updated_frame,
            held_out=lambda: self._held_out(frame.region),
            truth=lambda: accuracy_in(self.world, self.learners, frame.slots),
        )

    def _held_out(self, region: np.ndarray) -> Hits:
        """Score of every MU's model on the samples held out of its region; adds the work to the decision."""
        right, seen = held_out_hits(self.learners, self.twin.store, region)
        self._prediction_flop += self.learners.cost.stored_flop * seen
        return right, seen

    def _predicted(self, frame: Frame, slot: Slot) -> np.ndarray:
        return self.predictor.predict(self._situation(frame))

    def _measured_before(self, frame: Frame, slot: Slot) -> np.ndarray:
        return self._last_window

    def _measured_window(self, frame: Frame, slot: Slot) -> np.ndarray:
        if not self._last_slots:
            return np.full(self.world.users, np.nan)
        correct, images = np.sum(np.array(self._last_slots), axis=0)
        return share_correct(correct, images)

    def _measured_now(self, frame: Frame, slot: Slot) -> np.ndarray:
        return accuracy_in(self.world, self.learners, [slot])

    def _true(self, frame: Frame, slot: Slot) -> np.ndarray:
        slots = frame.slots if self.scheme.retrain == "frame" else [slot]
        return accuracy_in(self.world, self.learners, slots)

    def _unknown(self, frame: Frame, slot: Slot) -> np.ndarray:
        return np.full(self.world.users, np.nan)
