"""How the twin predicts frame accuracy, eq. (14), from what it has observed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from pydantic import Field

from dtsim.core.parts import part

Hits = tuple[np.ndarray, np.ndarray]
"""How many images every MU's model got right, and of how many; int64 [K] each."""


@dataclass(frozen=True)
class Situation:
    """What a prediction may be made from, for every MU; arrays are int64 [K], and callables answer when asked."""

    region: np.ndarray
    """Where the MU is."""
    trained_region: np.ndarray
    """The region that its model was last trained in (the home region for the base model)."""
    age_frames: np.ndarray
    """Frames since its model was last updated."""
    held_out: Callable[[], Hits]
    """Runs every MU's model on what the twin holds out of the MU's region: work, and charged each time."""
    truth: Callable[[], np.ndarray]
    """The accuracy that the models as they are will have in this frame; no twin could know it. Float64 [K]."""


class Predictor(Protocol):
    """Learns frame accuracy from observations and predicts it, eq. (14)."""

    def predict(self, situation: Situation) -> np.ndarray:
        """Predicted frame accuracy of every MU; float64 [K]."""

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        """Learn that in `situation` each MU's model got `correct` of `images` right; int64 [K] each."""


class PredictorPart(Protocol):
    """What a predictor's YAML file names.

    With the fields `holdout_share` and `holdout_samples`, as `Shadow` has, the twin holds uploads out for it.
    """

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""


def held_out_for(parts: Iterable[PredictorPart]) -> tuple[float, int]:
    """The largest share of uploads, and number of samples of a region, that one of `parts` wants held out."""
    wanted = [(getattr(part, "holdout_share", 0.0), getattr(part, "holdout_samples", 0)) for part in parts]
    return max(share for share, _ in wanted), max(samples for _, samples in wanted)


Key = tuple[int | str | bool, ...]
Level = Callable[[int, int, int], Key]


class ShrunkenTable:
    """A table of accuracies at several levels of detail, each shrunk towards the coarser one.

    At a level with n images of which s were right, the estimate is (s + κ p) / (n + κ): the posterior mean of a
    binomial rate under a beta prior with mean p, the coarser level's estimate, and the weight of κ images. A cell that
    was never seen therefore answers what its coarser cell does, and at the coarsest what the base model scored.
    """

    def __init__(self, levels: Iterable[Level], shrinkage_images: float, base_accuracy: float) -> None:
        self.levels = list(levels)
        self.shrinkage_images = shrinkage_images
        self.base_accuracy = base_accuracy
        self.counts: dict[Key, np.ndarray] = {}  # [right, seen]

    def predict(self, situation: Situation) -> np.ndarray:
        """Predicted frame accuracy of every MU; float64 [K]."""
        return np.array([self._estimate(*cell) for cell in _cells(situation)])

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        """Count each MU's result in its cell at every level."""
        for cell, right, seen in zip(_cells(situation), correct, images, strict=True):
            for level in self.levels:
                self.counts.setdefault(level(*cell), np.zeros(2))[:] += (right, seen)

    def _estimate(self, region: int, trained_region: int, age: int) -> float:
        estimate = self.base_accuracy
        for level in self.levels:
            right, seen = self.counts.get(level(region, trained_region, age), (0.0, 0.0))
            estimate = (right + self.shrinkage_images * estimate) / (seen + self.shrinkage_images)
        return float(estimate)


def _cells(situation: Situation) -> list[tuple[int, int, int]]:
    return list(
        zip(
            situation.region.tolist(),
            situation.trained_region.tolist(),
            situation.age_frames.tolist(),
            strict=True,
        )
    )


@part
class Shrinkage:
    """The keys of every predictor that keeps a table whose cells are shrunk towards a coarser level."""

    shrinkage_images: float = Field(50.0, gt=0)
    """Weight of the table's coarser level [images]."""
    max_age_frames: int = Field(3, ge=0)
    """Higher ages share a cell of the table [frames]."""


@part
class BetaBinomial(Shrinkage):
    """Region × region that the model was last trained in × age, shrunk towards how models trained there do anywhere.

    A guess that is too low is acted on: the model is retrained, and what it would have done is never observed. One that
    is too high is corrected by the next frame. So a pair of regions that was never seen answers what models from the
    same region do wherever they are, that region included, and not what other models did when they moved.
    """

    shrinkage_images: float = Field(default=50.0, gt=0)
    """Weight of the coarser level, in images."""
    max_age_frames: int = Field(default=3, ge=0)
    """Ages above this share a cell, in frames."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""
        oldest = self.max_age_frames
        return ShrunkenTable(
            [
                lambda region, trained, age: ("trained in", trained),
                lambda region, trained, age: (region, trained),
                lambda region, trained, age: (region, trained, min(age, oldest)),
            ],
            self.shrinkage_images,
            base_accuracy,
        )


@part
class RegionAge(Shrinkage):
    """Region × age, as eq. (14) reads."""

    shrinkage_images: float = Field(default=50.0, gt=0)
    """Weight of the coarser level, in images."""
    max_age_frames: int = Field(default=3, ge=0)
    """Ages above this share a cell, in frames."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""
        oldest = self.max_age_frames
        return ShrunkenTable(
            [
                lambda region, trained, age: ("region", region),
                lambda region, trained, age: ("region and age", region, min(age, oldest)),
            ],
            self.shrinkage_images,
            base_accuracy,
        )


