"""The environments registered with Gymnasium, on the network of the default configuration or of another one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dtsim.allocation.gym.environment import ShortTimescaleEnv
    from dtsim.allocation.gym.queue_environment import QueuesEnv, QueuesVectorEnv
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
    gymnasium.register(
        "dtsim/Queues-v0",
        entry_point="dtsim.runner.environments:queues",
        vector_entry_point="dtsim.runner.environments:queues_vector",
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


def queues(
    source: FrameSource | None = None, overrides: Sequence[str] = (), slot_s: float = 0.1, **keywords: Any
) -> QueuesEnv:
    """One environment with queues on the frames of `source`, by default those of `dtsim run` with `overrides`.

    Fading then changes from slot to slot as in slots of `slot_s`.
    """
    from dtsim.allocation.gym.queue_environment import QueuesEnv

    return QueuesEnv(source=source or _default([f"time.slot_s={slot_s}", *overrides]), slot_s=slot_s, **keywords)


def queues_vector(
    source: FrameSource | None = None, overrides: Sequence[str] = (), slot_s: float = 0.1, **keywords: Any
) -> QueuesVectorEnv:
    """`num_envs` environments with queues as one vector environment, each as in `queues`."""
    from dtsim.allocation.gym.queue_environment import QueuesVectorEnv

    return QueuesVectorEnv(source=source or _default([f"time.slot_s={slot_s}", *overrides]), slot_s=slot_s, **keywords)


def _default(overrides: Sequence[str]) -> FrameSource:
    from dtsim.runner.defaults import default_mirror

    return default_mirror(overrides)
