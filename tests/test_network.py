from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from dtsim.core.checked import checked
from dtsim.physical.channel import FreeSpace, Links
from dtsim.physical.mobility import GaussMarkov, MobilityState, RandomWaypoint, Static
from dtsim.physical.network import Network, NetworkState
from dtsim.physical.topology import Explicit, Hexagonal
from dtsim.physical.urban import UrbanLinks, UrbanMacro, UrbanMicro
from tests.devices import DEVICES


def network(**changes: Any) -> Network:
    options: dict[str, Any] = {
        "topology": Hexagonal().build(),
        "mobility": RandomWaypoint(),
        "channel": FreeSpace(),
        "slot_s": 0.005,
        "frame_spacing_s": 10.0,
    }
    return Network(**{**options, **changes})


def world(net: Network, batch: tuple[int, ...] = (), users: int = 6, seed: int = 0) -> list[NetworkState]:
    """Two frames of three slots."""
    motion, fading = (torch.Generator(net.device).manual_seed(seed + i) for i in (1, 2))
    states = [net.start(batch, users, motion, fading)]
    states += [net.next_slot(states[-1], fading)]
    states += [net.next_slot(states[-1], fading)]
    states += [net.next_frame(states[-1], motion, fading)]
    states += [net.next_slot(states[-1], fading)]
    states += [net.next_slot(states[-1], fading)]
    return states


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
@pytest.mark.parametrize("mobility", [Static(), RandomWaypoint(), GaussMarkov()])
@pytest.mark.parametrize("channel", [FreeSpace(), UrbanMicro(fading="rician"), UrbanMacro()])
def test_shapes_and_precision(
    channel: Any, mobility: Any, batch: tuple[int, ...], dtype: torch.dtype, device: str
) -> None:
    net = network(mobility=mobility, channel=channel, dtype=dtype, device=device)
    for state in world(net, batch):
        rates = (
            net.rate_bps(state),
            net.forecast_rate_bps(state),
            net.snr_db(state),
            state.gain,
            state.distance_m,
        )
        for values in rates:
            assert values.shape == (*batch, 3, 6)
            assert values.dtype == dtype
            assert values.device.type == device
            assert values.isfinite().all()
        assert state.links.fading.dtype == dtype.to_complex()
        assert state.position_m.shape == (*batch, 6, 2)


class Placed:
    """A user's own mobility: everyone at (3, 4), moving 1 m east at each frame."""

    def start(self, shape: Any, area_m: Any, generator: Any, dtype: Any, device: Any) -> MobilityState:
        position = torch.tensor([3.0, 4.0], dtype=dtype, device=device).expand(*shape, 2)
        return MobilityState(position_m=position, speed_mps=torch.zeros(shape, dtype=dtype, device=device))

    def advance(self, state: MobilityState, dt_s: float, area_m: Any, generator: Any) -> MobilityState:
        east = torch.tensor([dt_s, 0.0], dtype=state.position_m.dtype)
        return MobilityState(position_m=state.position_m + east, speed_mps=state.speed_mps)


def test_distances_and_rates_by_hand() -> None:
    topology = Explicit(stations_m=[[0.0, 0.0], [3.0, 104.0]]).build()
    net = network(topology=topology, mobility=Placed(), channel=FreeSpace(fading="none"), frame_spacing_s=1.0)
    first, *_, last = world(net, users=2)
    assert first.distance_m.tolist() == pytest.approx(torch.tensor([[5.0, 5.0], [100.0, 100.0]]).numpy())
    assert last.distance_m[:, 0].tolist() == pytest.approx([32**0.5, (1 + 100**2) ** 0.5])
    assert net.snr_db(first)[1].tolist() == pytest.approx([6.67] * 2, abs=0.01)
    assert net.rate_bps(first)[1].tolist() == pytest.approx([50e6] * 2, abs=0.5e6)
    assert torch.equal(net.rate_bps(first), net.forecast_rate_bps(first))


