"""The twin's copy of the network: slots with the retraining loads and associations that a run may meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch

from dtsim.association import greedy
from dtsim.association.problem import AssociationProblem
from dtsim.physical.traffic import UniformTraffic
from dtsim.twin.mirror import Mirror, longest_first
from tests.small_world import COST, RETRAINING, world

SLOTS_PER_FRAME = 20
UPDATE_FLOP = COST.training_flop * RETRAINING.epochs * RETRAINING.samples


def mirror() -> Mirror:
    return Mirror(
        network=world().network,
        traffic=UniformTraffic(min_images=10, max_images=20),
        cost=COST,
        retraining=RETRAINING,
        slots_per_frame=SLOTS_PER_FRAME,
        config={},
    )


def test_heaviest_first_by_hand() -> None:
    """Work 5, 4, 3 on two BSs of speed 1; MU 1, the second, is far from BS 1, MU 2 far from none."""
    work = torch.tensor([[3.0, 4.0, 5.0]])
    upload = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 7.0, 0.0]]])
    # 5 goes to BS 0; 4 would end at 9 there and at 11 at BS 1; 3 ends at 3 at BS 1.
    assert longest_first(work, upload, torch.ones(2)).tolist() == [[1, 0, 0]]


def test_heaviest_first_is_the_solvers_for_each_slot_of_a_batch() -> None:
    rng = np.random.default_rng(0)
    work, upload = rng.uniform(0, 5e9, (50, 7)), rng.uniform(0, 0.2, (50, 3, 7))
    flops = np.array([1e10, 5e10, 2e10])
    together = longest_first(*(torch.from_numpy(values) for values in (work, upload, flops)))
    for slot in range(50):
        problem = AssociationProblem(work[slot], upload[slot], flops, upload[slot])
        assert together[slot].tolist() == greedy.longest_first(problem).tolist()


def test_updates_are_priced_into_one_slot_in_a_quarter_of_the_slots_and_into_a_frame_in_the_others() -> None:
    loads = mirror().sample(4000, 3, torch.Generator().manual_seed(0)).retrain_flop.double() / UPDATE_FLOP
    retraining = loads[(loads > 0).any(dim=1)]
    at_once = (retraining > 1 / SLOTS_PER_FRAME).any(dim=1)
    assert abs(at_once.double().mean().item() - 0.25) < 0.03
    one, spread = retraining[at_once], SLOTS_PER_FRAME * retraining[~at_once]
    for work in (one[one > 0], spread[spread > 0]):  # between a tenth of an update's samples and all of them
        assert 0.1 <= work.min() < 0.12
        assert 0.98 < work.max() <= 1 + 1e-6
    # Each slot retrains a share of its MUs, between none and 0.8 of them.
    assert abs((loads > 0).double().mean().item() - 0.4) < 0.03


def test_slots_are_the_networks_with_its_own_traffic() -> None:
    made = mirror().sample(500, 3, torch.Generator().manual_seed(0))
    images = made.captured_bytes / COST.sample_bytes
    assert set(images.unique().tolist()) == set(range(10, 21))
    assert made.station_flops[0].tolist() == [5e9, 8e9]
    assert (made.flop_per_byte, made.downlink_s) == (COST.flop_per_byte, 8e-6)
    assert set(made.station.unique().tolist()) == {0, 1}
    again = mirror().sample(500, 3, torch.Generator().manual_seed(0))
    assert torch.equal(made.rate_bps, again.rate_bps)


def test_a_policy_meets_retraining_loads_whoever_pays_for_them() -> None:
    """Also where only generated samples are charged; where none are there is no load."""

    def most(charge: Literal["all", "generated", "none"]) -> float:
        source = replace(mirror(), retraining=replace(RETRAINING, charge=charge))
        return source.sample(200, 4, torch.Generator().manual_seed(0)).retrain_flop.max().item()

    assert most("generated") == most("all") > 0
    assert most("none") == 0
