"""Drift: what the users' surroundings show them changes from region to region."""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from pydantic import Field
from torch import Tensor

from dtsim.core.parts import ConfigError, part
from dtsim.learning.data.noise import noisy
from dtsim.learning.data.operators import cure
from dtsim.learning.data.trace import read_distributions, read_schedule


class DriftPart(Protocol):
    """What a class named in conf/drift must offer."""

    @property
    def home(self) -> int:
        """The region that the base model was trained for."""

    @property
    def regions(self) -> int:
        """How many regions there are."""

    def unseen(self, classes: int) -> list[int]:
        """The classes, of `classes`, that the base model never saw.

        Raises:
            ConfigError: where there are no such classes.
        """

    def region(self, position_m: Tensor, area_m: tuple[float, float, float, float]) -> Tensor:
        """The region of each position [..., 2] in the area (x0, y0, x1, y1), int64 [...]."""

    def scheduled(self, users: int, frames: int) -> np.ndarray | None:
        """The region of each MU in each frame whatever its position, int64 [N, K]; None where positions say it.

        Raises:
            ConfigError: where what says so does not fit the run.
        """

    def class_distributions(self, classes: int, rng: np.random.Generator) -> np.ndarray:
        """The probability of each class in each region, float64 [R, C].

        Raises:
            ConfigError: where there are none for so many classes.
        """

    def transform(self, region: int, images: Tensor) -> Tensor:
        """What `images` [..., C, H, W] uint8 look like in `region`, the same every time.

        Where it looks as at home, `images` itself.
        """


def look(drift: DriftPart, region: int, images: Tensor) -> int:
    """The region itself, or home where `images` look in it as at home: equal looks, equal images."""
    first = images[:1]
    return drift.home if drift.transform(region, first) is first else region


