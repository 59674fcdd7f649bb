"""Shapes of arrays: K mobile users (MUs), M base stations (BSs), C classes, batch dimensions in front.

In one call equal letters are equal sizes. Tests check that while they run; otherwise these are annotations only.
"""
# ruff: noqa: F722, F821  # jaxtyping's shapes are no forward references

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
"""A number for each BS, of each slot or for all."""
Served: TypeAlias = Int64[Tensor, "*batch K"]
"""The index of each MU's BS."""

PerClass: TypeAlias = Num[np.ndarray, "C"]
"""A number for each class."""
Shares: TypeAlias = Float[np.ndarray, "C"]
"""A distribution over classes."""
Counts: TypeAlias = Int64[np.ndarray, "C"]
"""Samples of each class."""
Which: TypeAlias = Bool[np.ndarray, "C"]
"""Classes that are chosen."""
