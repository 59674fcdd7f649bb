"""The digital twin: it observes traffic and uploads, forecasts, holds beliefs and assembles training sets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from pydantic import Field

from dtsim.core.parts import part
from dtsim.learning.data.splits import Labelled
from dtsim.twin.distribution import kl_divergence_nat, smoothed
from dtsim.twin.generator import Generator
from dtsim.twin.store import Store


@part
class TwinConfig:
    """The keys of `conf/twin`."""

    capacity: int = Field(default=5000, ge=1)
    """Size of the replay store [samples], shared evenly by regions and classes."""
    memory: float = Field(default=0.9, gt=0, le=1)
    """Share of the twin's class histograms that a frame leaves."""
    windows: int = Field(default=20, ge=1, le=1_000_000)
    """Decision windows whose uploads are kept of each MU."""
    smoothing: float = Field(default=0.001, gt=0, lt=1)
    """Share of the uniform distribution in both sides of every KL divergence."""
    predictor: dict[str, object]
    """The class that predicts frame accuracy, eq. (14)."""


@dataclass(frozen=True)
class TrainingSet:
    """The data of one update of one MU's model."""

    samples: Labelled
    real: int
    """Number of samples that the MU uploaded."""
    generated: int
    """Number of samples that the twin generated."""
    kl_nat: float
    """KL(P ‖ Q) of the generated samples, in nat; NaN if there are none."""
    distribution: np.ndarray
    """Class distribution of the whole set; [C]."""
    generator_flop: float
    """Work of the generator itself, fitting and sampling, in FLOP."""


class Twin:
    """The twin of one run: a store, a generator and the statistics between them."""

    def __init__(self, *, store: Store, generator: Generator, users: int, mean_bytes: float, smoothing: float) -> None:
        """Assemble the twin.

        Args:
            store: the stored uploads.
            generator: generates data, eqs. (8)-(9).
            users: number of MUs K.
            mean_bytes: assumed data of an MU in a slot before any observation, in byte.
            smoothing: share of the uniform distribution in its beliefs.
        """
        self.store = store
        self.generator = generator
        self.smoothing = smoothing
        # A running mean of each MU's captured data, with the prior counted as one slot.
        self._bytes_sum = np.full(users, float(mean_bytes))
        self._bytes_slots = 1

    def see_traffic(self, captured_bytes: np.ndarray) -> None:
        """Observe the data that every MU captured in this slot, in byte; [K]."""
        self._bytes_sum += captured_bytes
        self._bytes_slots += 1

    def forecast_bytes(self) -> np.ndarray:
        """D̄_k: expected data of every MU in a slot, in byte; [K]."""
        return self._bytes_sum / self._bytes_slots

    def belief(self, region: int) -> np.ndarray:
        """Q: the class distribution that the twin currently believes `region` to have; [C]."""
        seen = self.store.class_counts[region]
        return seen / seen.sum() if seen.sum() > 0 else np.full(len(seen), 1 / len(seen))

    def training_set(
        self,
        *,
        user: int,
        region: int,
        belief: np.ndarray,
        trained_on: np.ndarray,
        wanted: int,
        generate: bool,
        everything: bool,
        rng: np.random.Generator,
    ) -> TrainingSet | None:
        """Assemble the data for an update of MU `user`'s model; None if there are none.

        Args:
            user: the MU.
            region: its region.
            belief: Q_k, its believed class distribution; [C].
            trained_on: class distribution of the model's last training set; [C].
            wanted: target size of the set; if the generator fills it, real samples beyond it are drawn from at random.
            generate: whether to add generated data.
            everything: use all stored uploads of the MU instead of the last window's.
            rng: random generator of this update.
        """
        real = self.store.history(user) if everything else self.store.last_window(user)
        parts = [real] if real is not None else []
        n_real, kl_nat, n_generated = len(real) if real is not None else 0, float("nan"), 0
        flop = 0.0
        if generate:
            if real is not None and n_real > wanted and self.generator.fills and not everything:
                real = real.at(np.sort(rng.choice(n_real, wanted, replace=False)))
                parts, n_real = [real], wanted
            divergence = kl_divergence_nat(smoothed(belief, self.smoothing), smoothed(trained_on, self.smoothing))
            window = self.store.last_window(user)  # ρ_k is relative to the window's data, even if more is trained on
            real_now = len(window) if window is not None else 0
            count = self.generator.count(real=real_now, wanted=wanted, divergence_nat=divergence)
            made = self.generator.generate(
                belief=smoothed(belief, self.smoothing),
                count=count,
                region=region,
                store=self.store,
                rng=rng,
            )
            if made is not None:
                parts.append(made.samples)
                n_generated, flop = len(made.samples), made.flop
                kl_nat = kl_divergence_nat(
                    smoothed(made.samples.class_counts(len(belief)), self.smoothing),
                    smoothed(belief, self.smoothing),
                )
        if not parts:
            return None
        samples = Labelled.joined(parts)
        distribution = samples.class_counts(len(belief)) / len(samples)
        return TrainingSet(samples, n_real, n_generated, kl_nat, distribution, flop)