def test_slots_move_fading_and_frames_move_users() -> None:
    states = world(network(), batch=(50,))
    for before, after in pairwise(states):
        same_frame = before is not states[2]
        assert torch.equal(before.position_m, after.position_m) == same_frame
        assert torch.equal(before.distance_m, after.distance_m) == same_frame
        assert not torch.equal(before.gain, after.gain)
    moved = torch.linalg.vector_norm(states[3].position_m - states[2].position_m, dim=-1)
    assert moved.max() <= 30
    assert moved.mean() > 5


def test_frames_draw_fading_anew_and_slots_carry_it_on() -> None:
    states = world(network(), batch=(2000,), users=2)

    def correlation(older: NetworkState, newer: NetworkState) -> float:
        return (newer.links.fading * older.links.fading.conj()).real.mean().item()

    assert correlation(states[0], states[1]) > 0.8  # walking speeds
    assert abs(correlation(states[2], states[3])) < 0.04


def test_shadowing_changes_as_far_as_users_move_and_stays_with_those_at_rest() -> None:
    """A correlation of exp(-10 m / decorrelation distance) over a frame in which everyone moves by 10 m."""
    for mobility, kept in ((Placed(), [math.exp(-10 / metres) for metres in (50, 10, 13)]), (Static(), [1.0] * 3)):
        states = world(network(mobility=mobility, channel=UrbanMicro()), batch=(2000,), users=2)
        before, after = (checked(state.links, UrbanLinks, "links").hidden for state in states[2:4])
        assert (before * after).mean((1, 2, 3)).tolist() == pytest.approx(
            [each * square for each, square in zip(kept, before.square().mean((1, 2, 3)).tolist(), strict=True)],
            abs=0.04,
        )
        assert torch.equal(before, after) == isinstance(mobility, Static)


def test_gain_averages_to_what_the_forecast_uses() -> None:
    net = network(mobility=Placed())
    state = world(net, batch=(20_000,), users=1)[0]
    mean = net.mean_gain(state)[0]
    assert torch.equal(net.forecast_rate_bps(state)[0], net.channel.rate_bps(mean))
    assert not torch.equal(net.rate_bps(state)[0], net.channel.rate_bps(mean))
    assert torch.allclose(state.gain.mean(0) / mean, torch.ones(3, 1).double(), atol=0.035)


def test_equal_seeds_give_equal_worlds_and_others_do_not() -> None:
    for one, two, other in zip(world(network()), world(network()), world(network(), seed=9), strict=True):
        assert torch.equal(one.gain, two.gain)
        assert torch.equal(one.position_m, two.position_m)
        assert not torch.equal(one.position_m, other.position_m)


@pytest.mark.parametrize("channel", [FreeSpace(fading="none"), UrbanMicro()])
def test_the_channel_does_not_change_how_users_move(channel: Any) -> None:
    for usual, other in zip(world(network()), world(network(channel=channel)), strict=True):
        assert torch.equal(usual.position_m, other.position_m)


def test_no_state_is_changed_by_moving_on() -> None:
    net, motion, fading = network(), torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    state = net.start((), 4, motion, fading)
    gain, position = state.gain.clone(), state.position_m.clone()
    net.next_slot(state, fading)
    net.next_frame(state, motion, fading)
    assert torch.equal(state.gain, gain)
    assert torch.equal(state.position_m, position)


def test_a_batch_equals_its_members() -> None:
    net = network()
    state = world(net, batch=(4,))[-1]
    for i in range(4):
        member = NetworkState(
            mobility=MobilityState(position_m=state.position_m[i], speed_mps=state.mobility.speed_mps[i]),
            links=Links(distance_m=state.distance_m[i], fading=state.links.fading[i]),
            gain=state.gain[i],
        )
        assert torch.allclose(net.rate_bps(state)[i], net.rate_bps(member), rtol=1e-12)
        assert torch.allclose(net.forecast_rate_bps(state)[i], net.forecast_rate_bps(member), rtol=1e-12)
