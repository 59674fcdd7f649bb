"""The store of the digital twin: statistics and samples of bounded size, all uploaded by MUs."""

from __future__ import annotations

import zlib
from collections import deque
from typing import NamedTuple, Protocol

import numpy as np
from torch import Tensor

from dtsim.learning.data.splits import Labelled


class Source(Protocol):
    """A set of images that MUs upload from; `Labelled` is one."""

    @property
    def labels(self) -> Tensor:
        """Labels of all its images; int64 [N]."""

    def at(self, places: np.ndarray) -> Labelled:
        """Its images at `places` [n]."""


class _Samples(NamedTuple):
    """Samples by reference: an image that many MUs upload is held once. Arrays are [n]."""

    source: np.ndarray
    """Number of the source; int32."""
    place: np.ndarray
    """Place in the source; int32."""

    def at(self, chosen: np.ndarray | slice) -> _Samples:
        return _Samples(self.source[chosen], self.place[chosen])

    @staticmethod
    def joined(parts: list[_Samples]) -> _Samples:
        empty = np.empty(0, dtype=np.int32)
        sources, places = ([empty, *(part[field] for part in parts)] for field in (0, 1))
        return _Samples(np.concatenate(sources), np.concatenate(places))


class _Window:
    """What all MUs uploaded in one retraining window."""

    def __init__(self, uploads: list[tuple[np.ndarray, _Samples]]) -> None:
        """Sort `uploads`, each the MUs [n] of its samples [n], by MU."""
        users = np.concatenate([np.empty(0, dtype=np.int32), *(user for user, _ in uploads)])
        order = np.argsort(users, kind="stable")
        self._users = users[order]
        self._samples = _Samples.joined([samples for _, samples in uploads]).at(order)

    def of(self, user: int) -> _Samples:
        """Uploads of MU `user`, the oldest first."""
        first, end = np.searchsorted(self._users, [user, user + 1])
        return self._samples.at(slice(first, end))