@part
class Drift:
    """The area as a grid of regions, counted row by row from its lower left corner.

    The base model was trained for the home region. In all others classes that it never saw appear, and images
    may look different; a region may also have a class distribution of its own.
    """

    rows: int = Field(default=2, gt=0)
    """Regions from south to north."""
    columns: int = Field(default=2, gt=0)
    """Regions from west to east."""
    home: int = Field(default=0, ge=0)
    """The region that the base model was trained for, counted row by row from the lower left, from 0."""
    unseen_classes: int | list[int] = 2
    """Classes that the base model never saw: how many (the last ones), or a list of indices."""
    unseen_mass: float = Field(default=0.25, ge=0, le=1)
    """Probability of all unseen classes together, outside home."""
    dirichlet_alpha: float | None = Field(default=None, ge=1e-3, le=1e6)
    """Concentration of the Dirichlet law that each region draws its distribution over seen classes from; null:
    uniform."""
    rotation_deg: float = Field(default=0.0, ge=0, le=180)
    """Images outside home are rotated by this [degree], left or right from region to region."""
    brightness: float = Field(default=0.0, ge=0, lt=1)
    """Images outside home are brighter or darker by this share, from region to region."""
    blur_sigma: float = Field(default=0.0, ge=0, le=1000)
    """Images outside home are blurred with a Gaussian of this width [pixel]."""
    noise_sigma: float = Field(default=0.0, ge=0, le=1)
    """Standard deviation of Gaussian noise on every pixel outside home, as a share of white."""
    regions_differ: bool = False
    """Whether foreign regions differ from each other too: each has unseen classes of its own, and its share of every
    transform, of n regions 1/n to all of it; else all have the same classes, and two looks at most."""
    schedule: str | None = None
    """CSV file with columns frame, user, region [path]: where MUs are; null: where their positions lie."""
    distributions: str | None = None
    """CSV file with columns region, class, probability [path]; null: as the keys above say."""

    def __post_init__(self) -> None:
        if self.home >= self.regions:
            raise ValueError(f"home={self.home}: must be < rows × columns = {self.regions}")
        unseen = self.unseen_classes
        if isinstance(unseen, int) and unseen < 0:
            raise ValueError(f"unseen_classes={unseen}: must be >= 0")
        if isinstance(unseen, list) and (len(set(unseen)) < len(unseen) or any(index < 0 for index in unseen)):
            raise ValueError(f"unseen_classes={unseen}: must be different numbers >= 0")
        if self.distributions is not None:
            try:
                read_distributions(self.distributions, regions=self.regions)
            except ValueError as error:
                raise ValueError(f"distributions={error}") from None

    @property
    def regions(self) -> int:
        """How many regions there are."""
        return self.rows * self.columns

    def unseen(self, classes: int) -> list[int]:
        """The classes, of `classes`, that the base model never saw.

        Raises:
            ConfigError: where a class does not exist, or fewer than two would be left to be seen.
        """
        unseen = self.unseen_classes
        if isinstance(unseen, int):
            unseen = list(range(classes - unseen, classes))
        if len(unseen) > classes - 2 or any(not 0 <= index < classes for index in unseen):
            raise ConfigError(
                [
                    f"drift.unseen_classes={self.unseen_classes}: the data set has {classes} classes, "
                    f"0 to {classes - 1}, and the base model must see two of them or more: at most "
                    f"{max(0, classes - 2)} can be unseen"
                ]
            )
        return sorted(unseen)

    def region(self, position_m: Tensor, area_m: tuple[float, float, float, float]) -> Tensor:
        """The region of each position [..., 2] in the area (x0, y0, x1, y1), int64 [...]; outside: the nearest."""
        x0, y0, x1, y1 = area_m
        column = ((position_m[..., 0] - x0) * (self.columns / (x1 - x0))).long().clamp(0, self.columns - 1)
        row = ((position_m[..., 1] - y0) * (self.rows / (y1 - y0))).long().clamp(0, self.rows - 1)
        return row * self.columns + column

    def scheduled(self, users: int, frames: int) -> np.ndarray | None:
        """The region of each MU in each frame by `schedule`, int64 [N, K]; None where positions say it.

        Raises:
            ConfigError: where the file cannot be read, or does not fit the run.
        """
        if self.schedule is None:
            return None
        try:
            return read_schedule(self.schedule, users=users, frames=frames, regions=self.regions)
        except ValueError as error:
            raise ConfigError([f"drift.schedule={error}"]) from None

    def class_distributions(self, classes: int, rng: np.random.Generator) -> np.ndarray:
        """The probability of each class in each region, float64 [R, C].

        Unless `distributions` gives them: the region's unseen classes share `unseen_mass` evenly and have none at home;
        seen classes share the rest evenly, or as the region's Dirichlet draw says.

        Raises:
            ConfigError: where `distributions` is of another number of classes.
        """
        if self.distributions is not None:
            given = read_distributions(self.distributions, regions=self.regions)
            if given.shape[1] != classes:
                raise ConfigError(
                    [f"drift.distributions={self.distributions}: has {given.shape[1]} classes, the data set {classes}"]
                )
            return given
        unseen = np.isin(np.arange(classes), self.unseen(classes))
        seen = int((~unseen).sum())
        shares = np.full((self.regions, seen), 1 / seen)
        if self.dirichlet_alpha is not None:
            shares = rng.dirichlet(np.full(seen, self.dirichlet_alpha), size=self.regions)
        mass = np.full((self.regions, 1), self.unseen_mass if unseen.any() else 0.0)
        mass[self.home] = 0.0
        distributions = np.empty((self.regions, classes))
        distributions[:, ~unseen] = (1 - mass) * shares
        distributions[:, unseen] = mass * self._unseen_shares(int(unseen.sum()))
        return distributions

    def _unseen_shares(self, unseen: int) -> np.ndarray:
        """How the regions' mass of unseen classes is shared among them; [R, unseen], rows of foreign regions sum to 1.

        If regions differ, classes are dealt to the foreign regions in turn; where there are fewer of them, again.
        """
        if not self.regions_differ or not unseen:
            return np.full((self.regions, unseen), 1 / max(1, unseen))
        place, foreign = self._places(), max(1, self.regions - 1)
        dealt = np.zeros((self.regions, unseen))
        for turn in range(max(unseen, foreign)):
            dealt[place == turn % foreign + 1, turn % unseen] = 1.0
        shares: np.ndarray = dealt / np.maximum(1, dealt.sum(axis=1, keepdims=True))
        return shares

    def _places(self) -> np.ndarray:
        """Place of each region after home, which is 0; int64 [R]."""
        places: np.ndarray = (np.arange(self.regions) - self.home) % self.regions
        return places

    def transform(self, region: int, images: Tensor) -> Tensor:
        """What `images` [..., C, H, W] uint8 look like in `region`, the same every time."""
        if region == self.home or not (self.rotation_deg or self.brightness or self.blur_sigma or self.noise_sigma):
            return images
        cure()
        from torchvision.transforms.v2 import InterpolationMode, functional

        place = int(self._places()[region])
        share = place / (self.regions - 1) if self.regions_differ else 1.0
        sign = share if place % 2 else -share
        if self.rotation_deg:
            images = functional.rotate(images, sign * self.rotation_deg, InterpolationMode.BILINEAR)
        if self.brightness:
            images = functional.adjust_brightness(images, 1 + sign * self.brightness)
        if self.blur_sigma:
            sigma = share * self.blur_sigma
            # Three widths to each side; a kernel is odd, and its reflected border narrower than the image.
            reach = max(1, min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1))
            images = functional.gaussian_blur(images, [2 * reach + 1] * 2, [sigma] * 2)
        if self.noise_sigma:  # last, as a sensor adds it
            images = noisy(images, share * self.noise_sigma, region)
        return images
