"""Trainings that go on after an interruption, from the last epoch that was saved, with the same result."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypedDict

import torch
from torch import Tensor

from dtsim.core.cache import packed, unpacked, write_atomically
from dtsim.core.checked import checked
from dtsim.core.progress import Progress

SAVE_EVERY_S = 10.0
"""Least time between two savings: trainings that are shorter are as well started again."""


class Halfway(TypedDict):
    """A training after some of its epochs: all that the rest of it depends on, beside the images."""

    model: dict[str, Tensor]
    optimizer: dict[str, Any]
    rng: Tensor
    """State of the random generator."""
    losses: list[float]
    """Of every step so far."""
    epochs: int
    """Epochs done."""


Save = Callable[[Callable[[], Halfway]], None]
"""Called with a function that returns the state, which is still in use and must be written at once."""


class StateFile:
    """A file with the state of a training, and with what its watcher has gathered."""

    def __init__(self, path: Path, gathered: dict[str, Any], progress: Progress) -> None:
        """Keep in `path`; `gathered` (plain values) is written with the state and updated in place by `load`."""
        self._path, self._gathered, self._progress = path, gathered, progress
        self._saved_s = time.monotonic()

    def load(self) -> Halfway | None:
        """The state in the file; a damaged file is reported and removed."""
        try:
            content = unpacked(self._path.read_bytes())
            state = checked(content["state"], dict, "state")
            kept: Halfway = {
                "model": checked(state["model"], dict, "model"),
                "optimizer": checked(state["optimizer"], dict, "optimizer"),
                "rng": checked(state["rng"], torch.Tensor, "rng"),
                "losses": checked(state["losses"], list, "losses"),
                "epochs": checked(state["epochs"], int, "epochs"),
            }
            self._gathered.update(checked(content["gathered"], dict, "gathered"))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError):
            self._progress.say(f"training state {self._path} is damaged: the training starts again")
            self.remove()
            return None
        return kept

    def save(self, state: Callable[[], Halfway]) -> None:
        """Write the state, unless the last one is still recent."""
        if time.monotonic() - self._saved_s >= SAVE_EVERY_S:
            write_atomically(self._path, packed({"state": state(), "gathered": self._gathered}))
            self._saved_s = time.monotonic()

    def remove(self) -> None:
        """Remove the file, of which there is no need once the training has ended."""
        self._path.unlink(missing_ok=True)
