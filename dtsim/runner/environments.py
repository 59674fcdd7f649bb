"""The environments registered with Gymnasium, on the network of the default configuration or of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtsim.allocation.gym.environment import ShortTimescaleEnv
    from dtsim.allocation.gym.vector import ShortTimescaleVectorEnv
    from dtsim.allocation.problem import FrameSource


def register() -> None:
    """Register the environments with Gymnasium, which calls this itself if dtsim is installed."""
    import gymnasium

    gymnasium.register(
        "dtsim/ShortTimescale-v0",
        entry_point="dtsim.runner.environments:short_timescale",
        vector_entry_point="dtsim.runner.environments:short_timescale_vector",
    )


def short_timescale(
    source: FrameSource | None = None, overrides: Sequence[str] = (), **keywords: Any
) -> ShortTimescaleEnv:
    """One environment on the frames of `source`, by default those of `dtsim run` with `overrides`."""
    from dtsim.allocation.gym.environment import ShortTimescaleEnv

    return ShortTimescaleEnv(source=source or _default(overrides), **keywords)


def short_timescale_vector(
    source: FrameSource | None = None, overrides: Sequence[str] = (), **keywords: Any
) -> ShortTimescaleVectorEnv:
    """`num_envs` environments as one vector environment, each as in `short_timescale`."""
    from dtsim.allocation.gym.vector import ShortTimescaleVectorEnv

    return ShortTimescaleVectorEnv(source=source or _default(overrides), **keywords)


def _default(overrides: Sequence[str]) -> FrameSource:
    from dtsim.runner.defaults import default_mirror

    return default_mirror(overrides)
