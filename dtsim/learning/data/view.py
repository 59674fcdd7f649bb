"""A choice of images as they look to users, which are transformed only when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dtsim.learning.data.splits import Labelled


@dataclass(frozen=True)
class Shown:
    """All images of a set as they look in one place."""

    data: Labelled
    seen: Callable[[np.ndarray], Labelled]
    """Gives the images at some places."""

    @property
    def labels(self) -> Tensor:
        """Labels of all images; int64 [N]."""
        return self.data.labels

    def at(self, places: np.ndarray) -> Labelled:
        """The images at `places` [n]."""
        return self.seen(places)


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
