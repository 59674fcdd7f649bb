"""The store of the digital twin: statistics and samples of bounded size, all uploaded by MUs."""

from __future__ import annotations

import zlib
from collections import deque

import numpy as np
import torch

from dtsim.learning.data.splits import Labelled


class _Window:
    """What all MUs uploaded in one retraining window."""

    def __init__(self, users: np.ndarray, samples: Labelled | None) -> None:
        """Group `samples` [n] by their MUs `users` [n]; None: nothing was uploaded."""
        self._samples = samples
        self._order = np.argsort(users, kind="stable")
        self._sorted = users[self._order]

    def of(self, user: int) -> Labelled | None:
        """Uploads of MU `user`, the oldest first; None if there were none."""
        first, end = np.searchsorted(self._sorted, [user, user + 1])
        if self._samples is None or first == end:
            return None
        chosen = torch.from_numpy(self._order[first:end]).to(self._samples.labels.device)
        return Labelled(self._samples.images[chosen], self._samples.labels[chosen])


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
            capacity: total number of samples in the replay rings.
            memory: factor in (0, 1] that scales the class histograms at the end of each frame.
            windows: retraining windows whose uploads are kept for each MU.
            holdout_share: share of uploads that is held out of replay and training, in [0, 1).
            holdout_samples: number of newest held-out samples kept from each region.
        """
        self.classes = classes
        self.ring_capacity = max(1, capacity // (regions * classes))
        self.memory = memory
        self._rings: torch.Tensor | None = None  # [R * C * ring capacity, C, H, W], made at the first upload
        self._added = np.zeros(regions * classes, dtype=np.int64)  # samples that each ring has taken so far
        self.class_counts = np.zeros((regions, classes))  # [R, C]
        self.uploads = np.zeros(regions, dtype=np.int64)
        """Number of samples uploaded from each region so far; [R]."""
        self.holdout_share = holdout_share
        self.holdout_samples = holdout_samples
        self._held_out: dict[int, Labelled] = {}
        self._open: list[tuple[np.ndarray, Labelled]] = []
        self._closed: deque[_Window] = deque(maxlen=windows)

    def upload(self, user: int | np.ndarray, region: int | np.ndarray, samples: Labelled) -> None:
        """Store the samples that MUs uploaded in a slot.

        Args:
            user: the MU of each sample [n], or of all of them.
            region: the region of each sample [n], or of all of them.
            samples: images and labels; n of them, user by user.
        """
        if not len(samples):
            return
        users, regions = np.broadcast_to(user, len(samples)), np.broadcast_to(region, len(samples))
        labels = samples.labels.cpu().numpy()
        self._count(users, regions, labels)
        if self.holdout_share:
            kept = self._hold_out(regions, samples)
            users, regions, labels = users[kept], regions[kept], labels[kept]
            samples = _chosen(samples, kept)
        self._open.append((users, samples))
        self._add_to_rings(regions * self.classes + labels, samples.images)

    def close_window(self) -> None:
        """End the retraining window: its uploads become the data of the next decision."""
        users = np.concatenate([user for user, _ in self._open]) if self._open else np.empty(0, dtype=np.int64)
        samples = [some for _, some in self._open]
        self._open = []
        self._closed.append(_Window(users, Labelled.joined(samples) if samples else None))

    def forget(self) -> None:
        """Scale the class histograms by `memory`, once a frame."""
        self.class_counts *= self.memory

    def last_window(self, user: int) -> Labelled | None:
        """Uploads of MU `user` in the last retraining window; None if there were none."""
        return self._closed[-1].of(user) if self._closed else None

    def history(self, user: int) -> Labelled | None:
        """All stored uploads of MU `user`; None if there are none."""
        kept = [samples for window in self._closed if (samples := window.of(user)) is not None]
        return Labelled.joined(kept) if kept else None

    def held_out(self, region: int) -> Labelled | None:
        """The newest held-out samples of `region`; None if there are none."""
        return self._held_out.get(region)

    def stored(self, region: int) -> np.ndarray:
        """Number of samples in the replay rings of `region`, by class; int64 [C]."""
        filled: np.ndarray = np.minimum(self._added, self.ring_capacity).reshape(-1, self.classes)[region]
        return filled

    def kept(self, region: int) -> Labelled:
        """All samples in the replay rings of `region`, by class; there must be at least one."""
        counts = self.stored(region)
        return self._taken(region, counts, [np.arange(count) for count in counts])

    def draw(self, region: int, counts: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Draw `counts` [C] stored samples of `region` by class, without repetition until a ring is exhausted."""
        places = []
        for wanted, filled in zip(counts.tolist(), self.stored(region).tolist(), strict=True):
            rounds = [rng.permutation(filled) for _ in range(-(-wanted // filled))] if wanted else [np.arange(0)]
            places.append(np.concatenate(rounds)[:wanted])
        return self._taken(region, counts, places)

    def _taken(self, region: int, counts: np.ndarray, places: list[np.ndarray]) -> Labelled:
        """The samples at `places` of the ring of each class of `region`, `counts` [C] of them; at least one."""
        assert self._rings is not None, "nothing was uploaded"
        labels = np.repeat(np.arange(self.classes), counts)
        chosen = (region * self.classes + labels) * self.ring_capacity + np.concatenate(places)
        device = self._rings.device
        return Labelled(self._rings[torch.from_numpy(chosen).to(device)], torch.from_numpy(labels).to(device))

    def _count(self, user: np.ndarray, region: np.ndarray, labels: np.ndarray) -> None:
        """Add uploads to the statistics, MU by MU: the order of a sum decides its last bits."""
        regions = len(self.uploads)
        pairs, which = np.unique(user * regions + region, return_inverse=True)
        counts = np.bincount(which * self.classes + labels, minlength=len(pairs) * self.classes)
        np.add.at(self.class_counts, pairs % regions, counts.reshape(len(pairs), self.classes))
        self.uploads += np.bincount(region, minlength=regions)

    def _add_to_rings(self, ring: np.ndarray, images: torch.Tensor) -> None:
        """Add each of `images` to its `ring` [n]; the newest replace the oldest."""
        capacity, rings = self.ring_capacity, len(self._added)
        if self._rings is None:
            self._rings = images.new_zeros((rings * capacity, *images.shape[1:]))
        order = np.argsort(ring, kind="stable")
        ring, counts = ring[order], np.bincount(ring, minlength=rings)
        place = np.arange(len(ring)) - np.repeat(np.cumsum(counts) - counts, counts)  # of each among its ring's
        newest = place >= counts[ring] - capacity
        target = ring * capacity + (self._added[ring] + place) % capacity
        device = images.device
        self._rings[torch.from_numpy(target[newest]).to(device)] = images[torch.from_numpy(order[newest]).to(device)]
        self._added += counts

    def _hold_out(self, region: np.ndarray, samples: Labelled) -> np.ndarray:
        """Store the held-out ones of `samples`; return which are not held out, bool [n]."""
        hashes = np.array([zlib.crc32(image) for image in samples.images.cpu().contiguous().numpy()])
        held = hashes < self.holdout_share * 2**32
        for where in np.unique(region[held]).tolist():
            kept = [self._held_out[where]] if where in self._held_out else []
            joined = Labelled.joined([*kept, _chosen(samples, held & (region == where))])
            newest = slice(-self.holdout_samples, None)
            self._held_out[where] = Labelled(joined.images[newest], joined.labels[newest])
        return ~held


def _chosen(samples: Labelled, which: np.ndarray) -> Labelled:
    mask = torch.from_numpy(which).to(samples.labels.device)
    return Labelled(samples.images[mask], samples.labels[mask])
