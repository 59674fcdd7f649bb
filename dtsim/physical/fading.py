"""Small-scale fading: the change of the sum of scattered paths, with or without a direct one, from slot to slot."""

from __future__ import annotations

import math

import torch
from torch import Tensor

SPEED_OF_LIGHT_MPS = 299_792_458.0


def jakes_correlation(speed_mps: Tensor, frequency_hz: float, slot_s: float) -> Tensor:
    """Correlation J0(2 pi f_D slot) of Rayleigh fading one slot apart (Clarke/Jakes), f_D = v f / c.

    Same shape as `speed_mps`; in [-0.403, 1], so it can be negative.
    """
    phase_per_mps = 2 * math.pi * frequency_hz / SPEED_OF_LIGHT_MPS * slot_s
    correlation: Tensor = torch.special.bessel_j0(speed_mps * phase_per_mps)
    return correlation


def circular_normal(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, rng: torch.Generator) -> Tensor:
    """CN(0, 1): real and imaginary part are independent with variance 1/2."""
    parts = torch.randn(*shape, 2, dtype=dtype, device=device, generator=rng)
    return torch.view_as_complex(parts * math.sqrt(0.5))


def rician(scattered: Tensor, k: Tensor) -> Tensor:
    """h = sqrt(K / (K + 1)) + sqrt(1 / (K + 1)) w with E|h|^2 = 1; K = 0 is Rayleigh fading.

    The phase of the direct path is constant, as for a user that moves at right angles to it. w is circular, so the
    distribution in a single slot does not depend on this phase.

    Args:
        scattered: w ~ CN(0, 1); [..., M, K].
        k: power of the direct path over that of the scattered ones, linear; broadcasts to the same shape.
    """
    return (k / (k + 1)).sqrt() + scattered / (k + 1).sqrt()
