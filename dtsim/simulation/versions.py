"""Which version of an MU's model infers what, where time passes: a new one serves when it has arrived."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn


@dataclass(frozen=True)
class Version:
    """A model of one MU."""

    number: int
    """0 is the base model."""
    model: nn.Module
    station_from_s: float
    """From when it infers at the MU's base station."""
    mu_from_s: float
    """From when it infers at the MU."""


class Versions:
    """All models that still infer something, by MU; what begins before one arrives is inferred by an older one."""

    def __init__(self, base: nn.Module, users: int) -> None:
        """Every MU has `base`, everywhere and from the start."""
        self._known = [[Version(0, base, -math.inf, -math.inf)] for _ in range(users)]

    def add(self, user: int, model: nn.Module, station_from_s: float, mu_from_s: float) -> int:
        """Add a version of the model of `user`; returns its number."""
        number = self._known[user][-1].number + 1
        self._known[user].append(Version(number, model, station_from_s, mu_from_s))
        return number

    def at(self, user: int, time_s: float, *, at_mu: bool) -> Version:
        """The newest version that `user` has at `time_s`, at itself or at its base station."""
        for version in reversed(self._known[user]):
            if (version.mu_from_s if at_mu else version.station_from_s) <= time_s:
                return version
        raise ValueError(f"user {user}: there is no version at {time_s} s, it was forgotten too early")

    def numbers(self, time_s: float, *, at_mu: bool) -> np.ndarray:
        """The version of every MU at `time_s`; int64 [K]."""
        return np.array([self.at(user, time_s, at_mu=at_mu).number for user in range(len(self._known))])

    def serving(
        self, users: Sequence[int], start_s: Sequence[float], at_mu: Sequence[bool]
    ) -> tuple[list[nn.Module], np.ndarray, np.ndarray]:
        """What infers the parts of tasks that began at `start_s` [n].

        Returns:
            The models; which of them infers each part, int64 [n]; and the number of its version, int64 [n].
        """
        found = [self.at(user, start, at_mu=local) for user, start, local in zip(users, start_s, at_mu, strict=True)]
        places: dict[int, int] = {}
        models: list[nn.Module] = []
        for version in found:
            if places.setdefault(id(version.model), len(models)) == len(models):
                models.append(version.model)
        which = np.array([places[id(version.model)] for version in found], dtype=np.int64)
        return models, which, np.array([version.number for version in found], dtype=np.int64)

    def forget(self, before_s: float) -> None:
        """Forget what nothing that began at `before_s` or later needs."""
        for user, known in enumerate(self._known):
            if len(known) > 1:
                oldest = min(self.at(user, before_s, at_mu=local).number for local in (False, True))
                self._known[user] = [version for version in known if version.number >= oldest]
