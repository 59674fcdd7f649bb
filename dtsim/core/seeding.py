"""One seed, many independent streams of random numbers, each named by its purpose.

A stream depends only on the seed and its name, never on draws from other streams: compared schemes see the same world,
and a new stream changes no other.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
import torch

from dtsim.core.uniforms import uniforms


@dataclass(frozen=True)
class Streams:
    """Independent random streams derived from `seed` by name (NumPy's SeedSequence with a spawn key)."""

    seed: int

    def sequence(self, name: str, *index: int) -> np.random.SeedSequence:
        """The seed sequence of stream `name`; `index` selects one of its members, such as a user and a slot."""
        return np.random.SeedSequence(self.seed, spawn_key=(_word(name), *index))

    def numpy(self, name: str, *index: int) -> np.random.Generator:
        """A NumPy random generator on stream `name`."""
        return np.random.default_rng(self.sequence(name, *index))

    def uniforms(self, name: str, *index: int, counts: np.ndarray) -> np.ndarray:
        """What `numpy(name, *index, k).random(counts[k])` gives for each k, one after another; float64 [sum]."""
        return uniforms(self.seed, (_word(name), *index), counts)

    def integer(self, name: str, *index: int) -> int:
        """A 63-bit seed for libraries that take a number."""
        return int(self.sequence(name, *index).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def torch(self, name: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
        """A torch random generator on stream `name`, on `device`."""
        return torch.Generator(device=device).manual_seed(self.integer(name, *index))


def _word(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")


def single_thread() -> None:
    """Use one torch thread: the number of threads changes the last bits of sums and therefore training results."""
    torch.set_num_threads(1)
