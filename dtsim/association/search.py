"""The keys that solvers share which search until they have a proof."""

from __future__ import annotations

from pydantic import Field

from dtsim.core.parts import part


@part
class Search:
    """A search that ends at the latest after some time."""

    time_limit_s: float = Field(default=60.0, gt=0, le=1e6)
    """Wall time [s] after which the best answer so far is used, with its gap."""


@part
class GapSearch(Search):
    """A search that may also end before the optimum is proven."""

    relative_gap: float = Field(default=0.0, ge=0, lt=1)
    """The search ends once the gap is proven to be no larger."""
