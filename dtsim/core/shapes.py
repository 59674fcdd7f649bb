"""Shapes of arrays: K mobile users (MUs), M base stations (BSs), C classes, batch dimensions in front.

Within one call, equal letters mean equal sizes. Only the tests check this at runtime.
"""
# ruff: noqa: F722  # jaxtyping's shapes are no forward references

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

PerUser: TypeAlias = Float[Tensor, "*batch K"]
"""A number for each MU."""
PerStation: TypeAlias = Float[Tensor, "*batch M"]
"""A number for each BS."""
PerLink: TypeAlias = Float[Tensor, "*batch M K"]
"""A number for each MU at each BS."""
PerSlot: TypeAlias = Float[Tensor, "*batch"]
"""A number for each slot of a batch."""
Capacities: TypeAlias = Float[Tensor, "*#batch M"]
"""A number for each BS, either per slot or for all slots."""
Served: TypeAlias = Int64[Tensor, "*batch K"]
"""The index of each MU's BS."""

PerClass: TypeAlias = Num[np.ndarray, "C"]
"""A number for each class."""
Shares: TypeAlias = Float[np.ndarray, "C"]
"""A distribution over classes."""
Counts: TypeAlias = Int64[np.ndarray, "C"]
"""Number of samples of each class."""
Which: TypeAlias = Bool[np.ndarray, "C"]
"""Whether each class is selected."""
