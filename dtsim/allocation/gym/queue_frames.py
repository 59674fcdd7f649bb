"""Episodes of the short timescale with queues: what is not done in a slot waits for the next one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dtsim.allocation.gym.frames import Array
from dtsim.allocation.learned.queue_observation import QUEUE_FEATURES
from dtsim.allocation.problem import Frames, FrameSource
from dtsim.allocation.queues.queue_problem import QueueProblem
from dtsim.core.seeding import Streams

_BLOCK = 32
"""Largest number of slots for which random numbers are drawn at once."""


@dataclass(frozen=True, kw_only=True)
class QueueRules:
    """What an episode is, what an action means and what it is paid; the same for single and batched environments."""

    horizon: int = 100
    """Slots of an episode."""
    slot_s: float = 0.1
    """Length of a slot, s."""
    load: float | tuple[float, float] = 1.0
    """Factor of the captured data; of a range, every episode draws its own, all scales equally likely."""
    training: float = 0.3
    """Part of the BSs' compute that the training jobs ask for on average over networks and slots."""
    compute_range: float = 2.0
    """See `QueueActions`."""
    upload_range: float = 2.0
    """See `QueueActions`."""
    training_range: float = 2.0
    """See `QueueActions`."""
    deadline_s: float = 0.1
    """Unit of delays in the reward, s."""
    overdue_weight: float = 1.0
    """What overdue training counts in the reward beside delay."""
    energy_weight: float = 0.0
    """What a joule counts, 1/J."""
    tx_w: float = 0.0
    """Power of a transmitting MU, W."""
    mu_j_per_flop: float = 0.0
    """Energy of an MU's compute, J/FLOP."""
    station_j_per_flop: float = 0.0
    """Energy of a BS's compute, J/FLOP."""

    def __post_init__(self) -> None:
        low, high = self.loads
        faults = [f"horizon={self.horizon}: must be >= 1"] if self.horizon < 1 else []
        faults += [f"load={self.load}: must be > 0, of a range the lower one first"] if not 0 < low <= high else []
        for name in ("slot_s", "deadline_s"):
            faults += [f"{name}={getattr(self, name)}: must be > 0"] if not getattr(self, name) > 0 else []
        for name in ("training", "overdue_weight", "energy_weight", "compute_range", "upload_range", "training_range"):
            faults += [f"{name}={getattr(self, name)}: must be >= 0"] if not getattr(self, name) >= 0 else []
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def loads(self) -> tuple[float, float]:
        """The range of loads."""
        return self.load if isinstance(self.load, tuple) else (self.load, self.load)


