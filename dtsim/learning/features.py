"""Features of images from a frozen backbone, computed once: the inputs of models of which only the head is trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtsim.learning.data.drift import DriftPart, look
from dtsim.learning.data.splits import Labelled

_BATCH = 500


class Features:
    """Tables of features by set of images and region, each computed at its first use."""

    def __init__(self, backbone: nn.Module, drift: DriftPart) -> None:
        """Compute features with the frozen `backbone` [N, C, H, W] → [N, F] on images as `drift` transforms them."""
        self._backbone = backbone.eval()
        self._drift = drift
        self._tables: dict[tuple[int, int], tuple[Labelled, Tensor]] = {}  # holds the set, so its id stays unique

    def of(self, data: Labelled, region: int) -> Tensor:
        """Features of all images of `data` as transformed in `region`, float [N, F]."""
        region = look(self._drift, region, data.images)
        key = (id(data), region)
        if key not in self._tables:
            with torch.no_grad():
                made = [self._backbone(self._drift.transform(region, some)) for some in data.images.split(_BATCH)]
            self._tables[key] = (data, torch.cat(made))
        return self._tables[key][1]
