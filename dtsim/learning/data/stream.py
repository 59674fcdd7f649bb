"""The images that users capture: which ones, drawn from their region's class distribution."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from dtsim.core.seeding import Streams
from dtsim.learning.data.splits import ClassIndex


@dataclass(frozen=True)
class Captures:
    """Images of one user, or of several one after another; those inferred and those uploaded have the same labels."""

    first: np.ndarray
    """Where each user's images start, and the end; int64 [users + 1]."""
    labels: np.ndarray
    """[n] int64."""
    test: np.ndarray
    """[n] int64: places in the test split, inferred and scored."""
    increment: np.ndarray
    """[n] int64: places in the increment split, uploaded for retraining."""

    def __len__(self) -> int:
        """Number of users."""
        return len(self.first) - 1

    def __getitem__(self, user: int) -> Captures:
        """The images of one user."""
        start, end = self.first[user : user + 2]
        own = slice(start, end)
        return Captures(np.array([0, end - start]), self.labels[own], self.test[own], self.increment[own])

    def __iter__(self) -> Iterator[Captures]:
        """The images of each user."""
        return (self[user] for user in range(len(self)))

    @property
    def counts(self) -> np.ndarray:
        """Number of images of each user; int64 [users]."""
        return np.diff(self.first)


@dataclass(frozen=True)
class ImageStream:
    """Draws captures. A user's depend on the streams, the index, the user, the region and the number of images."""

    distributions: np.ndarray
    """[R, C]: probability of each class in each region; a row sums to 1."""
    test: ClassIndex
    """Where the test split holds each class."""
    increment: ClassIndex
    """Where the increment split holds each class."""

    def draw(self, region: np.ndarray, images: np.ndarray, streams: Streams, index: int) -> Captures:
        """What every user captures in the slot `index`.

        Args:
            region: where each user is; int64 [users].
            images: how many images each captures; int64 [users].
            streams: each user draws from its own stream, `images` with `index` and the user.
            index: the slot.
        """
        first = np.concatenate([[0], np.cumsum(images)])
        user = np.repeat(np.arange(len(images)), images)
        # Of its stream a user takes one number for each label, then one for each place in either split.
        numbers = streams.uniforms("images", index, counts=3 * images)
        own = 2 * first[user] + np.arange(len(user))
        cumulative = np.cumsum(self.distributions, axis=1)
        cumulative /= cumulative[:, -1:]
        labels = (cumulative[region[user]] <= numbers[own, np.newaxis]).sum(axis=1)
        return Captures(
            first=first,
            labels=labels,
            test=self.test.places(labels, numbers[own + images[user]]),
            increment=self.increment.places(labels, numbers[own + 2 * images[user]]),
        )
