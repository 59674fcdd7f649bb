"""Whose model is retrained: what is compared with the threshold, and what is remembered from window to window."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from dtsim.simulation.decision import Decision
from dtsim.simulation.loop import Simulation
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.scoring import scored_in
from dtsim.simulation.world import Frame
from dtsim.twin.predictor import Predictor, Shadow, Situation
from tests.small_world import AWAY, COST, HOME, PROPOSED, SINGLE, USERS, WITHOUT_DT, Knowing, images, simulation


@dataclass
class Noted:
    """A predictor that says what it is told to, and keeps what it is asked and shown."""

    says: tuple[float, ...] = (0.5,) * USERS
    asked: list[Situation] = field(default_factory=list)
    shown: list[tuple[Situation, list[int], list[int]]] = field(default_factory=list)

    def build(self, base_accuracy: float) -> Predictor:
        return self

    def predict(self, situation: Situation) -> np.ndarray:
        self.asked.append(situation)
        return np.array(self.says)

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        self.shown.append((situation, correct.tolist(), images.tolist()))


def started(scheme: Scheme = PROPOSED, predictor: Noted | Shadow | None = None) -> tuple[Simulation, list[Frame]]:
    """A run before its first frame, and its frames."""
    run = simulation(scheme, predictor=predictor)
    return run, list(run.world.frames(3))


def decide(run: Simulation, frame: Frame, slot: int = 0) -> Decision:
    return run.decider.decide(frame, frame.slots[slot])


def share_of_seen(frame: Frame, slots: slice = slice(None)) -> list[float]:
    """What share of its images the base model, which knows classes 0 and 1, infers right; of every MU."""
    labels = [np.concatenate([slot.captures[user].labels for slot in frame.slots[slots]]) for user in range(USERS)]
    return [float(np.mean(some < 2)) for some in labels]


def test_a_model_is_retrained_where_its_accuracy_is_below_the_threshold_and_not_at_it() -> None:
    run, (frame, *_) = started(predictor=Noted(says=(0.8999, 0.9, 0.95)))
    decision = decide(run, frame)
    assert decision.retrain.tolist() == [True, False, False]
    assert decision.predicted_accuracy.tolist() == [0.8999, 0.9, 0.95]


def test_the_twin_is_asked_where_the_mu_is_where_its_model_was_trained_and_how_old_it_is() -> None:
    noted = Noted()
    run, (_, _, frame) = started(predictor=noted)
    run.learners.trained_region[:] = [HOME, AWAY, AWAY]
    run.learners.updated_frame[:] = [0, 1, 2]
    decide(run, frame)
    (asked,) = noted.asked
    assert asked.region.tolist() == [AWAY, AWAY, HOME]
    assert asked.trained_region.tolist() == [HOME, AWAY, AWAY]
    assert asked.age_frames.tolist() == [2, 1, 0]
    run.learners.trained_region[:] = HOME  # an update that follows must not change what was asked
    assert asked.trained_region.tolist() == [HOME, AWAY, AWAY]


def test_measured_accuracy_is_that_of_the_last_window_alone() -> None:
    """What was measured before the last decision no longer counts."""
    run, (frame, after, last) = started(WITHOUT_DT)
    assert np.isnan(decide(run, frame).predicted_accuracy).all()  # nothing was measured yet
    run.decider.measured(np.array([1, 2, 0]), np.array([10, 10, 0]))
    run.decider.measured(np.array([3, 8, 0]), np.array([10, 10, 0]))
    decision = decide(run, after)
    np.testing.assert_allclose(decision.predicted_accuracy, [0.2, 0.5, np.nan])
    assert decision.retrain.tolist() == [True, True, False]  # an MU without an image is below no threshold
    run.decider.measured(np.array([10, 9, 5]), np.array([10, 10, 10]))
    np.testing.assert_allclose(decide(run, last).predicted_accuracy, [1.0, 0.9, 0.5])


def test_accuracy_measured_in_a_window_is_that_of_the_last_slots_whatever_was_decided_between() -> None:
    run, (frame, after, _) = started(replace(SINGLE, decision="measured_window"))
    assert run.world.slots_per_frame == 2
    assert np.isnan(decide(run, frame).predicted_accuracy).all()
    run.decider.measured(np.array([1, 2, 0]), np.array([10, 20, 0]))
    np.testing.assert_allclose(decide(run, frame, 1).predicted_accuracy, [0.1, 0.1, np.nan])
    run.decider.measured(np.array([3, 8, 0]), np.array([10, 20, 0]))
    np.testing.assert_allclose(decide(run, after).predicted_accuracy, [0.2, 0.25, np.nan])
    run.decider.measured(np.array([9, 20, 5]), np.array([10, 20, 10]))
    np.testing.assert_allclose(decide(run, after, 1).predicted_accuracy, [0.6, 0.7, 0.5])


def test_accuracy_measured_now_is_that_of_the_slot() -> None:
    run, (frame, *_) = started(SINGLE)
    for place in (0, 1):
        np.testing.assert_allclose(
            decide(run, frame, place).predicted_accuracy, share_of_seen(frame, slice(place, place + 1))
        )


@pytest.mark.parametrize("clock", ["frame", "slot"])
def test_the_truth_is_that_of_the_window_that_is_decided(clock: str) -> None:
    base = PROPOSED if clock == "frame" else SINGLE
    run, (frame, *_) = started(replace(base, decision="truth"))
    window = slice(None) if clock == "frame" else slice(1, 2)
    np.testing.assert_allclose(decide(run, frame, 1).predicted_accuracy, share_of_seen(frame, window))


def test_never_is_no_accuracy_at_all() -> None:
    run, (frame, *_) = started(replace(PROPOSED, decision="never"))
    decision = decide(run, frame)
    assert np.isnan(decision.predicted_accuracy).all()
    assert not decision.retrain.any()


def test_a_window_is_a_frame_or_a_slot() -> None:
    for scheme, slots in ((PROPOSED, 2), (SINGLE, 1)):
        run, (frame, *_) = started(scheme)
        assert decide(run, frame).window_slots == slots


def test_a_decision_closes_the_window_of_uploads() -> None:
    run, (frame, after, _) = started()
    decide(run, frame)
    run.twin.store.upload(0, HOME, images("increment", 4))
    assert run.twin.store.last_window(0) is None
    decide(run, after)
    window = run.twin.store.last_window(0)
    assert window is not None
    assert len(window) == 4


def test_the_twin_learns_from_the_whole_frame_and_forgets_once() -> None:
    noted = Noted()
    run, (frame, *_) = started(predictor=noted)
    run.learners.updated_frame[:] = [0, -1, -2]
    run.twin.store.upload(0, HOME, images("increment", 6))
    run.decider.end_of_frame(frame, np.array([7, 8, 9]), scored_in(frame))
    ((situation, correct, seen),) = noted.shown
    assert correct == [7, 8, 9]
    assert seen == (frame.slots[0].images + frame.slots[1].images).tolist()
    assert situation.region.tolist() == [HOME, HOME, AWAY]
    assert situation.age_frames.tolist() == [0, 1, 2]
    assert run.twin.store.class_counts[HOME].tolist() == [1, 1, 1]  # 2 of each class, times 0.5


def test_samples_held_out_are_those_of_the_region_and_their_inference_is_work() -> None:
    noted = Noted()
    run, (frame, *_) = started(predictor=noted)
    run.twin.store.holdout_share = 0.5
    run.twin.store.upload(0, HOME, images("increment", 40))
    kept = run.twin.store.held_out(HOME)
    assert kept is not None
    counts = kept.class_counts(3)
    run.learners.models[1] = Knowing((1, 2))  # which calls class 0 so too
    assert decide(run, frame).prediction_flop.tolist() == [0, 0, 0]  # nobody looked at them
    right, seen = noted.asked[0].held_out()
    assert seen.tolist() == [len(kept), len(kept), 0]  # nothing was uploaded away from home
    assert right.tolist() == [counts[0] + counts[1], len(kept), 0]
    run.decider.predictor = Shadow(prior_images=0.0).build(0.95)
    for _ in range(2):  # each decision counts its own
        decision = decide(run, frame)
        np.testing.assert_array_equal(decision.prediction_flop, COST.stored_flop * seen)
        np.testing.assert_allclose(decision.predicted_accuracy, [right[0] / seen[0], 1.0, 0.95])
