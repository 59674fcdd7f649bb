"""What an update changes, what it trains on, and what it is charged, eqs. (9) and (10)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import nn

from dtsim.core.errors import TrainingDiverged
from dtsim.learning.data.splits import Labelled
from dtsim.learning.learners import Learners, Update
from dtsim.learning.prior import PriorCorrected
from dtsim.results.names import LEARNING_CURVE
from dtsim.simulation.decision import Decision
from dtsim.simulation.loop import Simulation
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.updates import Updates
from dtsim.simulation.world import Frame
from dtsim.twin.generator import ClassConditional, Generated, Generation, Generator, GeneratorPart, Truth
from dtsim.twin.store import Store
from tests.small_world import (
    AWAY,
    COST,
    HOME,
    PROPOSED,
    RETRAINING,
    SINGLE,
    UNSEEN,
    USERS,
    WITHOUT_IL,
    Knowing,
    images,
    known_by,
    numbers,
    simulation,
)

REAL = 6
"""Samples that MU 0 uploads in `executed`: two of each class."""


def decided(*users: int, slots: int = 2, prediction_flop: float = 0.0) -> Decision:
    """A decision to retrain the models of `users`."""
    retrain = np.isin(np.arange(USERS), users)
    return Decision(np.full(USERS, 0.5), np.full(USERS, prediction_flop), retrain, slots)


def third(run: Simulation) -> Frame:
    """The frame in which MUs 0 and 1 are away and MU 2 is at home."""
    return list(run.world.frames(3))[2]


def executed(
    scheme: Scheme = PROPOSED,
    *,
    charge: Literal["all", "real", "generated", "none"] = "all",
    effect: Literal["at_once", "when_done"] = "at_once",
    generator: GeneratorPart | None = None,
    prediction_flop: float = 0.0,
) -> tuple[Simulation, Updates]:
    """A run in which MU 0, away, has uploaded six samples and MU 1 four; then both models were to be updated.

    The update is in frame 2; nothing is known of MU 2, whose model is to be updated too.
    """
    retraining = replace(RETRAINING, charge=charge, effect=effect)
    run = simulation(scheme, retraining=retraining, generator=generator)
    run.twin.store.upload(0, AWAY, images("increment", REAL))
    run.twin.store.upload(1, AWAY, images("increment", 4))
    run.twin.store.close_window()
    frame = third(run)
    window = 2 if scheme.retrain == "frame" else 1
    decision = decided(0, 1, 2, slots=window, prediction_flop=prediction_flop)
    return run, run.retrainer.execute(decision, frame, frame.slots[0])


def test_an_update_leaves_a_model_for_the_present_region_of_age_zero_and_for_what_it_trained_on() -> None:
    run, updates = executed()
    assert updates.updated.tolist() == [True, True, False]  # the twin has nothing for MU 2
    assert run.learners.trained_region.tolist() == [AWAY, AWAY, HOME]
    assert run.learners.updated_frame.tolist() == [2, 2, 0]
    np.testing.assert_allclose(run.learners.trained_on[2], [0.5, 0.5, 0])  # as the base model
    # MU 0: two of each class, and 14 generated ones after the ten uploads of the region, which are 4, 3 and 3.
    generated = np.array([6, 4, 4])
    np.testing.assert_allclose(run.learners.trained_on[0], (2 + generated) / 20)
    assert known_by(run.learners.models[0]) == {0, 1, UNSEEN}
    assert known_by(run.learners.models[2]) == {0, 1}
    assert run.learners.models[2] is run.learners.base


def test_sets_that_take_too_much_memory_together_are_trained_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    together, all_updates = executed()
    monkeypatch.setattr("dtsim.simulation.retrainer.TOGETHER_BYTES", 50)  # below the first set's
    groups = list[list[int]]()
    update = Learners.update

    def noted(learners: Learners, updates: Sequence[Update], **keys: Any) -> list[nn.Module | TrainingDiverged]:
        groups.append([one.user for one in updates])
        return update(learners, updates, **keys)

    monkeypatch.setattr(Learners, "update", noted)
    in_turn, updates = executed()
    assert groups == [[0], [1], []]
    for user in (0, 1):
        for ours, theirs in zip(*(run.learners.models[user].parameters() for run in (in_turn, together)), strict=True):
            assert torch.equal(ours, theirs)
    for name in ("updated", "real", "generated", "charged_flop", "accuracy_without"):
        np.testing.assert_array_equal(getattr(updates, name), getattr(all_updates, name))


def test_the_next_decision_sees_the_update() -> None:
    """The predictor's situation after an update: the region that the model is now for, at age 0, then 1."""
    run, _ = executed()
    frames = list(run.world.frames(4))
    for frame, ages in ((frames[2], [0, 0, 2]), (frames[3], [1, 1, 3])):
        situation = run.decider._situation(frame)
        assert situation.trained_region.tolist() == [AWAY, AWAY, HOME]
        assert situation.age_frames.tolist() == ages


