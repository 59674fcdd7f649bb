"""UMi and UMa against TR 38.901 by hand, and the laws that line of sight and shadowing follow."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch

from dtsim.core.parts import ConfigError, build
from dtsim.physical.channel import FreeSpace, to_db
from dtsim.physical.mobility import RandomWaypoint
from dtsim.physical.network import Network
from dtsim.physical.topology import Hexagonal
from dtsim.physical.urban import (
    UMA,
    UMI,
    Scenario,
    UrbanMacro,
    UrbanMicro,
    break_point_m,
    los_probability,
    path_losses_db,
)
from tests.composed import node
from tests.devices import everywhere, precisely


@pytest.mark.parametrize(
    ("scenario", "station_m", "mu_m", "ground_m", "los_db", "nlos_db"),
    [
        # 3.5 GHz; d_3D = sqrt(d^2 + rise^2). Below the break point of 210 m, then beyond it; rise 8.5 m.
        (UMI, 10.0, 1.5, 100.0, 85.3142, 104.6438),  # 32.4 + 21 lg 100.3606 + 20 lg 3.5; 22.4 + 35.3 lg + 21.3 lg 3.5
        (UMI, 10.0, 1.5, 500.0, 107.1138, 129.2645),  # 32.4 + 40 lg 500.0722 + 20 lg 3.5 - 9.5 lg(210^2 + 8.5^2)
        (UMI, 10.0, 3.5, 100.0, 85.3006, 104.0210),  # a user 2 m higher: rise 6.5 m, 0.6 dB less without LOS
        (UMI, 10.0, 1.5, 2.0, 66.7610, 73.4569),  # as from 10 m: d_3D = 13.1244 m
        # Break point 560 m, rise 23.5 m.
        (UMA, 25.0, 1.5, 100.0, 83.1382, 103.0375),
        (UMA, 25.0, 1.5, 1000.0, 109.4119, 141.6660),
    ],
)  # fmt: skip
@everywhere
@precisely
def test_path_losses_by_hand(
    dtype: torch.dtype, device: str, scenario: Scenario, station_m: float, mu_m: float, ground_m: float,
    los_db: float, nlos_db: float,
) -> None:  # fmt: skip
    ground = torch.tensor([ground_m], dtype=dtype, device=device)
    losses = path_losses_db(scenario, ground, 3.5e9, station_m, mu_m)
    assert [loss.item() for loss in losses] == pytest.approx([los_db, nlos_db], abs=1e-4)
    assert losses[0].dtype == dtype


def test_losses_meet_at_the_break_point_and_no_sight_is_never_better() -> None:
    assert break_point_m(10.0, 1.5, 3.5e9) == pytest.approx(210)
    assert break_point_m(25.0, 1.5, 3.5e9) == pytest.approx(560)
    for scenario, station_m, far_m in ((UMI, 10.0, 210.0), (UMA, 25.0, 560.0)):
        around = torch.tensor([far_m * (1 - 1e-9), far_m * (1 + 1e-9)]).double()
        before, after = path_losses_db(scenario, around, 3.5e9, station_m, 1.5)[0].tolist()
        assert before == pytest.approx(after, abs=0.1)  # the standard rounds its constants
        los, nlos = path_losses_db(scenario, torch.linspace(1, 5000, 2000).double(), 3.5e9, station_m, 1.5)
        assert (nlos >= los).all()
        assert (los.diff() >= -0.1).all()


def test_los_probability_by_hand() -> None:
    distance = torch.tensor([0.0, 18.0, 36.0, 100.0]).double()
    umi = los_probability(distance, UMI.sight_m)
    assert umi.tolist() == pytest.approx([1, 1, 0.5 + 0.5 / math.e, 0.18 + 0.82 * math.exp(-100 / 36)])
    assert los_probability(distance, UMA.sight_m)[3].item() == pytest.approx(0.18 + 0.82 * math.exp(-100 / 63))


@pytest.mark.parametrize("channel", [UrbanMicro(), UrbanMacro()])
@everywhere
def test_links_start_from_the_standards_law(channel: Any, device: str) -> None:
    distance = torch.tensor([10.0, 40.0, 150.0], dtype=torch.float64, device=device).expand(40_000, 1, 3)
    links = channel.start(distance, torch.Generator(device).manual_seed(0))
    expected = los_probability(distance[0, 0], channel.scenario.sight_m)
    assert links.los.double().mean((0, 1)).tolist() == pytest.approx(expected.tolist(), abs=0.0125)  # 5 std errors
    assert links.los[..., 0].all()
    for state, sigma_db in ((links.los, channel.los_shadowing_db), (~links.los, channel.nlos_shadowing_db)):
        drawn_db = links.shadowing_db[state]
        assert drawn_db.mean().item() == pytest.approx(0, abs=0.15)
        assert drawn_db.std().item() == pytest.approx(sigma_db, rel=0.03)


@pytest.mark.parametrize("channel", [UrbanMicro(), UrbanMacro()])
@everywhere
def test_links_move_with_their_users(channel: Any, device: str) -> None:
    """At the same distance after 0, 10 and 30 m: correlations of shadowing, laws unchanged; at rest nothing changes."""
    generator = torch.Generator(device).manual_seed(1)
    moved_m = torch.tensor([0.0, 10.0, 30.0], dtype=torch.float64, device=device)
    distance = torch.full((40_000, 1, 3), 60.0, dtype=torch.float64, device=device)
    before = channel.start(distance, generator)
    after = channel.next_frame(before, distance, moved_m.expand(40_000, 3), generator)
    p_los = los_probability(distance[0, 0, :1], channel.scenario.sight_m).item()
    assert after.los.double().mean((0, 1)).tolist() == pytest.approx([p_los] * 3, abs=0.0125)
    assert torch.equal(after.los[..., 0], before.los[..., 0])
    assert torch.allclose(after.shadowing_db[..., 0], before.shadowing_db[..., 0])
    assert not torch.equal(after.fading[..., 0], before.fading[..., 0])
    for los, sigma_db, length_m in (
        (True, channel.los_shadowing_db, channel.los_decorrelation_m),
        (False, channel.nlos_shadowing_db, channel.nlos_decorrelation_m),
    ):
        for user in (1, 2):
            stayed = (before.los[..., user] == los) & (after.los[..., user] == los)
            product = before.shadowing_db[..., user][stayed] * after.shadowing_db[..., user][stayed]
            expected = math.exp(-moved_m[user].item() / length_m)
            assert (product / sigma_db**2).mean().item() == pytest.approx(expected, abs=0.05)


def test_a_state_lives_for_its_decorrelation_distance() -> None:
    """Orthant probability of two normals with correlation r at P_LOS = 1/2: 1/4 + asin(r) / (2 pi)."""
    channel, generator = UrbanMicro(), torch.Generator().manual_seed(2)
    half = torch.linspace(18, 100, 100_000).double()
    even_m = half[(los_probability(half, UMI.sight_m) - 0.5).abs().argmin()]
    distance = even_m.expand(60_000, 1, 1)
    before = channel.start(distance, generator)
    after = channel.next_frame(before, distance, torch.full((60_000, 1), 25.0).double(), generator)
    both = (before.los & after.los).double().mean().item()
    assert both == pytest.approx(0.25 + math.asin(math.exp(-0.5)) / (2 * math.pi), abs=0.01)


def test_gain_is_path_loss_shadowing_and_fading() -> None:
    """Rician fading on links in line of sight only, whose power varies less; the mean gain is known without it."""
    channel, generator = UrbanMicro(fading="rician"), torch.Generator().manual_seed(3)
    links = channel.start(torch.full((60_000, 1, 1), 50.0).double(), generator)
    mean = channel.mean_gain(links)
    los_db, nlos_db = path_losses_db(UMI, links.distance_m, 3.5e9, 10.0, 1.5)
    assert torch.allclose(to_db(mean), links.shadowing_db - torch.where(links.los, los_db, nlos_db))
    power, k = channel.gain(links) / mean, 10**0.9
    for state, variance in ((links.los, (1 + 2 * k) / (1 + k) ** 2), (~links.los, 1.0)):
        assert power[state].mean().item() == pytest.approx(1, abs=0.03)
        assert power[state].var().item() == pytest.approx(variance, rel=0.08)
    still = UrbanMicro(fading="none")
    links = still.start(torch.full((2, 3, 4), 50.0), generator)
    assert torch.equal(still.gain(links), still.mean_gain(links))


def test_large_scale_fading_lasts_a_frame_and_follows_positions() -> None:
    net = Network(
        topology=Hexagonal().build(), mobility=RandomWaypoint(), channel=UrbanMicro(), slot_s=0.005, frame_spacing_s=2.0
    )
    motion, fading = torch.Generator().manual_seed(4), torch.Generator().manual_seed(5)
    first = net.start((200,), 5, motion, fading)
    second = net.next_slot(first, fading)
    third = net.next_frame(second, motion, fading)
    assert torch.equal(net.mean_gain(first), net.mean_gain(second))
    assert not torch.equal(first.gain, second.gain)
    at_rest = (third.position_m == second.position_m).all(-1).unsqueeze(-2).expand_as(third.gain)
    assert 0 < at_rest.sum() < at_rest.numel()
    change = net.mean_gain(third) / net.mean_gain(second) - 1
    assert change[at_rest].abs().max() < 1e-9
    assert change[~at_rest].abs().min() > 1e-9


@pytest.mark.parametrize(("name", "channel"), [("umi", UrbanMicro), ("uma", UrbanMacro)])
def test_yaml_holds_every_key_at_its_default(name: str, channel: Any) -> None:
    keys = node("channel", name)
    assert build(keys, "channel") == channel(fading="rician")
    assert {field.name for field in fields(channel)} == keys.keys() - {"_target_"}
    assert {field.name for field in fields(FreeSpace)} < keys.keys()


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("UrbanMicro", {"frequency_hz": 0.4e9}, "channel.frequency_hz=400000000.0: must be >= 500000000"),
        ("UrbanMicro", {"mu_height_m": 1.0}, "channel.mu_height_m=1.0: must be >= 1.5"),
        ("UrbanMacro", {"mu_height_m": 13.0}, "channel.mu_height_m=13.0: must be < 13"),
        ("UrbanMacro", {"station_height_m": 1.0}, "channel.station_height_m=1.0: must be > 1"),
        ("UrbanMacro", {"nlos_shadowing_db": -1.0}, "channel.nlos_shadowing_db=-1.0: must be >= 0"),
        ("UrbanMicro", {"state_decorrelation_m": 0.0}, "channel.state_decorrelation_m=0.0: must be > 0"),
    ],
)
def test_bad_values_are_named(target: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": f"dtsim.physical.urban.{target}", **options}, "channel")
    assert said in str(error.value)
