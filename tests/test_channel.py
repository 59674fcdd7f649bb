from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
import torch
from scipy.special import j0

from dtsim.core.parts import ConfigError, build
from dtsim.physical.channel import (
    FreeSpace,
    Links,
    dbm_to_w,
    free_space_path_loss_db,
    rate_bps,
    snr,
    to_db,
)
from dtsim.physical.fading import SPEED_OF_LIGHT_MPS, jakes_correlation
from tests.composed import node
from tests.devices import everywhere, precisely

SLOT_S = 0.005


def at(distance_m: torch.Tensor) -> Links:
    """Links without fading."""
    return Links(distance_m=distance_m, fading=torch.ones_like(distance_m, dtype=distance_m.dtype.to_complex()))


def far(*shape: int, dtype: torch.dtype = torch.float64, device: str = "cpu") -> torch.Tensor:
    return torch.full(shape, 100.0, dtype=dtype, device=device)


@everywhere
@precisely
def test_free_space_path_loss_is_that_of_fspl(dtype: torch.dtype, device: str) -> None:
    loss = free_space_path_loss_db(torch.tensor([10_000.0, 20_000.0], dtype=dtype, device=device), 10e9)
    assert loss.dtype == dtype
    assert loss[0].item() == pytest.approx(132.4478, abs=5e-5)
    assert (loss[1] - loss[0]).item() == pytest.approx(20 * math.log10(2), abs=2e-5)


def test_path_loss_is_never_a_gain() -> None:
    wavelength = SPEED_OF_LIGHT_MPS / 3.5e9
    distance = torch.tensor([0.0, 0.5, 1.0, 10.0]).double() * wavelength / (4 * math.pi)
    assert free_space_path_loss_db(distance, 3.5e9).tolist() == pytest.approx([0, 0, 0, 20])
    assert FreeSpace().mean_gain(at(distance)).tolist() == pytest.approx([1, 1, 1, 0.01])


@everywhere
@precisely
def test_jakes_correlation_is_bessels_and_keeps_its_sign(dtype: torch.dtype, device: str) -> None:
    speed = torch.tensor([0.0, 1.5, 3.0, 10.0, 16.7], dtype=dtype, device=device)
    rho = jakes_correlation(speed, 3.5e9, SLOT_S)
    doppler_hz = [v * 3.5e9 / 299_792_458 for v in (0.0, 1.5, 3.0, 10.0, 16.7)]
    assert rho.tolist() == pytest.approx([j0(2 * math.pi * f * SLOT_S) for f in doppler_hz], abs=2e-6)
    assert rho.tolist() == pytest.approx([1, 0.93, 0.72, -0.40, 0.18], abs=0.008)


@everywhere
@precisely
def test_snr_and_rate_by_hand(dtype: torch.dtype, device: str) -> None:
    gain = torch.tensor([3e-9, 1e-9], dtype=dtype, device=device)
    ratio = snr(gain, 1e-4, 1e-13)  # 0.1 mW against 0.1 pW
    assert ratio.tolist() == pytest.approx([3, 1])
    assert rate_bps(ratio, 20e6).tolist() == pytest.approx([40e6, 20e6])  # log2(4) = 2, log2(2) = 1
    assert ratio.dtype == dtype


def test_small_ratios_keep_their_rate_in_single_precision() -> None:
    assert rate_bps(torch.tensor([1e-9]), 1e9).item() == pytest.approx(1 / math.log(2), rel=1e-5)


def test_units_of_power() -> None:
    assert dbm_to_w(0) == pytest.approx(1e-3)
    assert dbm_to_w(-100) == pytest.approx(1e-13)
    assert to_db(torch.tensor([100.0])).item() == pytest.approx(20)


def test_default_link_budget() -> None:
    """SNR and rate of the defaults: 3.5 GHz, 20 MHz, -10 dBm against -100 dBm."""
    channel, distance = FreeSpace(), torch.tensor([20.0, 50.0, 100.0, 200.0]).double()
    gain = channel.mean_gain(at(distance))
    assert to_db(channel.snr(gain)).tolist() == pytest.approx([20.65, 12.69, 6.67, 0.65], abs=0.01)
    assert channel.rate_bps(gain)[1:3].tolist() == pytest.approx([86e6, 50e6], abs=0.5e6)
    assert channel.downlink_s == pytest.approx(8e-6)


@everywhere
@precisely
def test_rayleigh_fading_is_circular_with_unit_mean_power(dtype: torch.dtype, device: str) -> None:
    distance = far(50, 8, 100, dtype=dtype, device=device)
    h = FreeSpace().start(distance, torch.Generator(device).manual_seed(0)).fading
    assert h.shape == (50, 8, 100)
    assert h.dtype == dtype.to_complex()
    power = h.abs().square()
    assert power.mean().item() == pytest.approx(1, abs=0.025)  # five standard errors of 40,000 draws
    assert power.var().item() == pytest.approx(1, abs=0.08)  # exponential
    assert (power < 0.1).double().mean().item() == pytest.approx(1 - math.exp(-0.1), abs=0.0075)
    assert h.square().mean().abs().item() < 0.025  # E[h^2] = 0: phases are uniform