@pytest.mark.parametrize(("charge", "samples"), [("all", 20), ("real", REAL), ("generated", 20 - REAL), ("none", 0)])
def test_exactly_the_samples_that_are_to_be_charged_are_charged(
    charge: Literal["all", "real", "generated", "none"], samples: int
) -> None:
    """(10): κ c_s E n for each n that `retraining.charge` names, spread over the window's slots."""
    _, updates = executed(charge=charge)
    assert (updates.real[0], updates.generated[0]) == (REAL, 20 - REAL)
    work = COST.training_flop * RETRAINING.epochs * samples
    assert updates.charged_flop[0] == work
    assert updates.slot_flop[0] == work / 2
    assert updates.charged_flop[2] == 0


def test_an_update_of_one_slot_is_charged_to_that_slot() -> None:
    _, updates = executed(SINGLE)
    assert updates.slot_flop[0] == updates.charged_flop[0] == COST.training_flop * RETRAINING.epochs * 20
    assert np.isnan(updates.accuracy_without).all()


@pytest.mark.parametrize(("charge", "charged"), [("all", 7.0), ("real", 0.0), ("none", 0.0)])
def test_predicting_is_charged_to_every_mu_where_all_work_is(
    charge: Literal["all", "real", "none"], charged: float
) -> None:
    _, updates = executed(charge=charge, prediction_flop=7.0)
    assert updates.charged_flop[2] == charged
    without = executed(charge=charge)[1].charged_flop
    np.testing.assert_allclose(updates.charged_flop, without + charged)


class Working(ClassConditional):
    """Stored samples, at a work of 123 FLOP."""

    def make(self, region: int, counts: np.ndarray, store: Store, rng: np.random.Generator) -> Generated:
        return Generated(store.draw(region, counts, rng), 123.0)


class Costly(Generation):
    """A generator that works."""

    def build(self, truth: Truth) -> Generator:
        return Working(self)


@pytest.mark.parametrize(("charge", "samples", "extra"), [("all", 20, 123.0), ("real", REAL, 0.0), ("none", 0, 0.0)])
def test_a_generators_work_is_charged_where_all_work_is(
    charge: Literal["all", "real", "none"], samples: int, extra: float
) -> None:
    _, updates = executed(charge=charge, generator=Costly())
    assert updates.generator_flop[0] == 123.0
    assert updates.charged_flop[0] == COST.training_flop * RETRAINING.epochs * samples + extra


def test_when_done_an_update_waits_for_the_end_of_its_window() -> None:
    run, updates = executed(effect="when_done")
    base = run.learners.base
    assert updates.updated.tolist() == [True, True, False] and updates.charged_flop[0] > 0
    assert all(model is base for model in run.learners.models)
    assert run.learners.trained_region.tolist() == [HOME] * USERS
    run.learners.take_effect()
    assert known_by(run.learners.models[0]) == {0, 1, UNSEEN} and run.learners.models[2] is base
    assert run.learners.trained_region.tolist() == [AWAY, AWAY, HOME]
    assert run.learners.updated_frame.tolist() == [2, 2, 0]
    served = run.learners.models[0]
    run.learners.take_effect()  # nothing waits any more
    assert run.learners.models[0] is served


def handed_over(monkeypatch: pytest.MonkeyPatch, run: Simulation) -> list[tuple[list[Labelled], bool, nn.Module]]:
    """What `run` has its learners train: samples, whether from scratch, and the untrained model."""
    seen: list[tuple[list[Labelled], bool, nn.Module]] = []
    update = run.learners.update

    def watch(updates: Sequence[Update], *, from_scratch: bool, anew: nn.Module) -> list[nn.Module | TrainingDiverged]:
        seen.append(([one.samples for one in updates], from_scratch, anew))
        return update(updates, from_scratch=from_scratch, anew=anew)

    monkeypatch.setattr(run.learners, "update", watch)
    return seen


