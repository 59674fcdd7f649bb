"""Rows as they are recorded: of each slot and frame what happened in it, held against numbers that are given."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import Allocation, AllocationProblem, system_delay_s
from dtsim.association.problem import Association
from dtsim.results.names import DRIFT, FRAMES, REGIONS, SLOTS
from dtsim.simulation.decision import Decision
from dtsim.simulation.loop import Simulation
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.updates import Updates
from dtsim.simulation.world import Frame, Uplinks
from tests.small_world import AWAY, COST, HOME, PROPOSED, SINGLE, USERS, simulation

STATION = np.array([0, 1, 0])
THRESHOLD = 0.5


def started(scheme: Scheme = PROPOSED) -> tuple[Simulation, Frame]:
    """A run and its second frame."""
    run = simulation(scheme, threshold=THRESHOLD)
    return run, list(run.world.frames(2))[1]


def nothing_done(slots: int = 2, predicted: float = 0.4) -> Updates:
    accuracy = np.array([predicted, 0.6, np.nan])
    return Updates.none_yet(Decision(accuracy, np.zeros(USERS), np.zeros(USERS, dtype=bool), slots))


def association() -> Association:
    return Association(
        station=STATION, objective_s=2.0, bound_s=1.0, gap=0.5, solve_time_s=0.1, status="feasible", solver="some"
    )


def links_of(frame: Frame) -> Uplinks:
    """Uplinks that tell every MU and BS apart."""
    snr_db = torch.arange(2.0 * USERS).view(2, USERS) + frame.index
    return Uplinks(position_m=torch.arange(2.0 * USERS).view(USERS, 2), rate_bps=1e6 * snr_db, snr_db=snr_db)


def problem(run: Simulation) -> AllocationProblem:
    """P3 of a slot with simple numbers."""
    return AllocationProblem(
        captured_bytes=torch.tensor([4000.0, 8000.0, 4000.0], dtype=torch.float64),
        rate_bps=torch.tensor([32e3, 64e3, 32e3], dtype=torch.float64),
        retrain_flop=torch.tensor([0.0, 4e9, 0.0], dtype=torch.float64),
        station=torch.from_numpy(STATION),
        station_flops=run.world.station_flops,
        mu_flops=1e9,
        flop_per_byte=1e6,
        downlink_s=run.world.downlink_s,
    )


def recorded(correct: list[int], images: list[int]) -> tuple[pd.DataFrame, Simulation, Frame]:
    """The rows of a slot in which MU 0 uploads half of its data, MU 1 nothing, and MU 2 all."""
    run, frame = started()
    run.learners.updated_frame[:] = [1, 0, -2]
    slot = replace(frame.slots[0], images=np.array(images), scored=np.array(images))
    allocation = Allocation(
        compute_flops=torch.tensor([2e9, 8e9, 3e9], dtype=torch.float64),
        upload_bytes=torch.tensor([2000.0, 0.0, 4000.0], dtype=torch.float64),
    )
    updates = nothing_done()
    updates.updated[:] = [False, True, False]
    run.recorder.slot(frame, slot, links_of(frame), problem(run), allocation, updates, np.array(correct))
    return run.records.table(SLOTS), run, frame


def test_every_delay_of_a_slot_by_hand() -> None:
    table, run, frame = recorded([5, 5, 5], [10, 10, 10])
    back_s = run.world.downlink_s
    assert table["downlink_delay_s"].tolist() == [back_s, 0.0, back_s]
    assert table["upload_delay_s"].tolist() == pytest.approx([0.5 + back_s, 0.0, 1.0 + back_s])
    assert table["compute_delay_s"].tolist() == pytest.approx([1.0, 0.0, 4 / 3])
    assert table["retrain_delay_s"].tolist() == pytest.approx([0.0, 0.5, 0.0])
    assert table["local_delay_s"].tolist() == pytest.approx([2.0, 8.0, 0.0])
    assert table["delay_s"].tolist() == pytest.approx([2.0, 8.0, 7 / 3 + back_s])
    assert table["station"].tolist() == STATION.tolist()
    assert table["station_flops"].tolist() == [5e9, 8e9, 5e9]
    assert table["local_flops"].tolist() == [1e9] * USERS
    assert table["snr_db"].tolist() == links_of(frame).snr_db.numpy()[STATION, np.arange(USERS)].tolist()
    assert table[["x_m", "y_m"]].to_numpy().tolist() == links_of(frame).position_m.tolist()
    assert (table["frame"].tolist(), table["slot"].tolist()) == ([1] * USERS, [2] * USERS)
    optimum = Optimal().allocate(problem(run))
    least_s = system_delay_s(problem(run), optimum, "makespan").item()
    assert table["objective_optimum_s"].tolist() == [least_s] * USERS


def test_a_break_out_is_below_the_threshold_and_needs_an_image() -> None:
    table, _, _ = recorded([5, 4, 0], [10, 10, 0])
    assert table["accuracy"].tolist()[:2] == [0.5, 0.4]
    assert np.isnan(table["accuracy"][2])
    assert table["breakout"].tolist() == [0, 1, 0]
    assert table["retrain"].tolist() == [0, 1, 0]
    assert table["model_age_frames"].tolist() == [0, 1, 3]
    assert table["region"].tolist() == [HOME, AWAY, AWAY]


def framed(scheme: Scheme, epochs: int) -> tuple[pd.DataFrame, Frame]:
    """The rows of a frame of `epochs` decisions; the i-th updates MUs 0 … i with i + 1 real samples each."""
    run, frame = started(scheme)
    all_updates = []
    for epoch in range(epochs):
        updates = nothing_done(2 // epochs, predicted=0.4 + 0.1 * epoch)
        updates.updated[: epoch + 1] = True
        updates.real[: epoch + 1] = epoch + 1
        updates.generated[:1] = 10
        updates.kl_nat[:1] = 0.1 * (epoch + 1)
        updates.charged_flop[: epoch + 1] = 6.0
        updates.generator_flop[:1] = 2.0
        updates.decision.prediction_flop[2] = 3.0
        updates.diverged[2] = True
        updates.accuracy_without[:1] = 0.25
        all_updates.append(updates)
    images = np.sum([slot.images for slot in frame.slots], axis=0)
    charged = np.asarray(sum(updates.decision.window_slots * updates.slot_flop for updates in all_updates))
    run.recorder.frame(frame, association(), all_updates, images // 2 - [0, 1, 0], images, charged)
    return run.records.table(FRAMES), frame


def test_a_frame_adds_up_its_updates() -> None:
    table, frame = framed(SINGLE, 2)
    assert table["retrain"].tolist() == [2, 1, 0]
    assert table["samples_real"].tolist() == [3, 2, 0]
    assert table["samples_generated"].tolist() == [20, 0, 0]
    assert table["kl"].tolist()[:1] == pytest.approx([0.15])  # the mean
    assert table["kl"].isna().tolist() == [False, True, True]
    assert table["retrain_flop"].tolist() == [12.0, 6.0, 0.0]
    assert table["generator_flop"].tolist() == [4.0, 0.0, 0.0]
    assert table["prediction_flop"].tolist() == [0.0, 0.0, 6.0]
    assert table["diverged"].tolist() == [0, 0, 2]
    assert table["accuracy_without_update"].isna().all()  # with updates in every slot there is no such thing
    assert table["predicted_accuracy"].tolist()[:2] == [0.4, 0.6]  # of the first decision
    assert table["station"].tolist() == STATION.tolist()
    assert table["region"].tolist() == frame.region.tolist() == [HOME, AWAY, AWAY]


def test_a_frames_accuracy_is_that_of_all_its_images() -> None:
    table, frame = framed(PROPOSED, 1)
    images = np.sum([slot.images for slot in frame.slots], axis=0)
    accuracy = (images // 2 - [0, 1, 0]) / images
    assert table["accuracy"].tolist() == accuracy.tolist()
    assert table["breakout"].tolist() == (accuracy < THRESHOLD).astype(int).tolist()
    assert table["predicted_accuracy"].tolist()[:2] == [0.4, 0.6]
    assert table["accuracy_without_update"].tolist() == [0.25, *accuracy[1:]]  # MU 0 alone was updated
    assert table["retrain_flop"].tolist() == [6.0, 0.0, 0.0]
    # The base model knows what home shows, and half of what is seen away.
    assert table["average_accuracy"].tolist() == pytest.approx([1.0, 0.5, 0.5])


def test_regions_and_where_each_mu_was_can_be_read_back() -> None:
    run = simulation()
    run.run(2)
    regions = run.records.table(REGIONS).pivot(index="region", columns="class", values="probability")
    np.testing.assert_allclose(regions.to_numpy(), [[0.5, 0.5, 0.0], [0.25, 0.25, 0.5]])
    drift = run.records.table(DRIFT).pivot(index="frame", columns="user", values="region")
    np.testing.assert_array_equal(drift.to_numpy(), [[HOME, HOME, AWAY], [HOME, AWAY, AWAY]])
    assert COST.flop_per_byte == run.records.table(SLOTS)["flop_per_byte"].unique().item()
