"""Noise that sticks to its image: the same image in the same region looks the same every time."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dtsim.core.seeding import Streams

_WINDOWS = 1 << 20
"""Different noises that there are for images of one size."""


def noisy(images: Tensor, sigma: float, region: int) -> Tensor:
    """`images` [..., C, H, W] uint8 with independent Gaussian noise on every pixel, clipped to the range of bytes.

    The noise of an image is a window of one long row of normal numbers, which begins at a place hashed from the
    image's own bytes and the region. So it depends on neither the order of calls nor the rest of the batch, and
    torchvision's `GaussianNoise`, which draws from torch's global generator, cannot serve.

    Args:
        images: what to disturb.
        sigma: standard deviation as a share of the full range, as in torchvision's `GaussianNoise`.
        region: tells apart the noise of different regions.
    """
    flat = images.flatten(-3).flatten(0, -2)  # [N, C·H·W]
    pixels = flat.shape[1]
    # A linear hash modulo 2^20.
    weights = torch.arange(1, 2 * pixels, 2, device=images.device) % _WINDOWS
    begin = ((flat * weights).sum(dim=1) % _WINDOWS * 40_503 + region * 655_357) % _WINDOWS
    normal = _row(_WINDOWS + pixels, str(images.device)).unfold(0, pixels, 1)[begin]
    return (flat + 255 * sigma * normal).round().clamp(0, 255).to(torch.uint8).view(images.shape)


@lru_cache(maxsize=4)
def _row(length: int, device: str) -> Tensor:
    """`length` standard normal numbers, the same ones on every device."""
    return torch.randn(length, generator=Streams(0).torch("noise")).to(device)