class Store:
    """The twin's memory of uploads.

    It has three bounded parts: per region and class a ring of the newest samples, pooled over MUs (the replay source);
    per region a class histogram with exponential forgetting; per MU the samples of the last `windows` retraining
    windows. If a share is held out, there is a fourth: per region the newest held-out samples, which are in no ring or
    window. A hash of its bytes decides whether a sample is held out, so no copy of it is ever trained on.

    The images themselves stay in the sets that they were uploaded from.
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
        self.class_counts = np.zeros((regions, classes))  # [R, C]
        self.uploads = np.zeros(regions, dtype=np.int64)
        """Number of samples uploaded from each region so far; [R]."""
        self.holdout_share = holdout_share
        self.holdout_samples = holdout_samples
        self._sources: list[Source] = []
        self._labels: list[np.ndarray] = []  # of each source, on the host
        self._number: dict[int, int] = {}  # of each source, by its id
        rings = regions * classes
        self._rings = _Samples(*np.zeros((2, rings * self.ring_capacity), dtype=np.int32))
        self._added = np.zeros(rings, dtype=np.int64)  # samples that each ring has taken so far
        self._held_out: dict[int, _Samples] = {}
        self._open: list[tuple[np.ndarray, _Samples]] = []
        self._closed: deque[_Window] = deque(maxlen=windows)

    def upload(
        self, user: int | np.ndarray, region: int | np.ndarray, source: Source, places: np.ndarray | None = None
    ) -> None:
        """Store the samples that MUs uploaded in a slot.

        Args:
            user: the MU of each sample [n], or of all of them; each MU's samples are in the order of their capture.
            region: the region of each sample [n], or of all of them.
            source: the set that the samples are from.
            places: where they are in `source` [n]; by default all of it.
        """
        number = self._known(source)
        if places is None:
            places = np.arange(len(source.labels))
        if not len(places):
            return
        users = np.broadcast_to(np.asarray(user, dtype=np.int32), len(places))
        regions = np.broadcast_to(region, len(places))
        labels = self._labels[number][places]
        samples = _Samples(np.full(len(places), number, dtype=np.int32), places.astype(np.int32))
        self._count(users, regions, labels)
        if self.holdout_share:
            kept = self._hold_out(regions, samples)
            users, regions, labels, samples = users[kept], regions[kept], labels[kept], samples.at(kept)
        self._open.append((users, samples))
        self._add_to_rings(regions * self.classes + labels, samples)

    def close_window(self) -> None:
        """End the retraining window: its uploads become the data of the next decision."""
        self._closed.append(_Window(self._open))
        self._open = []

    def forget(self) -> None:
        """Scale the class histograms by `memory`, once a frame."""
        self.class_counts *= self.memory

    def last_window(self, user: int) -> Labelled | None:
        """Uploads of MU `user` in the last retraining window; None if there were none."""
        return self._images(self._closed[-1].of(user)) if self._closed else None

    def history(self, user: int) -> Labelled | None:
        """All stored uploads of MU `user`; None if there are none."""
        return self._images(_Samples.joined([window.of(user) for window in self._closed]))

    def held_out(self, region: int) -> Labelled | None:
        """The newest held-out samples of `region`; None if there are none."""
        return self._images(self._held_out[region]) if region in self._held_out else None

    def stored(self, region: int) -> np.ndarray:
        """Number of samples in the replay rings of `region`, by class; int64 [C]."""
        filled: np.ndarray = np.minimum(self._added, self.ring_capacity).reshape(-1, self.classes)[region]
        return filled

    def kept(self, region: int) -> Labelled:
        """All samples in the replay rings of `region`, by class; there must be at least one."""
        return self._in_rings(region, [np.arange(count) for count in self.stored(region)])

    def draw(self, region: int, counts: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Draw `counts` [C] stored samples of `region` by class, without repetition until a ring is exhausted."""
        places = []
        for wanted, filled in zip(counts.tolist(), self.stored(region).tolist(), strict=True):
            rounds = [rng.permutation(filled) for _ in range(-(-wanted // filled))] if wanted else [np.arange(0)]
            places.append(np.concatenate(rounds)[:wanted])
        return self._in_rings(region, places)

    def _in_rings(self, region: int, places: list[np.ndarray]) -> Labelled:
        """The samples at `places` of the ring of each class of `region`; at least one."""
        ring = region * self.classes + np.repeat(np.arange(self.classes), [len(own) for own in places])
        samples = self._images(self._rings.at(ring * self.ring_capacity + np.concatenate(places)))
        assert samples is not None, "nothing was asked for"
        return samples

    def _images(self, samples: _Samples) -> Labelled | None:
        """The images and labels of `samples`; None if there are none."""
        numbers = np.unique(samples.source).tolist()
        if len(numbers) <= 1:
            return self._sources[numbers[0]].at(samples.place) if numbers else None
        parts = [np.flatnonzero(samples.source == number) for number in numbers]
        each = [self._sources[n].at(samples.place[part]) for n, part in zip(numbers, parts, strict=True)]
        return Labelled.joined(each).at(np.argsort(np.concatenate(parts)))

    def _known(self, source: Source) -> int:
        """The number of `source`, which the store keeps from now on."""
        if id(source) not in self._number:
            self._number[id(source)] = len(self._sources)
            self._sources.append(source)
            self._labels.append(source.labels.cpu().numpy())
        return self._number[id(source)]

    def _count(self, user: np.ndarray, region: np.ndarray, labels: np.ndarray) -> None:
        """Add uploads to the statistics, MU by MU: the order of a sum decides its last bits."""
        regions = len(self.uploads)
        pairs, which = np.unique(user.astype(np.int64) * regions + region, return_inverse=True)
        counts = np.bincount(which * self.classes + labels, minlength=len(pairs) * self.classes)
        np.add.at(self.class_counts, pairs % regions, counts.reshape(len(pairs), self.classes))
        self.uploads += np.bincount(region, minlength=regions)

    def _add_to_rings(self, ring: np.ndarray, samples: _Samples) -> None:
        """Add each of `samples` to its `ring` [n]; the newest replace the oldest."""
        capacity = self.ring_capacity
        order = np.argsort(ring, kind="stable")
        ring, counts = ring[order], np.bincount(ring, minlength=len(self._added))
        place = np.arange(len(ring)) - np.repeat(np.cumsum(counts) - counts, counts)  # of each among its ring's
        newest = place >= counts[ring] - capacity
        target = (ring * capacity + (self._added[ring] + place) % capacity)[newest]
        for kept, added in zip(self._rings, samples.at(order[newest]), strict=True):
            kept[target] = added
        self._added += counts

    def _hold_out(self, region: np.ndarray, samples: _Samples) -> np.ndarray:
        """Store the held-out ones of `samples`; return which are not held out, bool [n]."""
        shown = self._images(samples)
        assert shown is not None, "nothing was uploaded"
        hashes = np.array([zlib.crc32(image) for image in shown.images.cpu().contiguous().numpy()])
        held = hashes < self.holdout_share * 2**32
        for where in np.unique(region[held]).tolist():
            kept = [self._held_out[where]] if where in self._held_out else []
            joined = _Samples.joined([*kept, samples.at(held & (region == where))])
            self._held_out[where] = joined.at(slice(-self.holdout_samples, None))
        return ~held
