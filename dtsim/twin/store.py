"""What the digital twin keeps: statistics and samples of bounded size, all of it uploaded by MUs."""

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

    Three things, each bounded: per region and class a ring of the newest samples, pooled over MUs (the replay source);
    per region a class histogram that forgets; per MU the samples of the last `windows` decision windows. Where a share
    is held out, a fourth: per region its newest held-out samples, which are in none of the rings and windows. A hash of
    its bytes says whether a sample is held out, so that a copy of it, whoever uploads it, is never trained on.
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
            capacity: samples that the replay rings hold together.
            memory: factor in (0, 1] that the class histograms shrink by at the end of each frame.
            windows: decision windows whose uploads are kept for each MU.
            holdout_share: share of uploads that is held out of replay and training, in [0, 1).
            holdout_samples: newest held-out samples that are kept of each region.
        """
        self.classes = classes
        self.ring_capacity = max(1, capacity // (regions * classes))
        self.memory = memory
        self.rings: dict[tuple[int, int], _Ring] = {}
        self.class_counts = np.zeros((regions, classes))  # [R, C]
        self.uploads = np.zeros(regions, dtype=np.int64)
        """Samples ever uploaded from each region; [R]."""
        self.holdout_share = holdout_share
        self.holdout_samples = holdout_samples
        self._held_out: dict[int, Labelled] = {}
        self._open: list[list[Labelled]] = [[] for _ in range(users)]
        self._closed: list[deque[Labelled]] = [deque(maxlen=windows) for _ in range(users)]

    def upload(self, user: int, region: int, samples: Labelled) -> None:
        """Take in what MU `user` uploaded from `region` in this slot."""
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
        """End the decision window: what was uploaded in it becomes the data of the next decision."""
        for user, uploaded in enumerate(self._open):
            if uploaded:
                self._closed[user].append(Labelled.joined(uploaded))
                uploaded.clear()
            else:
                self._closed[user].append(Labelled(torch.empty(0), torch.empty(0, dtype=torch.int64)))

    def forget(self) -> None:
        """Let the class histograms fade, once a frame."""
        self.class_counts *= self.memory

    def last_window(self, user: int) -> Labelled | None:
        """What MU `user` uploaded in the last decision window; None where that is nothing."""
        kept = self._closed[user]
        return kept[-1] if kept and len(kept[-1]) else None

    def history(self, user: int) -> Labelled | None:
        """All that is still kept of MU `user`'s uploads; None where that is nothing."""
        kept = [window for window in self._closed[user] if len(window)]
        return Labelled.joined(kept) if kept else None

    def held_out(self, region: int) -> Labelled | None:
        """The newest held-out samples of `region`; None where there are none."""
        return self._held_out.get(region)

    def stored(self, region: int) -> np.ndarray:
        """Samples in the replay rings of `region`, by class; int64 [C]."""
        counts = np.zeros(self.classes, dtype=np.int64)
        for (where, label), ring in self.rings.items():
            if where == region:
                counts[label] = ring.filled
        return counts

    def kept(self, region: int) -> Labelled:
        """All samples in the replay rings of `region`, by class; at least one must be there."""
        rings = {label: self.rings[region, label] for label in range(self.classes) if (region, label) in self.rings}
        images = torch.cat([ring.images[: ring.filled] for ring in rings.values()])
        labels = torch.cat([torch.full((ring.filled,), label, device=images.device) for label, ring in rings.items()])
        return Labelled(images, labels)

    def draw(self, region: int, counts: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Draw `counts` [C] stored samples of `region` by class, without repetition until a ring is used up."""
        images, labels = [], []
        for label in np.flatnonzero(counts):
            ring, wanted = self.rings[region, int(label)], int(counts[label])
            rounds = [rng.permutation(ring.filled) for _ in range(-(-wanted // ring.filled))]
            chosen = torch.from_numpy(np.concatenate(rounds)[:wanted]).to(ring.images.device)
            images.append(ring.images[chosen])
            labels.append(torch.full((wanted,), int(label), dtype=torch.int64, device=ring.images.device))
        return Labelled(torch.cat(images), torch.cat(labels))

    def _hold_out(self, region: int, samples: Labelled) -> Labelled:
        """Put aside what is held out of `samples`; return the rest."""
        hashes = np.array([zlib.crc32(image) for image in samples.images.cpu().contiguous().numpy()])
        held = torch.from_numpy(hashes < self.holdout_share * 2**32).to(samples.labels.device)
        if held.any():
            kept = [self._held_out[region]] if region in self._held_out else []
            joined = Labelled.joined([*kept, Labelled(samples.images[held], samples.labels[held])])
            newest = slice(-self.holdout_samples, None)
            self._held_out[region] = Labelled(joined.images[newest], joined.labels[newest])
        return Labelled(samples.images[~held], samples.labels[~held])
