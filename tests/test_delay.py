"""Two base stations, four users; every delay by hand."""

from __future__ import annotations

import math

import pytest
import torch

from dtsim.physical import delay
from tests.devices import everywhere, precisely


@everywhere
@precisely
def test_every_delay_of_a_slot_by_hand(dtype: torch.dtype, device: str) -> None:
    def users(*values: float) -> torch.Tensor:
        return torch.tensor(values, dtype=dtype, device=device)

    station = torch.tensor([0, 1, 0, 1], device=device)
    up = users(10_000, 5_000, 0, 2_500)  # byte
    rate = users(40e6, 20e6, 10e6, 50e6)  # bit/s
    share = users(2e9, 1e9, 3e9, 4e9)  # FLOP/s
    # (3): 8 * 10,000 / 40e6 = 2 ms, and 1 ms for the result; nothing uploaded, nothing returned
    tx = delay.upload_delay_s(up, rate, downlink_s=1e-3)
    assert tx.tolist() == pytest.approx([3e-3, 3e-3, 0, 1.4e-3])
    # (4): 1,000 byte * 5,000 FLOP/byte / 1e9 FLOP/s = 5 ms
    local = delay.local_delay_s(users(1_000, 0, 2_000, 500), 5_000.0, 1e9)
    assert local.tolist() == pytest.approx([5e-3, 0, 10e-3, 2.5e-3])
    # (5): 10,000 * 5,000 / 2e9 = 25 ms
    cmp = delay.compute_delay_s(up, 5_000.0, share)
    assert cmp.tolist() == pytest.approx([25e-3, 25e-3, 0, 3.125e-3])
    # (10): 60e6 / 3e9 = 20 ms
    re = delay.retrain_delay_s(users(0, 10e6, 60e6, 0), share)
    assert re.tolist() == pytest.approx([0, 10e-3, 20e-3, 0])
    # (7)
    by_station = delay.station_delay_s(tx, cmp, re, station, stations=2)
    assert by_station.tolist() == pytest.approx([28e-3, 38e-3])
    user = delay.user_delay_s(local, tx, cmp, re)
    assert user.tolist() == pytest.approx([28e-3, 38e-3, 20e-3, 4.525e-3])
    assert delay.system_delay_s(user, station, 2, "makespan").item() == pytest.approx(38e-3)
    assert delay.system_delay_s(user, station, 2, "sum").item() == pytest.approx(66e-3)
    # (6): 5e9 of 4e9 given at the first, 5e9 of 6e9 at the second
    assert delay.capacity_excess(share, station, users(4e9, 6e9)).tolist() == pytest.approx([1e9, 0])
    assert {part.dtype for part in (tx, local, cmp, re, by_station, user)} == {dtype}


def test_downlink_keeps_double_precision() -> None:
    tx = delay.upload_delay_s(torch.ones(1, dtype=torch.float64), torch.full((1,), 8.0).double(), downlink_s=0.1)
    assert tx.item() == 1.1


@everywhere
def test_nothing_to_do_takes_no_time_and_something_without_means_takes_forever(device: str) -> None:
    amount, means = torch.tensor([0.0, 0.0, 5.0], device=device), torch.tensor([0.0, 3.0, 0.0], device=device)
    for seconds in (
        delay.upload_delay_s(amount, means, 1e-3),
        delay.compute_delay_s(amount, 2.0, means),
        delay.retrain_delay_s(amount, means),
    ):
        assert seconds.tolist() == [0, 0, math.inf]


def test_sum_counts_the_local_half() -> None:
    """All work done locally: the base stations' own delays are 0, the system's is not."""
    zero, local = torch.zeros(3), torch.tensor([0.3, 0.2, 0.1])
    station = torch.tensor([0, 1, 1])
    assert delay.station_delay_s(zero, zero, zero, station, 3).tolist() == [0, 0, 0]
    user = delay.user_delay_s(local, zero, zero, zero)
    assert delay.system_delay_s(user, station, 3, "sum").item() == pytest.approx(0.5)


def test_unknown_objective_is_named() -> None:
    with pytest.raises(ValueError, match="objective='mean': must be makespan or sum"):
        delay.system_delay_s(torch.ones(1), torch.zeros(1, dtype=torch.int64), 1, "mean")  # type: ignore[arg-type]


def test_infinite_delay_stays_at_its_own_station() -> None:
    tx = torch.tensor([math.inf, 1.0])
    by_station = delay.station_delay_s(tx, torch.zeros(2), torch.zeros(2), torch.tensor([0, 1]), 2)
    assert by_station.tolist() == [math.inf, 1]


@everywhere
def test_a_batch_equals_its_members(device: str) -> None:
    generator = torch.Generator().manual_seed(0)
    batch, stations, users = (5, 2), 3, 7
    links = torch.rand(*batch, stations, users, generator=generator).to(device)
    up, share, local = torch.rand(3, *batch, users, generator=generator).to(device)
    station = torch.randint(stations, (*batch, users), generator=generator).to(device)
    capacity = torch.ones(stations, device=device)

    def slot(index: tuple[int, ...]) -> list[torch.Tensor]:
        rate = delay.at_station(links[index], station[index])
        tx = delay.upload_delay_s(up[index], rate, 0.01)
        cmp = delay.compute_delay_s(up[index], 3.0, share[index])
        user = delay.user_delay_s(local[index], tx, cmp, torch.zeros_like(cmp))
        return [
            delay.station_delay_s(tx, cmp, torch.zeros_like(cmp), station[index], stations),
            delay.capacity_excess(share[index], station[index], capacity),
            delay.system_delay_s(user, station[index], stations, "makespan"),
            delay.system_delay_s(user, station[index], stations, "sum"),
        ]

    whole = slot(())
    for b in range(batch[0]):
        for c in range(batch[1]):
            for together, alone in zip(whole, slot((b, c)), strict=True):
                assert torch.equal(together[b, c], alone)


def test_at_station_picks_the_serving_link() -> None:
    links = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    assert delay.at_station(links, torch.tensor([1, 0, 1])).tolist() == [4, 2, 6]


def test_gradients_are_finite_where_nothing_is_uploaded() -> None:
    up = torch.tensor([0.0, 0.0, 4.0], requires_grad=True)
    share = torch.tensor([0.0, 2.0, 2.0], requires_grad=True)
    delay.compute_delay_s(up, 1.0, share).sum().backward()
    assert up.grad is not None
    assert share.grad is not None
    assert up.grad.tolist()[1:] == [0.5, 0.5]  # 1 / f
    assert share.grad.tolist() == [0, 0, -1]  # -D / f^2
    assert up.grad.isfinite().all()
