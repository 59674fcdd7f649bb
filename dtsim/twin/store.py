"""The store of the digital twin: statistics and samples of bounded size, all uploaded by MUs."""

from __future__ import annotations

import zlib
from collections import deque

import numpy as np
import torch

from dtsim.learning.data.splits import Labelled


class _Ring:
    """The newest `capacity` samples of one region and class."""

    def __init__(self, capacity: int, like: torch.Tensor) -> None:
        self.images = like.new_empty((capacity, *like.shape[1:]))  # [capacity, C, H, W]
        self.filled = 0
        self.next = 0

    def add(self, images: torch.Tensor) -> None:
        capacity = len(self.images)
        images = images[-capacity:]
        slots = (self.next + torch.arange(len(images), device=self.images.device)) % capacity
        self.images[slots] = images
        self.next = (self.next + len(images)) % capacity
        self.filled = min(capacity, self.filled + len(images))


class Store:
    """The twin's memory of uploads.

    It has three bounded parts: per region and class a ring of the newest samples, pooled over MUs (the replay source);
    per region a class histogram with exponential forgetting; per MU the samples of the last `windows` retraining
    windows. If a share is held out, there is a fourth: per region the newest held-out samples, which are in no ring or
    window. A hash of its bytes decides whether a sample is held out, so no copy of it is ever trained on.
    """

    def __init__(
        self,
        *,
        regions: int,
        classes: int,
        users: int,
        capacity: int,
        memory: float,
        windows: int,
        holdout_share: float = 0.0,
        holdout_samples: int = 0,
    ) -> None:
        """Make an empty store.

        Args:
            regions: number of regions R.
            classes: number of classes C.
            users: number of MUs K.
            capacity: total number of samples in the replay rings.
            memory: factor in (0, 1] that scales the class histograms at the end of each frame.
            windows: retraining windows whose uploads are kept for each MU.
            holdout_share: share of uploads that is held out of replay and training, in [0, 1).
            holdout_samples: number of newest held-out samples kept from each region.
        """
        self.classes = classes
        self.ring_capacity = max(1, capacity // (regions * classes))
        self.memory = memory
        self.rings: dict[tuple[int, int], _Ring] = {}
        self.class_counts = np.zeros((regions, classes))  # [R, C]
        self.uploads = np.zeros(regions, dtype=np.int64)
        """Number of samples uploaded from each region so far; [R]."""
        self.holdout_share = holdout_share
        self.holdout_samples = holdout_samples
        self._held_out: dict[int, Labelled] = {}
        self._open: list[list[Labelled]] = [[] for _ in range(users)]
        self._closed: list[deque[Labelled]] = [deque(maxlen=windows) for _ in range(users)]

    def upload(self, user: int, region: int, samples: Labelled) -> None:
        """Store the samples that MU `user` uploaded from `region` in this slot."""
        if not len(samples):
            return
        self.class_counts[region] += samples.class_counts(self.classes)
        self.uploads[region] += len(samples)
        if self.holdout_share:
            samples = self._hold_out(region, samples)
            if not len(samples):
                return
        self._open[user].append(samples)
        for label in samples.labels.unique().tolist():
            ring = self.rings.get((region, label))
            if ring is None:
                ring = self.rings[region, label] = _Ring(self.ring_capacity, samples.images)
            ring.add(samples.images[samples.labels == label])

    def close_window(self) -> None:
        """End the retraining window: its uploads become the data of the next decision."""
        for user, uploaded in enumerate(self._open):
            if uploaded:
                self._closed[user].append(Labelled.joined(uploaded))
                uploaded.clear()
            else:
                self._closed[user].append(Labelled(torch.empty(0), torch.empty(0, dtype=torch.int64)))

    def forget(self) -> None:
        """Scale the class histograms by `memory`, once a frame."""
        self.class_counts *= self.memory

    def last_window(self, user: int) -> Labelled | None:
        """Uploads of MU `user` in the last retraining window; None if there were none."""
        kept = self._closed[user]
        return kept[-1] if kept and len(kept[-1]) else None

    def history(self, user: int) -> Labelled | None:
        """All stored uploads of MU `user`; None if there are none."""
        kept = [window for window in self._closed[user] if len(window)]
        return Labelled.joined(kept) if kept else None

    def held_out(self, region: int) -> Labelled | None:
        """The newest held-out samples of `region`; None if there are none."""
        return self._held_out.get(region)

    def stored(self, region: int) -> np.ndarray:
        """Number of samples in the replay rings of `region`, by class; int64 [C]."""
        counts = np.zeros(self.classes, dtype=np.int64)
        for (where, label), ring in self.rings.items():
            if where == region:
                counts[label] = ring.filled
        return counts

    def kept(self, region: int) -> Labelled:
        """All samples in the replay rings of `region`, by class; there must be at least one."""
        rings = {label: self.rings[region, label] for label in range(self.classes) if (region, label) in self.rings}
        images = torch.cat([ring.images[: ring.filled] for ring in rings.values()])
        labels = torch.cat([torch.full((ring.filled,), label, device=images.device) for label, ring in rings.items()])
        return Labelled(images, labels)

    def draw(self, region: int, counts: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Draw `counts` [C] stored samples of `region` by class, without repetition until a ring is exhausted."""
        images, labels = [], []
        for label in np.flatnonzero(counts):
            ring, wanted = self.rings[region, int(label)], int(counts[label])
            rounds = [rng.permutation(ring.filled) for _ in range(-(-wanted // ring.filled))]
            chosen = torch.from_numpy(np.concatenate(rounds)[:wanted]).to(ring.images.device)
            images.append(ring.images[chosen])
            labels.append(torch.full((wanted,), int(label), dtype=torch.int64, device=ring.images.device))
        return Labelled(torch.cat(images), torch.cat(labels))

    def _hold_out(self, region: int, samples: Labelled) -> Labelled:
        """Store the held-out part of `samples`; return the rest."""
        hashes = np.array([zlib.crc32(image) for image in samples.images.cpu().contiguous().numpy()])
        held = torch.from_numpy(hashes < self.holdout_share * 2**32).to(samples.labels.device)
        if held.any():
            kept = [self._held_out[region]] if region in self._held_out else []
            joined = Labelled.joined([*kept, Labelled(samples.images[held], samples.labels[held])])
            newest = slice(-self.holdout_samples, None)
            self._held_out[region] = Labelled(joined.images[newest], joined.labels[newest])
        return Labelled(samples.images[~held], samples.labels[~held])