@everywhere
def test_fading_is_an_autoregression_with_jakes_coefficient(device: str) -> None:
    """Lags one and two, for a user at rest and three who move; the fastest has a negative coefficient."""
    channel, generator = FreeSpace(), torch.Generator(device).manual_seed(1)
    speed = torch.tensor([0.0, 1.5, 3.0, 10.0], dtype=torch.float64, device=device).expand(20_000, 4)
    links = [channel.start(far(20_000, 2, 4, device=device), generator)]
    for _ in range(2):
        links.append(channel.next_slot(links[-1], speed, SLOT_S, generator))
    first, second, third = (each.fading for each in links)
    rho = jakes_correlation(speed[0], 3.5e9, SLOT_S)
    assert rho[3] < -0.3
    for older, newer, expected in ((first, second, rho), (second, third, rho), (first, third, rho.square())):
        measured = (newer * older.conj()).mean((0, 1))
        assert measured.real.tolist() == pytest.approx(expected.tolist(), abs=0.025)
        assert measured.imag.tolist() == pytest.approx([0] * 4, abs=0.025)
    assert third.abs().square().mean((0, 1)).tolist() == pytest.approx([1] * 4, abs=0.025)
    assert torch.equal(first[..., 0], third[..., 0])  # at rest


def test_links_fade_independently() -> None:
    h = FreeSpace().start(far(20_000, 2, 2), torch.Generator().manual_seed(2)).fading.flatten(1)
    covariance = h.mT.conj() @ h / h.shape[0]
    assert torch.allclose(covariance, torch.eye(4, dtype=h.dtype), atol=0.04)


def test_power_stays_unit_over_a_long_run() -> None:
    channel, generator = FreeSpace(), torch.Generator().manual_seed(3)
    speed = torch.full((500, 20), 2.0)
    links = channel.start(far(500, 3, 20, dtype=torch.float32), generator)
    for _ in range(200):
        links = channel.next_slot(links, speed, SLOT_S, generator)
    assert links.fading.abs().square().mean().item() == pytest.approx(1, abs=0.03)


def test_without_fading_nothing_is_drawn_and_the_gain_is_the_path_loss() -> None:
    channel, generator = FreeSpace(fading="none"), torch.Generator().manual_seed(4)
    before = generator.get_state()
    links = channel.start(far(2, 3, 5), generator)
    stepped = channel.next_slot(links, torch.full((2, 5), 3.0).double(), SLOT_S, generator)
    assert torch.equal(channel.gain(stepped), channel.mean_gain(stepped))
    assert torch.equal(generator.get_state(), before)


@everywhere
def test_a_batch_equals_its_members(device: str) -> None:
    channel = FreeSpace()
    distance = torch.rand(6, 3, 5, device=device) * 200
    fading = torch.randn(6, 3, 5, dtype=torch.complex64, device=device)
    whole = channel.rate_bps(channel.gain(Links(distance_m=distance, fading=fading)))
    for i in range(6):
        member = Links(distance_m=distance[i], fading=fading[i])
        assert torch.allclose(whole[i], channel.rate_bps(channel.gain(member)), rtol=1e-6)


@everywhere
@precisely
def test_rician_fading_has_unit_mean_power_and_its_k(dtype: torch.dtype, device: str) -> None:
    """|h|^2 of a Rician h has mean 1 and variance (1 + 2 K) / (1 + K)^2; lag one moves the scattered part only."""
    channel, generator = FreeSpace(fading="rician", rician_k_db=6.0), torch.Generator(device).manual_seed(5)
    unit = FreeSpace().mean_gain(at(far(1, dtype=dtype, device=device)))
    links = channel.start(far(50, 8, 100, dtype=dtype, device=device), generator)
    power = channel.gain(links) / unit
    k = 10**0.6
    assert power.dtype == dtype
    assert power.mean().item() == pytest.approx(1, abs=0.016)
    assert power.var().item() == pytest.approx((1 + 2 * k) / (1 + k) ** 2, rel=0.05)
    speed = torch.full((50, 100), 1.5, dtype=dtype, device=device)
    later = channel.gain(channel.next_slot(links, speed, SLOT_S, generator)) / unit
    rho = jakes_correlation(speed[0, 0], 3.5e9, SLOT_S).item()
    expected = (2 * k * rho + rho**2) / (1 + k) ** 2
    assert ((power - 1) * (later - 1)).mean().item() == pytest.approx(expected, rel=0.05)


def test_rician_fading_without_a_direct_path_is_rayleigh_fading() -> None:
    one, two = (
        channel.gain(channel.start(far(3, 5), torch.Generator().manual_seed(6)))
        for channel in (FreeSpace(fading="rician", rician_k_db=-100.0), FreeSpace())
    )
    assert torch.allclose(one, two, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "fading"), [("free_space", "rayleigh"), ("free_space_no_fading", "none"), ("rician", "rician")]
)
def test_yaml_holds_every_key_at_its_default(name: str, fading: Any) -> None:
    keys = node("channel", name)
    assert build(keys, "channel") == FreeSpace(fading=fading)
    assert {field.name for field in fields(FreeSpace)} == keys.keys() - {"_target_"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"frequency_hz": 0.0}, "channel.frequency_hz=0.0: must be >= 1"),
        ({"bandwidth_hz": -1.0}, "channel.bandwidth_hz=-1.0: must be >= 1"),
        ({"tx_dbm": 101.0}, "channel.tx_dbm=101.0: must be <= 100"),
        ({"noise_dbm": float("nan")}, "channel.noise_dbm=nan: must be a finite number"),
        ({"fading": "nakagami"}, "channel.fading='nakagami': must be one of 'rayleigh', 'rician' or 'none'"),
        ({"rician_k_db": 101.0}, "channel.rician_k_db=101.0: must be <= 100"),
        ({"result_bytes": -1.0}, "channel.result_bytes=-1.0: must be >= 0"),
        ({"downlink_bps": 0.0}, "channel.downlink_bps=0.0: must be >= 1"),
        ({"frequency_ghz": 3.5}, "channel.frequency_ghz=3.5: there is no such key"),
    ],
)
def test_bad_values_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": "dtsim.physical.channel.FreeSpace", **options}, "channel")
    assert said in str(error.value)
