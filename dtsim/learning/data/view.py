"""A choice of images as they look in one place, which are transformed only when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import numpy as np

from dtsim.learning.data.splits import Labelled


@dataclass(frozen=True)
class View:
    """Images of one set, by their places in it."""

    places: np.ndarray
    """[n] int64."""
    size: int
    """Images in the whole set."""
    look: Hashable
    """The same for two views of one set in which an image looks the same."""
    seen: Callable[[np.ndarray], Labelled]
    """Gives the images at some places, as they look."""

    def __len__(self) -> int:
        return len(self.places)

    def labelled(self) -> Labelled:
        """The images of this view."""
        return self.seen(self.places)