@part
class LastValue:
    """Each MU's last frame accuracy."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""
        return _LastValue(base_accuracy)


class _LastValue:
    def __init__(self, base_accuracy: float) -> None:
        self.base_accuracy = base_accuracy
        self.last: np.ndarray | None = None  # [K]

    def predict(self, situation: Situation) -> np.ndarray:
        return np.full(len(situation.region), self.base_accuracy) if self.last is None else self.last.copy()

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        self.last = np.divide(correct, images, out=self.predict(situation), where=images > 0)


@part
class Shadow(Shrinkage):
    """The MU's model run on samples that the twin holds out of its region, shrunk towards `BetaBinomial`'s answer.

    What a model scores on n held-out samples has a standard error of √(p (1 − p) / n), 0.03 at 150: so the table of
    observed frame accuracies is the beta prior, worth `prior_images`, and the held-out samples are the observation.
    Few of them say little, and a region without any is predicted as `BetaBinomial` does. The same samples score all
    models in a region, and may be easier than what its MUs see: the mean excess over the frame accuracies that models
    left as they were then had is taken off, shrunk towards none.
    """

    holdout_share: float = Field(default=0.1, gt=0, lt=1)
    """Share of all uploads that is kept from replay and training, to score with."""
    holdout_samples: int = Field(default=200, ge=1)
    """Newest held-out samples kept of each region."""
    prior_images: float = Field(default=100.0, ge=0)
    """Weight of the table's estimate, in images."""
    calibration_images: float = Field(default=200.0, gt=0)
    """Weight of no excess in a region's calibration, in images."""
    shrinkage_images: float = Field(default=50.0, gt=0)
    """Within the table, weight of the coarser level, in images."""
    max_age_frames: int = Field(default=3, ge=0)
    """Ages above this share a cell of the table, in frames."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that starts from `base_accuracy`, the base model's on held-out samples of its own classes."""
        table = BetaBinomial(shrinkage_images=self.shrinkage_images, max_age_frames=self.max_age_frames)
        return _Shadow(table.build(base_accuracy), self)


class _Shadow:
    def __init__(self, table: Predictor, keys: Shadow) -> None:
        self.table = table
        self.keys = keys
        self.excess: dict[int, np.ndarray] = {}  # by region: [images that the excess is too many, images seen]
        self.before: tuple[np.ndarray, np.ndarray] | None = None  # last scores and ages; [K] each

    def predict(self, situation: Situation) -> np.ndarray:
        prior = self.table.predict(situation)
        right, seen = situation.held_out()
        score = np.divide(right, seen, out=np.full(len(seen), np.nan), where=seen > 0)
        self.before = score, situation.age_frames
        calibrated = score - np.array([self._excess(region) for region in situation.region.tolist()])
        weight = seen + self.keys.prior_images
        np.divide(seen * calibrated + self.keys.prior_images * prior, weight, out=prior, where=seen > 0)
        return prior

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        self.table.observe(situation, correct, images)
        if self.before is None:  # nobody asked for a prediction
            return
        score, age = self.before
        as_it_was = np.isfinite(score) & (age == situation.age_frames)
        for user in np.flatnonzero(as_it_was).tolist():
            seen = np.array([images[user] * score[user] - correct[user], images[user]])
            region = int(situation.region[user])
            self.excess[region] = self.excess.get(region, np.zeros(2)) + seen

    def _excess(self, region: int) -> float:
        """By how much held-out samples of `region` are answered better than its MUs' images."""
        total, images = self.excess.get(region, np.zeros(2))
        return float(total / (images + self.keys.calibration_images))


@part
class TrueAccuracy:
    """The frame accuracy itself, as if it were known beforehand: a bound."""

    def build(self, base_accuracy: float) -> Predictor:
        """A predictor that needs nothing to start from."""
        return _TrueAccuracy()


class _TrueAccuracy:
    def predict(self, situation: Situation) -> np.ndarray:
        return situation.truth()

    def observe(self, situation: Situation, correct: np.ndarray, images: np.ndarray) -> None:
        pass
