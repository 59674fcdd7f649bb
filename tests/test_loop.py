"""The loop on a small world: where images go, and which problem each timescale solves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from dtsim.allocation.problem import AllocationProblem
from dtsim.association.problem import AssociationProblem
from dtsim.core.errors import TrainingDiverged
from dtsim.learning.data.splits import Labelled
from dtsim.learning.data.view import View
from dtsim.learning.learners import Update
from dtsim.results.names import ASSOCIATIONS, FRAMES, SLOTS
from dtsim.simulation.loop import Simulation
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.world import Frame, Slot, Uplinks
from dtsim.twin.predictor import ShrunkenTable
from dtsim.twin.store import Source
from tests.small_world import (
    AWAY,
    COST,
    HOME,
    PROPOSED,
    RETRAINING,
    SCHEDULE,
    SINGLE,
    UNSEEN,
    USERS,
    WITHOUT_DT,
    WITHOUT_IL,
    Halves,
    Listed,
    numbers,
    simulation,
    split_of,
    world,
)

COUNT = len(SCHEDULE)
STATION = np.arange(USERS) % 2
"""Where `Listed` puts the MUs."""
each_scheme = pytest.mark.parametrize("scheme", [PROPOSED, WITHOUT_DT, WITHOUT_IL, SINGLE], ids=lambda one: one.name)


def ran(scheme: Scheme) -> tuple[Simulation, list[Frame], list[AssociationProblem], list[AllocationProblem]]:
    """A run of all frames, the same frames once more, and the problems that were solved in it."""
    run = simulation(scheme)
    run.run(COUNT)
    assert isinstance(run.solver, Listed)
    assert isinstance(run.allocator, Halves)
    return run, list(world().frames(COUNT)), run.solver.problems, run.allocator.problems


def slots_of(frames: list[Frame]) -> list[Slot]:
    return [slot for frame in frames for slot in frame.slots]


def links_of_all() -> list[Uplinks]:
    return [links for frame in world().frames(COUNT) for links in frame.links]


@each_scheme
def test_scored_images_are_test_images_and_trained_ones_are_increments_uploaded_before(
    scheme: Scheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = simulation(scheme)
    scored: list[Labelled] = []
    uploaded: set[int] = set()
    trained: set[int] = set()
    right, update, upload = run.learners.right, run.learners.update, run.twin.store.upload

    def scoring(view: View) -> np.ndarray:
        scored.append(view.seen(view.places, HOME))
        return right(view)

    def uploading(user: np.ndarray, region: np.ndarray, source: Source, places: np.ndarray) -> None:
        uploaded.update(numbers(source.at(places)))
        upload(user, region, source, places)

    def training(
        updates: Sequence[Update], *, from_scratch: bool, anew: nn.Module
    ) -> list[nn.Module | TrainingDiverged]:
        for one in updates:
            assert split_of(one.samples) == {"increment"}
            assert uploaded.issuperset(numbers(one.samples))
            trained.update(numbers(one.samples))
        return update(updates, from_scratch=from_scratch, anew=anew)

    monkeypatch.setattr(run.learners, "right", scoring)
    monkeypatch.setattr(run.learners, "update", training)
    monkeypatch.setattr(run.twin.store, "upload", uploading)
    run.run(COUNT)
    assert trained
    assert {split for some in scored for split in split_of(some)} == {"test"}
    assert sum(len(some) for some in scored) >= sum(slot.images.sum() for slot in slots_of(list(world().frames(COUNT))))


@each_scheme
def test_the_twin_sees_only_what_was_uploaded(scheme: Scheme, monkeypatch: pytest.MonkeyPatch) -> None:
    run = simulation(scheme)
    uploads: list[tuple[int, int, list[int]]] = []
    upload = run.twin.store.upload

    def uploading(user: np.ndarray, region: np.ndarray, source: Source, places: np.ndarray) -> None:
        samples = source.at(places)
        assert split_of(samples) == {"increment"}
        for mu in range(USERS):
            (where,) = set(region[user == mu].tolist())
            uploads.append((mu, where, np.array(numbers(samples))[user == mu].tolist()))
        upload(user, region, source, places)

    monkeypatch.setattr(run.twin.store, "upload", uploading)
    run.run(COUNT)
    table = run.records.table(SLOTS)
    whole = (table["upload_bytes"] / COST.sample_bytes + 1e-9).astype(int)  # part of an image is no image
    assert (whole.to_numpy() < table["images"].to_numpy()).all()
    # The first images of each MU's capture, as many as its part of the data holds, for the region that it is in.
    expected = [
        (user, int(frame.region[user]), slot.captures[user].increment.tolist())
        for frame in world().frames(COUNT)
        for slot in frame.slots
        for user in range(USERS)
    ]
    assert uploads == [
        (user, region, places[:count]) for (user, region, places), count in zip(expected, whole, strict=True)
    ]
    labels = [slot.captures[user].labels for slot in slots_of(list(world().frames(COUNT))) for user in range(USERS)]
    counts = np.zeros((2, 3))
    for start in range(0, len(expected), USERS):
        if start and start % (2 * USERS) == 0:  # a new frame: what the histograms knew has faded
            counts *= run.twin.store.memory
        for (_, region, _), count, drawn in list(zip(expected, whole, labels, strict=True))[start : start + USERS]:
            counts[region] += np.bincount(drawn[:count], minlength=3)
    np.testing.assert_allclose(run.twin.store.class_counts, counts * run.twin.store.memory)


def test_an_association_for_a_frame_is_solved_on_the_forecast() -> None:
    run, frames, associated, allocated = ran(PROPOSED)
    assert len(associated) == COUNT
    mean = np.full(USERS, run.world.traffic.mean_images)  # the expected traffic counts as one slot
    seen = [mean]
    for frame, problem, first in zip(frames, associated, allocated[::2], strict=True):
        captured = COST.sample_bytes * np.mean(seen, axis=0)
        retraining = first.retrain_flop.numpy()
        np.testing.assert_allclose(problem.work_flop, COST.flop_per_byte * captured + retraining)
        rate = frame.forecast_rate_bps.numpy()
        np.testing.assert_allclose(problem.upload_s, 8 * captured / rate + run.world.downlink_s)
        np.testing.assert_array_equal(problem.gain, frame.mean_gain.numpy())
        np.testing.assert_array_equal(problem.station_flops, [5e9, 8e9])
        seen += [slot.images for slot in frame.slots]
    assert sum(problem.retrain_flop.sum() for problem in allocated) > 0


def test_an_association_for_a_slot_is_solved_on_the_slot_itself() -> None:
    run, frames, associated, allocated = ran(SINGLE)
    slots, links = slots_of(frames), links_of_all()
    assert len(associated) == len(slots)
    for slot, link, problem, own in zip(slots, links, associated, allocated, strict=True):
        captured = COST.sample_bytes * slot.images
        np.testing.assert_allclose(problem.work_flop, COST.flop_per_byte * captured + own.retrain_flop.numpy())
        np.testing.assert_allclose(problem.upload_s, 8 * captured / link.rate_bps.numpy() + run.world.downlink_s)
    table = run.records.table(ASSOCIATIONS)
    assert table["slot"].tolist() == [slot.index for slot in slots]
    assert table["frame"].tolist() == [slot.index // 2 for slot in slots]


@each_scheme
def test_an_allocation_is_asked_for_the_slot_as_it_is(scheme: Scheme) -> None:
    run, frames, _, allocated = ran(scheme)
    asked = slice(None, None, 1 if scheme.allocate == "slot" else 2)
    slots, links = slots_of(frames)[asked], links_of_all()[asked]
    charged = run.records.table(SLOTS).groupby("slot")["retrain_flop"].apply(np.array)
    assert len(allocated) == len(slots)
    for slot, link, problem in zip(slots, links, allocated, strict=True):
        assert problem.station.tolist() == STATION.tolist()
        assert problem.captured_bytes.tolist() == (COST.sample_bytes * slot.images).tolist()
        assert problem.rate_bps.tolist() == link.rate_bps.numpy()[STATION, np.arange(USERS)].tolist()
        assert problem.retrain_flop.tolist() == charged[slot.index].tolist()
        assert problem.station_flops.tolist() == [5e9, 8e9]
        assert (problem.mu_flops == 1e9).all()
        assert (problem.flop_per_byte, problem.downlink_s) == (COST.flop_per_byte, 8 * 100 / 100e6)


def test_shares_are_held_for_a_frame_where_allocation_is_decided_once() -> None:
    run, frames, _, allocated = ran(WITHOUT_DT)
    table = run.records.table(SLOTS)
    for frame, first in zip(frames, allocated, strict=True):
        given = Halves().allocate(first)
        for slot in frame.slots:
            row = table[table["slot"] == slot.index]
            assert row["compute_flops"].tolist() == pytest.approx(given.compute_flops.tolist())
            assert row["upload_bytes"].tolist() == pytest.approx((COST.sample_bytes / 2 * slot.images).tolist())


@each_scheme
def test_the_work_of_an_update_is_priced_into_every_slot_of_its_window(scheme: Scheme) -> None:
    run, _, _, _ = ran(scheme)
    slots, frames = run.records.table(SLOTS), run.records.table(FRAMES)
    epochs = 3 if scheme.training == "from_scratch" else 2
    work = COST.training_flop * epochs * (frames["samples_real"] + frames["samples_generated"])
    assert (work > 0).any()
    np.testing.assert_allclose(frames["retrain_flop"], work)
    by_frame = slots.groupby(["frame", "user"])["retrain_flop"]
    np.testing.assert_allclose(by_frame.sum(), work)
    if scheme.retrain == "frame":  # evenly
        assert (by_frame.nunique() == 1).all()
        assert (slots.groupby(["frame", "user"])["retrain"].nunique() == 1).all()


def test_models_serve_as_they_are_after_the_update_of_their_frame() -> None:
    """An update is made before its frame is served: the class it teaches is then known."""
    table = ran(PROPOSED)[0].records.table(SLOTS)
    updated = table[table["retrain"] == 1]
    assert len(updated)
    assert (updated["correct"] == updated["images"]).all()
    assert (updated["model_age_frames"] == 0).all()
    away = table[(table["region"] == AWAY) & (table["frame"] == 0)]  # with the base model
    assert (away["correct"] < away["images"]).all()


@pytest.mark.parametrize("scheme", [PROPOSED, SINGLE], ids=lambda scheme: scheme.name)
def test_when_done_an_update_serves_after_its_window(scheme: Scheme) -> None:
    """The old model serves while the work is done; the class that the update teaches is known in the next window."""
    run = simulation(scheme, retraining=replace(RETRAINING, effect="when_done"))
    run.run(COUNT)
    table = run.records.table(SLOTS)
    wrong = table["correct"] < table["scored"]
    window = table["frame"] if scheme.retrain == "frame" else table["slot"]
    for user, own in table.groupby("user"):
        known_after = window[own.index][own["retrain"] == 1].min()
        during = window[own.index] <= known_after
        away = own["region"] == AWAY
        assert wrong[own.index][away & during].all(), user
        assert not wrong[own.index][~during].any(), user
    assert (table["retrain"] == 1).any() and (table["frame"] == COUNT - 1).any()
    assert (table["model_age_frames"][table["retrain"] == 1] > 0).any()


def test_an_mu_under_retraining_uploads_whole_images_and_no_less_than_it_must() -> None:
    run = simulation(PROPOSED, min_upload=0.75)
    assert isinstance(run.allocator, Halves)
    run.run(COUNT)
    predicted = run.records.table(FRAMES).pivot(index="frame", columns="user", values="predicted_accuracy").to_numpy()
    decided = predicted < 0.9
    places = [(frame.index, slot) for frame in run.world.frames(COUNT) for slot in frame.slots]
    for (frame, slot), problem in zip(places, run.allocator.problems, strict=True):
        least = np.ceil(0.75 * slot.images) * COST.sample_bytes * decided[frame]
        assert problem.least_upload_bytes.tolist() == least.tolist()
    assert decided.any() and not decided.all()


def test_of_more_images_than_are_scored_the_first_are_and_all_are_charged() -> None:
    every, some = simulation(PROPOSED), simulation(PROPOSED, scored_images=12)
    every.run(COUNT)
    some.run(COUNT)
    all_rows, rows = every.records.table(SLOTS), some.records.table(SLOTS)
    assert (all_rows["scored"] == all_rows["images"]).all()
    np.testing.assert_array_equal(rows["images"], all_rows["images"])
    np.testing.assert_array_equal(rows["captured_bytes"], all_rows["captured_bytes"])
    np.testing.assert_array_equal(rows["scored"], np.minimum(rows["images"], 12))
    np.testing.assert_array_equal(rows["accuracy"], rows["correct"] / rows["scored"])
    first = rows[rows["frame"] == 0]
    for slot in slots_of(list(some.world.frames(1))):
        right = [int((capture.labels[:12] != UNSEEN).sum()) for capture in slot.captures]
        assert first[first["slot"] == slot.index]["correct"].tolist() == right
    by_frame = rows.groupby(["frame", "user"])[["correct", "scored"]].sum().reset_index()
    np.testing.assert_array_equal(some.records.table(FRAMES)["accuracy"], by_frame["correct"] / by_frame["scored"])


@each_scheme
def test_a_frames_accuracy_is_that_of_all_of_its_slots(scheme: Scheme) -> None:
    """(13), in the rows and in what the predictor learns."""
    run = simulation(scheme)
    run.run(COUNT)
    slots, frames = run.records.table(SLOTS), run.records.table(FRAMES)
    by_frame = slots.groupby(["frame", "user"])[["correct", "images"]].sum().reset_index()
    np.testing.assert_array_equal(frames["accuracy"], by_frame["correct"] / by_frame["images"])
    assert isinstance(run.decider.predictor, ShrunkenTable)
    home = by_frame[frames["region"] == HOME]
    assert run.decider.predictor.counts["region", HOME].tolist() == home[["correct", "images"]].sum().tolist()


def test_the_same_seed_gives_the_same_rows_and_another_one_others() -> None:
    first, again = ran(PROPOSED)[0].records.table(SLOTS), ran(PROPOSED)[0].records.table(SLOTS)
    assert first.equals(again)
    other = simulation(PROPOSED, seed=1)
    other.run(1)
    assert not torch.equal(
        torch.tensor(other.records.table(SLOTS)["rate_bps"].to_numpy()[:USERS]),
        torch.tensor(first["rate_bps"].to_numpy()[:USERS]),
    )
