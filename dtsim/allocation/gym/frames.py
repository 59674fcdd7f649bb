"""Episodes of the short timescale: positions, association and retraining are fixed within a frame of slots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dtsim.allocation.learned.observation import FEATURES, Reward
from dtsim.allocation.problem import AllocationProblem, FrameSource
from dtsim.core.seeding import Streams

Array: TypeAlias = NDArray[np.float32]

_BLOCK = 32
"""Largest number of slots for which random numbers are drawn at once."""


class FrameSimulator:
    """`count` environments that step together, each in its own frame.

    An episode takes place in one of `networks` networks, which all simulators of a source share. Each environment has
    its own random generator, which draws the network and all events in it, so an episode does not depend on others.
    """

    def __init__(
        self,
        *,
        source: FrameSource,
        users: int,
        count: int,
        networks: int,
        horizon: int,
        reward: Reward,
        compute_range: float,
        upload_range: float,
    ) -> None:
        """Draw the networks.

        Raises:
            ValueError: if a number is out of range.
        """
        for name, value in (("users", users), ("count", count), ("networks", networks), ("horizon", horizon)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be >= 1")
        from dtsim.allocation.gym import kernel

        self.kernel = kernel
        self.count, self.horizon = count, horizon
        self.ranges = (kernel.single(compute_range), kernel.single(upload_range))
        self.per_station = reward == "station_log_ratio"
        self.frames = source.frames(networks, users, Streams(0).torch("environment/networks"))
        frames, stations = self.frames, len(self.frames.station_flops)
        self.networks = kernel.Networks(
            station=np.ascontiguousarray(frames.station.numpy()),
            retrain_flop=_array(frames.retrain_flop),
            snr=_array(frames.snr),
            correlation=_array(frames.correlation),
            innovation=_array(((1 - frames.correlation.square()).clamp(min=0) / 2).sqrt()),
            captured_bytes=_array(frames.captured_bytes),
            station_flops=_array(frames.station_flops),
            mu_flops=kernel.single(frames.mu_flops),
            flop_per_byte=kernel.single(frames.flop_per_byte),
            downlink_s=kernel.single(frames.downlink_s),
            bandwidth_hz=kernel.single(frames.bandwidth_hz),
            fades=frames.fades,
        )
        self.state = kernel.State(
            network=np.zeros(count, dtype=np.int64),
            fading=np.tile(np.array([1.0, 0.0], dtype=np.float32), (count, users, 1)),
            captured_bytes=np.zeros((count, users), dtype=np.float32),
            rate_bps=np.zeros((count, users), dtype=np.float32),
            share=np.zeros((count, users), dtype=np.float32),
            usual_s=np.zeros((count, stations), dtype=np.float32),
        )
        # The fewest draws that cover the slots of an episode, including the slot after the last action.
        self.block = math.ceil((horizon + 1) / math.ceil((horizon + 1) / _BLOCK))
        self.normals = np.zeros((count, self.block, users, 2), dtype=np.float32)
        self.uniforms = np.zeros((count, self.block, users), dtype=np.float32)
        self.delay_s, self.least_s = np.zeros(count), np.zeros(count)
        self.rngs: Sequence[np.random.Generator] = ()
        self.slot = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(K, M)."""
        return self.state.share.shape[1], self.state.usual_s.shape[1]

    def reset(self, rngs: Sequence[np.random.Generator]) -> Array:
        """Start an episode in every environment; observations [count, K, F]."""
        self.rngs, self.slot = rngs, 0
        for n, rng in enumerate(rngs):
            self.state.network[n] = rng.integers(len(self.networks.station))
        return self._arrive()

    def step(self, action: NDArray[np.floating]) -> tuple[Array, NDArray[np.float64], bool]:
        """Return the next observations, the rewards [count] of `action` [count, K, 2], and whether the episodes ended.

        Raises:
            RuntimeError: if `reset` was never called.
            ValueError: if `action` has another shape.
        """
        if not self.rngs:
            raise RuntimeError("the environment has no episode yet: call reset first")
        given = np.ascontiguousarray(action, dtype=np.float32)
        if given.shape != (self.count, self.shape[0], 2):  # the compiled loops do not check bounds
            raise ValueError(f"action: shape {given.shape} must be {(self.count, self.shape[0], 2)}")
        reward = np.empty(self.count)
        self.kernel.pay(self.networks, self.state, given, *self.ranges, self.per_station, reward, self.delay_s)
        self.slot += 1
        return self._arrive(), reward, self.slot >= self.horizon

    def optimum(self) -> None:
        """Put the least possible delay of the current slots into `least_s` [count]."""
        self.kernel.optimum(self.networks, self.state, self.least_s)

    def measured(self, with_optimum: bool) -> dict[str, NDArray[np.float64]]:
        """Of the slots that were last paid for: the delay of the slowest MU, its optimum, and the gap to it [count]."""
        if not with_optimum:
            return {"delay_s": self.delay_s.copy()}
        # A delay in single precision may end a rounding error below an optimum in double precision.
        gap = np.maximum(self.delay_s / np.where(self.least_s > 0, self.least_s, np.inf) - 1, 0.0)
        gap = np.where(self.least_s > 0, gap, np.where(self.delay_s > 0, np.inf, 0.0))
        return {"delay_s": self.delay_s.copy(), "optimum_s": self.least_s.copy(), "gap": gap}

    def problem(self) -> AllocationProblem:
        """The current slot of every environment."""
        drawn = (self.state.captured_bytes, self.state.rate_bps)
        network = torch.from_numpy(self.state.network.copy())
        return self.frames.problem(network, *(torch.from_numpy(values.copy()) for values in drawn))

    def _arrive(self) -> Array:
        place = self.slot % self.block
        if place == 0:
            self._draw()
        self.kernel.advance(self.networks, self.state, self.normals, self.uniforms, place, self.slot == 0)
        observation = np.empty((self.count, self.shape[0], len(FEATURES)), dtype=np.float32)
        self.kernel.observe(self.networks, self.state, observation)
        return observation

    def _draw(self) -> None:
        for n, rng in enumerate(self.rngs):
            if self.networks.fades:
                rng.standard_normal(out=self.normals[n], dtype=np.float32)
            rng.random(out=self.uniforms[n], dtype=np.float32)


def _array(values: Tensor) -> Array:
    array: Array = np.ascontiguousarray(values.numpy(), dtype=np.float32)
    return array
