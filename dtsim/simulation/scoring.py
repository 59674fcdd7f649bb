"""Accuracy as measured in the world: the fraction of images that models infer correctly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dtsim.learning.learners import Learners
from dtsim.simulation.world import Frame, Slot, World
from dtsim.twin.predictor import Hits
from dtsim.twin.store import Store


def share_correct(correct: np.ndarray, images: np.ndarray) -> np.ndarray:
    """Accuracy `correct` / `images` of every MU; NaN, which is never below a threshold, without images; [K] each."""
    share = np.full(len(images), np.nan)
    np.divide(correct, images, out=share, where=images > 0)
    return share


def scored_in(frame: Frame) -> np.ndarray:
    """Images of a frame that are scored, of every MU; int64 [K]."""
    images: np.ndarray = np.sum([slot.scored for slot in frame.slots], axis=0)
    return images


def accuracy_in(
    world: World, learners: Learners, slots: Sequence[Slot], users: Sequence[int] | None = None
) -> np.ndarray:
    """Accuracy of the current models of `users`, by default all, in `slots`; [users]."""
    view = world.scored(slots, users)
    correct = np.bincount(view.user[learners.right(view)], minlength=world.users)
    share = share_correct(correct, np.sum([slot.scored for slot in slots], axis=0))
    return share if users is None else share[np.asarray(users, dtype=np.int64)]


def held_out_hits(learners: Learners, store: Store, region: np.ndarray) -> Hits:
    """Score of every MU's model on the samples that `store` holds out of its region: correct, total; int64 [K] each."""
    right, seen = np.zeros(len(region), dtype=np.int64), np.zeros(len(region), dtype=np.int64)
    for user, where in enumerate(region.tolist()):
        samples = store.held_out(where)
        if samples is not None:
            right[user], seen[user] = learners.correct(user, samples), len(samples)
    return right, seen
