"""The environments that `gymnasium.make` knows, on the network of the default configuration or of another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtsim.allocation.gym.environment import ShortTimescaleEnv
    from dtsim.allocation.gym.vector import ShortTimescaleVectorEnv
    from dtsim.allocation.problem import FrameSource


def register() -> None:
    """Make the environments known to Gymnasium, which calls this itself where dtsim is installed."""
    import gymnasium

    gymnasium.register(
        "dtsim/ShortTimescale-v0",
        entry_point="dtsim.runner.environments:short_timescale",
        vector_entry_point="dtsim.runner.environments:short_timescale_vector",
    )


def short_timescale(source: FrameSource | None = None, **keywords: Any) -> ShortTimescaleEnv:
    """One environment on the frames of `source`; without one, of what `dtsim run` without overrides simulates."""
    from dtsim.allocation.gym.environment import ShortTimescaleEnv

    return ShortTimescaleEnv(source=source or _default(), **keywords)


def short_timescale_vector(source: FrameSource | None = None, **keywords: Any) -> ShortTimescaleVectorEnv:
    """`num_envs` environments in one program, each like that of `short_timescale`."""
    from dtsim.allocation.gym.vector import ShortTimescaleVectorEnv

    return ShortTimescaleVectorEnv(source=source or _default(), **keywords)


def _default() -> FrameSource:
    from dtsim.runner.defaults import default_mirror

    return default_mirror()