class QueueSimulator:
    """`count` environments that step together, each in its own frame; as `FrameSimulator`, with queues."""

    def __init__(
        self,
        *,
        source: FrameSource,
        users: int,
        count: int,
        networks: int,
        rules: QueueRules,
        held_out: bool = False,
    ) -> None:
        """Draw the networks; those of `held_out` are others.

        Raises:
            ValueError: if a number is out of range.
        """
        for name, value in (("users", users), ("count", count), ("networks", networks)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be >= 1")
        from dtsim.allocation.gym import queue_kernel

        self.kernel, self.rules, self.count = queue_kernel, rules, count
        frames = source.frames(networks, users, Streams(0).torch("environment/networks", *[1] * held_out))
        self.networks = queue_kernel.QueueNetworks(
            station=np.ascontiguousarray(frames.station.numpy()),
            job_flop=jobs_of(frames, rules),
            snr=_double(frames.snr),
            correlation=_double(frames.correlation),
            captured_bytes=_double(frames.captured_bytes),
            station_flops=_double(frames.station_flops),
            mu_flops=float(frames.mu_flops),
            flop_per_byte=float(frames.flop_per_byte),
            downlink_s=float(frames.downlink_s),
            bandwidth_hz=float(frames.bandwidth_hz),
            fades=frames.fades,
            slot_s=rules.slot_s,
            horizon=rules.horizon,
        )
        amounts = {name: np.zeros((count, users)) for name in queue_kernel.QueueState._fields[3:]}
        self.state = queue_kernel.QueueState(
            network=np.zeros(count, dtype=np.int64),
            load=np.ones(count),
            fading=np.tile(np.array([1.0, 0.0]), (count, users, 1)),
            **amounts,
        )
        self.pay = queue_kernel.Pay(*(float(getattr(rules, name)) for name in queue_kernel.Pay._fields))
        slots = rules.horizon + 1  # of an episode, the slot after the last action included
        self.block = math.ceil(slots / math.ceil(slots / _BLOCK))
        self.normals = np.zeros((count, self.block, users, 2), dtype=np.float32)
        self.uniforms = np.zeros((count, self.block, users), dtype=np.float32)
        self.user_reward = np.zeros((count, users), dtype=np.float32)
        self.info = np.zeros((count, 3))
        self.rngs: Sequence[np.random.Generator] = ()
        self.slot = 0

    @property
    def shape(self) -> tuple[int, int]:
        """(K, M)."""
        return self.state.share.shape[1], len(self.networks.station_flops)

    def reset(self, rngs: Sequence[np.random.Generator]) -> Array:
        """Start an episode in every environment; observations [count, K, F]."""
        self.rngs, self.slot = rngs, 0
        low, high = self.rules.loads
        for n, rng in enumerate(rngs):
            self.state.network[n] = rng.integers(len(self.networks.station))
            self.state.load[n] = low * (high / low) ** rng.random()
        self.kernel.start(self.networks, self.state)
        return self._arrive()

    def step(self, action: NDArray[np.floating]) -> tuple[Array, NDArray[np.float64], bool]:
        """Return the next observations, the rewards [count] of `action` [count, K, 3], and whether the episodes ended.

        Raises:
            RuntimeError: if `reset` was never called.
            ValueError: if `action` has another shape.
        """
        if not self.rngs:
            raise RuntimeError("the environment has no episode yet: call reset first")
        given = np.ascontiguousarray(action, dtype=np.float32)
        wanted = (self.count, self.shape[0], 3)
        if given.shape != wanted:  # the compiled loops do not check bounds
            raise ValueError(f"action: shape {given.shape} must be {wanted}")
        reward = np.empty(self.count)
        self.kernel.pass_slot(self.networks, self.state, given, self.pay, reward, self.user_reward, self.info)
        self.slot += 1
        return self._arrive(), reward, self.slot >= self.rules.horizon

    def measured(self) -> dict[str, NDArray[np.float64]]:
        """Of the slots that were last passed [count], means over MUs: `delay_s` of the new task at the slot's rates,
        `backlog_flop` of inference that waits and `overdue_flop` of training at its end."""
        return {
            name: self.info[:, place].copy() for place, name in enumerate(("delay_s", "backlog_flop", "overdue_flop"))
        }

    def problem(self) -> QueueProblem:
        """The current slot of every environment, float64."""
        state, of, rules = self.state, self.networks, self.rules

        def own(values: NDArray[np.float64]) -> torch.Tensor:
            return torch.from_numpy(values.copy())

        return QueueProblem(
            captured_bytes=own(state.captured_bytes),
            rate_bps=own(state.rate_bps),
            local_flop=own(state.local_flop),
            uplink_bits=own(state.uplink_bits),
            station_flop=own(state.station_flop),
            training_flop=own(state.training_flop),
            due_flop=own(state.due_flop),
            station=torch.from_numpy(of.station[state.network]),
            station_flops=torch.from_numpy(of.station_flops).expand(self.count, -1),
            mu_flops=torch.full((self.count, self.shape[0]), of.mu_flops, dtype=torch.float64),
            flop_per_byte=of.flop_per_byte,
            downlink_s=of.downlink_s,
            slot_s=of.slot_s,
            least_upload_bytes=torch.zeros(self.count, self.shape[0], dtype=torch.float64),
            tx_w=rules.tx_w,
            mu_j_per_flop=rules.mu_j_per_flop,
            station_j_per_flop=rules.station_j_per_flop,
        )

    def _arrive(self) -> Array:
        place = self.slot % self.block
        if place == 0:
            for n, rng in enumerate(self.rngs):
                if self.networks.fades:
                    rng.standard_normal(out=self.normals[n], dtype=np.float32)
                rng.random(out=self.uniforms[n], dtype=np.float32)
        self.kernel.arrive(self.networks, self.state, self.normals, self.uniforms, place, self.slot)
        observation = np.empty((self.count, self.shape[0], len(QUEUE_FEATURES)), dtype=np.float32)
        self.kernel.observe(self.networks, self.state, observation)
        return observation


def jobs_of(frames: Frames, rules: QueueRules) -> NDArray[np.float64]:
    """The training job of each MU of each network [P, K], FLOP; 0 where it has none.

    Jobs are to each other, within a network, as the retraining work of `frames`. Their scale is one for all networks:
    on average they ask for `rules.training` of the BSs' compute over an episode.
    """
    asked = _double(frames.retrain_flop)
    size = asked / np.maximum(asked.max(axis=1, keepdims=True), 1e-30)
    whole = float(frames.station_flops.double().sum()) * rules.horizon * rules.slot_s
    job: NDArray[np.float64] = size * (rules.training * whole / max(size.sum(axis=1).mean(), 1e-30))
    return job


def _double(values: torch.Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = np.ascontiguousarray(values.double().numpy())
    return array
