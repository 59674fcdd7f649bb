"""Random crops and mirror images for pre-training: from few images a model otherwise learns the images by heart."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def crop_and_flip(images: Tensor, crop: int, flip: bool, rng: torch.Generator) -> Tensor:
    """Each image moved by up to `crop` pixels in both directions and, if `flip`, mirrored with probability 1/2.

    torchvision's transforms draw once for a whole batch, and from torch's global random generator. Here every image has
    its own draw, from `rng` alone, and one indexing does all of it.

    Args:
        images: [N, C, H, W].
        crop: largest shift [pixel]; what it leaves empty is 0, black.
        flip: whether images are mirrored left to right.
        rng: on the CPU.

    Returns:
        [N, C, H, W] of the same type, in channels-last order.
    """
    count, _, height, width = images.shape
    shift = torch.randint(0, 2 * crop + 1, (count, 2), generator=rng)
    mirrored = torch.rand(count, generator=rng) < 0.5 if flip else torch.zeros(count, dtype=torch.bool)
    rows = shift[:, :1] + torch.arange(height)  # [N, H]
    columns = torch.arange(width).expand(count, width)
    columns = shift[:, 1:] + torch.where(mirrored.unsqueeze(1), columns.flip(1), columns)  # [N, W]
    rows, columns = rows.to(images.device), columns.to(images.device)
    padded = functional.pad(images, (crop, crop, crop, crop)).permute(0, 2, 3, 1)
    each = torch.arange(count, device=images.device).view(-1, 1, 1)
    return padded[each, rows.unsqueeze(2), columns.unsqueeze(1)].permute(0, 3, 1, 2)
