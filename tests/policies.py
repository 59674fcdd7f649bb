"""Policies of a user's own, as `allocator=external` loads them; each takes the path of a file."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

Policy = Any


def unchanged(path: str) -> Policy:
    """A function whose actions leave the proportional allocation as it is."""
    return lambda observation: np.zeros((*observation.shape[:2], 2))


def first_served(path: str) -> Policy:
    """As Stable-Baselines3's: MU 0 gets more; the state is None."""

    def predict(observation: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        assert deterministic and observation.dtype == np.float32
        action = np.zeros((*observation.shape[:2], 2), dtype=np.float32)
        action[:, 0, 0] = 1.0
        return action, None

    return SimpleNamespace(predict=predict, observation_space=SimpleNamespace(shape=(4, 10)))


def misshapen(path: str) -> Policy:
    """Its actions have one column."""
    return lambda observation: np.zeros((*observation.shape[:2], 1))


def unlimited(path: str) -> Policy:
    """Its actions are no numbers."""
    return lambda observation: np.full((*observation.shape[:2], 2), np.nan)


def refused(path: str) -> Policy:
    """It cannot be read."""
    raise EOFError("ran out of input\nat byte 0")


def number(path: str) -> Policy:
    """No policy at all."""
    return 3
