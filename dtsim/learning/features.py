"""Features of images by a frozen backbone, made once and kept: what models see where only their heads are trained."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dtsim.learning.data.drift import DriftPart
from dtsim.learning.data.splits import Labelled

_BATCH = 500


class Features:
    """Tables of features by set of images and region, each made when it is first asked for."""

    def __init__(self, backbone: nn.Module, drift: DriftPart) -> None:
        """Let `backbone` [N, C, H, W] → [N, F], frozen as it is, see images as `drift` shows them."""
        self._backbone = backbone.eval()
        self._drift = drift
        self._tables: dict[tuple[int, int], tuple[Labelled, Tensor]] = {}  # the set is kept: its id stays its own

    def of(self, data: Labelled, region: int) -> Tensor:
        """Features of all images of `data` as `region` shows them, float [N, F]."""
        first = data.images[:1]
        if self._drift.transform(region, first) is first:  # looks like home
            region = self._drift.home
        key = (id(data), region)
        if key not in self._tables:
            with torch.no_grad():
                made = [self._backbone(self._drift.transform(region, some)) for some in data.images.split(_BATCH)]
            self._tables[key] = (data, torch.cat(made))
        return self._tables[key][1]
