"""Shapes are checked at every call while tests run: arrays that do not fit together are refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from jaxtyping import TypeCheckError

from dtsim.allocation.problem import AllocationProblem, inference_flop, serving, station_sum
from dtsim.physical import delay
from dtsim.twin.distribution import closest_counts, kl_divergence_nat


def problem(slots: int = 4, users: int = 3) -> AllocationProblem:
    ones = torch.ones(slots, users)
    return AllocationProblem(
        captured_bytes=ones,
        rate_bps=ones,
        retrain_flop=ones,
        station=torch.zeros(slots, users, dtype=torch.int64),
        station_flops=torch.ones(2),
        mu_flops=1.0,
        flop_per_byte=1.0,
        downlink_s=0.0,
    )


def test_what_fits_is_let_through() -> None:
    assert station_sum(torch.ones(4, 3), problem()).shape == (4, 2)
    assert serving(torch.ones(4, 2), problem()).shape == inference_flop(problem()).shape == (4, 3)
    assert delay.user_delay_s(*torch.ones(4, 2, 3)).shape == (2, 3)


def test_delays_of_other_mus_or_slots_are_refused() -> None:
    """Torch itself would stretch the one over the other."""
    one, station = torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.int64)
    for other in (torch.ones(3), torch.ones(2, 1), torch.ones(1, 3)):
        assert (one + other).shape == (2, 3)
        with pytest.raises(TypeCheckError):
            delay.user_delay_s(one, one, one, other)
        with pytest.raises(TypeCheckError):
            delay.upload_delay_s(one, other, 0.0)
    with pytest.raises(TypeCheckError):
        delay.at_station(torch.ones(2, 5, 3), station[:, :2])
    with pytest.raises(TypeCheckError):
        delay.system_delay_s(one, station.to(torch.int32), 1, "makespan")
    with pytest.raises(TypeCheckError):
        serving(torch.ones(4, 2, 1, 1)[..., 0, 0].long(), problem())


def test_distributions_over_other_classes_are_refused() -> None:
    with pytest.raises(TypeCheckError):
        kl_divergence_nat(np.full(3, 1 / 3), np.ones(1))
    with pytest.raises(TypeCheckError):
        closest_counts(np.full(3, 1 / 3), 5, np.ones(3))  # not a mask
