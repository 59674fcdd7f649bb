"""Policies of one's own in the loop: trained by any library on `dtsim/ShortTimescale-v0`, loaded from a file."""

from __future__ import annotations

import pkgutil
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field

from dtsim.allocation.allocator import AllocatorKeys
from dtsim.allocation.learned.observation import FEATURES, decode, observe
from dtsim.allocation.problem import Allocation, AllocationProblem
from dtsim.core.parts import ConfigError, part


@part
class External(AllocatorKeys):
    """Loads a policy and executes its actions, eq. (18), on observations (17) of every slot, as the environment does.

    A policy is an object with `predict(observation, deterministic=True)`, as Stable-Baselines3's are, or a function of
    the observation. Observations are float32 arrays [B, K, 10] of B slots at once, and actions [B, K, 2] in [-1, 1].
    """

    loader: str = Field(min_length=1)
    """What loads the policy [name]: a function of the file's path, such as stable_baselines3.SAC.load. Loading executes
    what the file holds: only load files that you trust."""
    file: str = Field(min_length=1)
    """File of the policy [path]."""
    compute_range: float = Field(default=2.0, gt=0.0, le=20.0)
    """A compute share is multiplied by a factor from e^-range to e^range: that of the environment it was trained on."""
    upload_range: float = Field(default=1.0, gt=0.0, le=20.0)
    """The odds of the upload fraction are multiplied by a factor from e^-range to e^range: likewise."""

    def __post_init__(self) -> None:
        _ = self._policy  # a policy that cannot be loaded is found before anything runs

    @cached_property
    def _policy(self) -> Any:
        try:
            load = pkgutil.resolve_name(self.loader)
        except (ImportError, AttributeError, ValueError) as error:
            said = "must name a function that can be imported, such as stable_baselines3.SAC.load"
            raise ValueError(f"loader={self.loader!r}: {said} ({_first_line(error)})") from None
        path = Path(self.file).expanduser()
        if not path.is_file():
            raise ValueError(f"file={self.file!r}: must be a file that can be read")
        try:
            policy = load(str(path))
        except Exception as error:  # whatever a library raises for a file that is not its own
            said = f"must be a policy that {self.loader} loads ({type(error).__name__}: {_first_line(error)})"
            raise ValueError(f"file={self.file!r}: {said}") from None
        if not callable(getattr(policy, "predict", policy)):
            kind = type(policy).__name__
            raise ValueError(f"loader={self.loader!r}: must return an object with predict, or a function, not a {kind}")
        return policy

    def check_fits(self, *, users: int, stations: int) -> None:
        """Check that the policy can serve this number of MUs, if it tells for which it was trained.

        Raises:
            ConfigError: if it was trained with another number of MUs.
        """
        shape = getattr(getattr(self._policy, "observation_space", None), "shape", None)
        if shape is not None and tuple(shape) != (users, len(FEATURES)):
            raise ConfigError(
                [
                    f"allocator.file={self.file!r}: takes observations {tuple(shape)}, mu={users} gives "
                    f"{(users, len(FEATURES))}: train it on an environment with users={users}"
                ]
            )

    def allocate(self, problem: AllocationProblem) -> Allocation:
        """The policy's allocation, any leading dimensions.

        Raises:
            ConfigError: if its actions are not finite numbers [B, K, 2].
        """
        observation = observe(problem)  # [..., K, F]
        slots = observation.reshape(-1, *observation.shape[-2:]).cpu().numpy()
        predict = getattr(self._policy, "predict", None)
        given = self._policy(slots) if predict is None else predict(slots, deterministic=True)
        action = np.asarray(given[0] if isinstance(given, tuple) else given, dtype=np.float32)
        wanted = (*slots.shape[:2], 2)
        if action.shape != wanted or not np.isfinite(action).all():
            said = f"actions of shape {action.shape}" if action.shape != wanted else "actions that are not finite"
            raise ConfigError([f"allocator.file={self.file!r}: the policy gives {said}, must be numbers {wanted}"])
        shaped = torch.from_numpy(action.reshape(*observation.shape[:-1], 2)).to(observation.device)
        return decode(problem, shaped, self.compute_range, self.upload_range)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "no reason given")
