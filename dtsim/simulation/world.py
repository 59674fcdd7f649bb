"""The evaluated world: positions, links and captured images of the MUs, independent of the scheme's decisions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from dtsim.core.seeding import Streams
from dtsim.learning.data.drift import DriftPart, look
from dtsim.learning.data.splits import ClassIndex, Labelled, Splits
from dtsim.learning.data.stream import Capture, ImageStream
from dtsim.learning.data.view import View
from dtsim.learning.features import Features
from dtsim.physical.network import Network
from dtsim.physical.traffic import Traffic


@dataclass(frozen=True)
class Slot:
    """One slot of the short timescale."""

    index: int
    """t, over the whole run."""
    in_frame: int
    """Slots since the start of the frame."""
    region: np.ndarray
    """Region of every MU; int64 [K]."""
    rate_bps: Tensor
    """[M, K]"""
    snr_db: Tensor
    """[M, K]"""
    images: np.ndarray
    """Images that every MU captures; int64 [K]."""
    captures: list[Capture]
    """The captured images of each MU."""


@dataclass(frozen=True)
class Frame:
    """One frame of the large timescale with all of its slots."""

    index: int
    position_m: Tensor
    """[K, 2]"""
    region: np.ndarray
    """Region of every MU; int64 [K]."""
    forecast_rate_bps: Tensor
    """Rate at the mean gain; [M, K]."""
    mean_gain: Tensor
    """[M, K]"""
    slots: list[Slot]


class World:
    """All events of the MUs, drawn from streams named by purpose: equal seeds give equal worlds."""

    def __init__(
        self,
        *,
        network: Network,
        traffic: Traffic,
        drift: DriftPart,
        splits: Splits,
        classes: int,
        users: int,
        slots_per_frame: int,
        streams: Streams,
        schedule: np.ndarray | None = None,
        features: Features | None = None,
    ) -> None:
        """Set up a world; nothing is drawn before `frames`.

        Args:
            network: topology, mobility and channel.
            traffic: number of images that an MU captures in a slot.
            drift: regions and their data.
            splits: the images, on the network's device.
            classes: number of classes C.
            users: number of MUs K.
            slots_per_frame: τ.
            streams: the run's random streams.
            features: the models' inputs instead of images, if only heads are trained; None: images.
            schedule: the region of every MU in every frame, [N, K]; None: the region of its position.
        """
        self.network = network
        self.traffic = traffic
        self.drift = drift
        self.splits = splits
        self.users = users
        self.slots_per_frame = slots_per_frame
        self.streams = streams
        self.schedule = schedule
        self.features = features
        self.class_distributions = drift.class_distributions(classes, streams.numpy("drift"))  # [R, C]
        self._looks: dict[int, int] = {}
        self._increment = ClassIndex(splits.increment.labels, classes)
        self._stream = ImageStream(
            self.class_distributions,
            ClassIndex(splits.test.labels, classes),
            self._increment,
        )

    @property
    def station_flops(self) -> Tensor:
        """F_m in FLOP/s; [M]."""
        return self.network.topology.station_flops.to(device=self.network.device, dtype=self.network.dtype)

    @property
    def mu_flops(self) -> float:
        """f^loc in FLOP/s."""
        return self.network.topology.mu_flops

    @property
    def downlink_s(self) -> float:
        """D^down / R^down in s."""
        return self.network.channel.downlink_s

    def frames(self, count: int) -> Iterator[Frame]:
        """The world's first `count` frames; every call gives the same ones."""
        device = self.network.device
        motion, fading, traffic = (self.streams.torch(name, device=device) for name in ("motion", "fading", "traffic"))
        state = self.network.start((), self.users, motion, fading)
        for n in range(count):
            if n:
                state = self.network.next_frame(state, motion, fading)
            if self.schedule is None:
                region = self.drift.region(state.position_m, self.network.topology.area_m).cpu().numpy()
            else:  # positions still determine the links
                region = self.schedule[n]
            slots = []
            for i in range(self.slots_per_frame):
                if i:
                    state = self.network.next_slot(state, fading)
                images = self.traffic.draw((self.users,), traffic, device).cpu().numpy()
                slots.append(
                    self._slot(
                        n * self.slots_per_frame + i,
                        i,
                        region,
                        images,
                        self.network.rate_bps(state),
                        self.network.snr_db(state),
                    )
                )
            yield Frame(
                index=n,
                position_m=state.position_m,
                region=region,
                forecast_rate_bps=self.network.forecast_rate_bps(state),
                mean_gain=self.network.mean_gain(state),
                slots=slots,
            )

    def scored(self, slot: Slot, user: int) -> View:
        """The images that MU `user` infers in `slot`, as transformed in its region."""
        test, region = self.splits.test, int(slot.region[user])
        if region not in self._looks:
            self._looks[region] = look(self.drift, region, test.images)
        return View(slot.captures[user].test, len(test), self._looks[region], partial(self._seen, test, region=region))

    def collected(self, slot: Slot, user: int, count: int) -> Labelled:
        """The first `count` images that MU `user` can upload from `slot`, as transformed in its region."""
        return self._seen(self.splits.increment, slot.captures[user].increment[:count], int(slot.region[user]))

    def held_out(self, images: int) -> list[Labelled]:
        """For every region, `images` images of the test split in its class proportions, as transformed there."""
        quantiles = (np.arange(images) + 0.5) / max(1, images)
        sets = []
        for region, shares in enumerate(self.class_distributions):
            # Evenly spaced instead of drawn: a small random sample would deviate from the class distribution.
            labels = np.searchsorted(np.cumsum(shares)[:-1], quantiles, side="right")
            places = self._stream.test.draw(labels, self.streams.numpy("probe", region))
            sets.append(self._seen(self.splits.test, places, region))
        return sets

    def fresh(self, region: int, labels: np.ndarray, rng: np.random.Generator) -> Labelled:
        """Images of `labels` [n] that MUs could upload, as transformed in `region`, whether uploaded or not."""
        return self._seen(self.splits.increment, self._increment.draw(labels, rng), region)

    def _seen(self, data: Labelled, places: np.ndarray, region: int) -> Labelled:
        chosen = torch.from_numpy(places).to(data.images.device)
        if self.features is not None:
            return Labelled(self.features.of(data, region)[chosen], data.labels[chosen])
        return Labelled(self.drift.transform(region, data.images[chosen]), data.labels[chosen])

    def _slot(
        self,
        index: int,
        in_frame: int,
        region: np.ndarray,
        images: np.ndarray,
        rate_bps: Tensor,
        snr_db: Tensor,
    ) -> Slot:
        captures = [
            self._stream.draw(int(region[user]), count, self.streams.numpy("images", index, user))
            for user, count in enumerate(images.tolist())
        ]
        return Slot(index, in_frame, region, rate_bps, snr_db, images, captures)
