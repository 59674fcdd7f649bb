"""What a run asks of a data set, whichever it is."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from dtsim.core.progress import Progress
from dtsim.learning.data.splits import RawDataset, Splits


class DatasetPart(Protocol):
    """What a class named in conf/dataset must offer."""

    def load(self, cache_dir: Path, progress: Progress) -> RawDataset:
        """All images as tensors; what has to be fetched is kept in `cache_dir`.

        Raises:
            DatasetError: where the data set is missing or damaged.
        """

    def split(self, raw: RawDataset, unseen: list[int], rng: np.random.Generator) -> Splits:
        """Divide `raw` into disjoint sets; classes in `unseen` are in no set that the base model sees.

        Raises:
            DatasetError: where there are too few images.
        """


@runtime_checkable
class KnownLayout(Protocol):
    """A data set whose layout is known before it is loaded; what only needs the layout then loads nothing."""

    def layout(self) -> tuple[tuple[int, int, int], int]:
        """(C, H, W) of its images and the number of its classes.

        Raises:
            DatasetError: where that cannot be known.
        """
