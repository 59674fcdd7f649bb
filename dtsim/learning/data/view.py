"""A choice of images as they look to users, which are transformed only when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dtsim.learning.data.splits import Labelled


@dataclass(frozen=True)
class View:
    """Images of one set, each shown to one user; an image looks the same in all views with one `look`."""

    user: np.ndarray
    """Who sees each image; int64 [n]."""
    places: np.ndarray
    """Which image of the set it is; int64 [n]."""
    look: np.ndarray
    """How it looks; int64 [n]."""
    size: int
    """Images in the whole set."""
    seen: Callable[[np.ndarray, int], Labelled]
    """Gives the images at some places in one look."""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.places)