def test_from_scratch_forgets_the_old_weights_and_trains_on_all_that_was_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two windows of class 2 alone: what the old model knew of class 1 is gone, and both windows are trained on."""
    run = simulation(WITHOUT_IL)
    seen = handed_over(monkeypatch, run)
    every = images("increment", 60)
    for begin in (0, 30):
        twos = torch.arange(begin, begin + 30)[every.labels[begin : begin + 30] == 2]
        run.twin.store.upload(0, AWAY, Labelled(every.images[twos], every.labels[twos]))
        run.twin.store.close_window()
    frame = third(run)
    updates = run.retrainer.execute(decided(0), frame, frame.slots[0])
    ((samples,), from_scratch, anew) = seen[0]
    assert from_scratch
    assert known_by(anew) == {0}
    assert numbers(samples) == [number for number in range(60) if number % 3 == 2]
    assert known_by(run.learners.models[0]) == {0, 2}
    assert updates.charged_flop[0] == COST.training_flop * RETRAINING.scratch_epochs * 20
    assert (updates.real[0], updates.generated[0]) == (20, 0)


def test_an_incremental_update_goes_on_from_the_present_weights_with_the_last_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scheme = replace(PROPOSED, generated=False)
    run = simulation(scheme, retraining=replace(RETRAINING, learning_rate=1e-6))
    seen = handed_over(monkeypatch, run)
    run.learners.models[0] = Knowing((1,))
    for count in (9, 6):
        run.twin.store.upload(0, AWAY, images("increment", count))
        run.twin.store.close_window()
    frame = third(run)
    run.retrainer.execute(decided(0), frame, frame.slots[0])
    ((samples,), from_scratch, _) = seen[0]
    assert not from_scratch
    assert len(samples) == 6
    before, after = Knowing((1,)).head.weight, next(run.learners.models[0].parameters())
    assert torch.allclose(before, after, atol=1e-4)
    assert not torch.equal(before, after)


def test_an_update_that_fails_is_charged_and_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverging(*_: object, **__: object) -> None:
        raise TrainingDiverged("the loss rose")

    monkeypatch.setattr("dtsim.learning.learners.train", diverging)
    run, updates = executed()
    assert updates.diverged.tolist() == [True, True, False]
    assert not updates.updated.any()
    assert updates.charged_flop[0] == COST.training_flop * RETRAINING.epochs * 20
    assert np.isnan(updates.accuracy_without).all()
    assert all(model is run.learners.base for model in run.learners.models)
    assert run.learners.trained_region.tolist() == [HOME] * USERS
    assert run.learners.updated_frame.tolist() == [0] * USERS
    np.testing.assert_allclose(run.learners.trained_on, [[0.5, 0.5, 0]] * USERS)
    assert run.records.table(LEARNING_CURVE).empty


def test_accuracy_without_an_update_is_that_of_the_model_before_it_in_the_whole_frame() -> None:
    run, updates = executed()
    labels = [np.concatenate([slot.captures[user].labels for slot in third(run).slots]) for user in (0, 1)]
    np.testing.assert_allclose(updates.accuracy_without, [*(float(np.mean(some < 2)) for some in labels), np.nan])


def test_a_prior_correction_reweights_the_logits_for_what_is_believed() -> None:
    scheme = replace(PROPOSED, training="prior_correction", generated=False)
    run, updates = executed(scheme)
    assert updates.updated.tolist() == [True, True, False]  # nothing is believed of MU 2's region
    assert run.learners.trained_region.tolist() == [AWAY, AWAY, HOME]
    assert run.learners.updated_frame.tolist() == [2, 2, 0]
    np.testing.assert_allclose(run.learners.trained_on, [[0.5, 0.5, 0]] * USERS)  # the weights are still the base's
    assert (updates.charged_flop == 0).all()
    corrected = run.learners.models[0]
    assert isinstance(corrected, PriorCorrected)
    believed, smoothing = np.array([0.4, 0.3, 0.3]), run.twin.smoothing
    ratio = np.log(
        ((1 - smoothing) * believed + smoothing / 3) / ((1 - smoothing) * np.array([0.5, 0.5, 0]) + smoothing / 3)
    )
    np.testing.assert_allclose(corrected.log_ratio.numpy(), ratio, rtol=1e-5)


@pytest.mark.parametrize("belief", ["twin", "truth"])
def test_what_is_believed_is_the_twins_or_the_truth(
    belief: Literal["twin", "truth"], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulation(replace(PROPOSED, belief=belief))
    seen: list[tuple[list[float], list[float]]] = []
    training_set = run.twin.training_set

    def watch(**given: object) -> object:
        seen.append((np.asarray(given["belief"]).tolist(), np.asarray(given["trained_on"]).tolist()))
        return training_set(**given)  # type: ignore[arg-type]

    monkeypatch.setattr(run.twin, "training_set", watch)
    run.twin.store.upload(0, AWAY, images("increment", 4))
    run.twin.store.close_window()
    run.learners.trained_on[0] = [0.2, 0.3, 0.5]
    frame = third(run)
    run.retrainer.execute(decided(0), frame, frame.slots[0])
    ((believed, trained_on),) = seen
    assert believed == pytest.approx([0.5, 0.25, 0.25] if belief == "twin" else [0.25, 0.25, 0.5])
    assert trained_on == [0.2, 0.3, 0.5]


def test_the_curve_of_an_update_counts_its_work() -> None:
    run, _ = executed()
    table = run.records.table(LEARNING_CURVE)
    curve = table[(table["user"] == 0) & (table["metric"] == "accuracy")]
    assert curve["epoch"].tolist() == [0, 1, 2]
    assert curve["flop"].tolist() == [0, 20 * COST.training_flop, 40 * COST.training_flop]
    assert set(table["user"]) == {0, 1}
    assert (table["frame"] == 2).all()
    assert (table["slot"] == 4).all()
