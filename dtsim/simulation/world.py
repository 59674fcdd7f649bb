"""The evaluated world: positions, links and captured images of the MUs, independent of the scheme's decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
import torch
from torch import Tensor

from dtsim.core.seeding import Streams
from dtsim.learning.data.drift import DriftPart, look
from dtsim.learning.data.splits import ClassIndex, Labelled, Splits
from dtsim.learning.data.stream import Captures, ImageStream
from dtsim.learning.data.view import Shown, View
from dtsim.learning.features import Features
from dtsim.physical.mobility import MobilityState
from dtsim.physical.network import Network, NetworkState
from dtsim.physical.traffic import ScheduledTraffic, Traffic


@dataclass(frozen=True)
class Slot:
    """One slot of the short timescale."""

    index: int
    """t, over the whole run."""
    in_frame: int
    """Slots since the start of the frame."""
    region: np.ndarray
    """Region of every MU; int64 [K]."""
    images: np.ndarray
    """Images that every MU captures; int64 [K]."""
    scored: np.ndarray
    """The first of them, which are inferred; int64 [K]."""
    captures: Captures
    """The captured images of all MUs."""


@dataclass(frozen=True)
class Uplinks:
    """The links of one slot."""

    position_m: Tensor
    """Positions of the MUs; [K, 2]."""
    rate_bps: Tensor
    """[M, K]"""
    snr_db: Tensor
    """[M, K]"""


@dataclass(frozen=True)
class Frame:
    """One frame of the large timescale."""

    index: int
    region: np.ndarray
    """Region of every MU, in the first slot where MUs move every slot; int64 [K]."""
    forecast_rate_bps: Tensor
    """Rate at the mean gain; [M, K]."""
    mean_gain: Tensor
    """[M, K]"""
    slots: list[Slot]
    links: Iterator[Uplinks]
    """The links of each slot, drawn as they are asked for: those of a big cell need much memory. They can be read once,
    before the next frame."""


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
        passes: bool = False,
        scored_images: int | None = None,
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
            passes: whether time passes between slots: then MUs move every slot, else between frames only.
            scored_images: most images of an MU in a slot that are inferred; None: all.
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
        self.passes = passes
        self.scored_images = scored_images
        self.schedule = schedule
        self.features = features
        self.class_distributions = drift.class_distributions(classes, streams.numpy("drift"))  # [R, C]
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
            if n and self.passes:
                state = self.network.moved(state, self._moved(state.mobility, motion), fading)
            elif n:
                state = self.network.next_frame(state, motion, fading)
            path = [state.mobility]
            while self.passes and len(path) < self.slots_per_frame:
                path.append(self._moved(path[-1], motion))
            regions = [self._region(n, mobility) for mobility in path]
            slots = [
                self._slot(n * self.slots_per_frame + i, i, regions[i if self.passes else 0], traffic)
                for i in range(self.slots_per_frame)
            ]
            last = [state]
            links = self._links(last, path, fading)
            yield Frame(
                index=n,
                region=regions[0],
                forecast_rate_bps=self.network.forecast_rate_bps(state),
                mean_gain=self.network.mean_gain(state),
                slots=slots,
                links=links,
            )
            deque(links, maxlen=0)  # what was not asked for; the next frame's fading follows it
            (state,) = last

    def scored(self, slots: Sequence[Slot], users: Sequence[int] | None = None) -> View:
        """The images that `users`, by default all, infer in `slots`, as transformed in their regions."""
        asked = np.ones(self.users, dtype=bool)
        if users is not None:
            asked = np.isin(np.arange(self.users), users)
        user, places, shown = [], [], []
        for slot in slots:
            of_slot = np.repeat(np.arange(self.users), slot.images)
            chosen = asked[of_slot]
            if self.scored_images is not None:
                within = np.arange(len(of_slot)) - slot.captures.first[of_slot]
                chosen &= within < self.scored_images
            user.append(of_slot[chosen])
            places.append(slot.captures.test[chosen])
            shown.append(self._look_of[slot.region[user[-1]]])
        return self._view(np.concatenate(user), np.concatenate(places), np.concatenate(shown))

    def served(self, slots: Sequence[Slot], user: np.ndarray, first: np.ndarray, last: np.ndarray) -> View:
        """Images `first` to `last` of what `user` captured in each of `slots`, as transformed in its region; [n] each.

        An image that is not scored is left out.
        """
        parts = []
        for slot, who, start, end in zip(slots, user.tolist(), first.tolist(), last.tolist(), strict=True):
            own = slot.captures.test[
                slot.captures.first[who] + start : slot.captures.first[who] + min(end, slot.scored[who])
            ]
            parts.append((who, own, self._look_of[slot.region[who]]))
        sizes = [len(own) for _, own, _ in parts]
        who, looks = (np.array([part[place] for part in parts], dtype=np.int64) for place in (0, 2))
        places = np.concatenate([own for _, own, _ in parts] or [np.zeros(0, dtype=np.int64)])
        return self._view(np.repeat(who, sizes), places, np.repeat(looks, sizes))

    def _view(self, user: np.ndarray, places: np.ndarray, look: np.ndarray) -> View:
        """Images of the test split; [n] each."""
        seen = partial(self._seen, self.splits.test)
        return View(user=user, places=places, look=look, size=len(self.splits.test), seen=seen)

    def collected(self, slot: Slot, counts: np.ndarray) -> Iterator[tuple[np.ndarray, Shown, np.ndarray]]:
        """The first `counts` [K] images that the MUs can upload from `slot`, as transformed in their regions.

        Yields:
            For MUs whose images look alike: the MU of each image [n], the set that the images are from, and their
            places in it [n]; MU by MU.
        """
        user = np.repeat(np.arange(self.users), counts)
        within = np.arange(len(user)) - np.repeat(np.cumsum(counts) - counts, counts)
        places = slot.captures.increment[slot.captures.first[user] + within]
        looks = self._look_of[slot.region[user]]
        for shown in np.unique(looks).tolist():
            yield user[looks == shown], self._increments[shown], places[looks == shown]

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

    @cached_property
    def _increments(self) -> dict[int, Shown]:
        """The increment split in each look."""
        data = self.splits.increment
        return {look: Shown(data, partial(self._seen, data, region=look)) for look in np.unique(self._look_of).tolist()}

    @cached_property
    def _look_of(self) -> np.ndarray:
        """The look of images in every region; int64 [R]."""
        regions = range(len(self.class_distributions))
        return np.array([look(self.drift, region, self.splits.test.images) for region in regions])

    def _seen(self, data: Labelled, places: np.ndarray, region: int) -> Labelled:
        if self.features is not None:
            return Labelled(self.features.of(data, region), data.labels).at(places)
        seen = data.at(places)
        return Labelled(self.drift.transform(region, seen.images), seen.labels)

    def _slot(self, index: int, in_frame: int, region: np.ndarray, traffic: torch.Generator) -> Slot:
        if isinstance(self.traffic, ScheduledTraffic):
            images = self.traffic.scheduled(index, self.users)
        else:
            images = self.traffic.draw((self.users,), traffic, self.network.device).cpu().numpy()
        captures = self._stream.draw(region, images, self.streams, index)
        scored = images if self.scored_images is None else np.minimum(images, self.scored_images)
        return Slot(index, in_frame, region, images, scored, captures)

    def _moved(self, mobility: MobilityState, motion: torch.Generator) -> MobilityState:
        """Users one slot later."""
        network = self.network
        return network.mobility.advance(mobility, network.slot_s, network.topology.area_m, motion)

    def _region(self, frame: int, mobility: MobilityState) -> np.ndarray:
        """Region of every MU; int64 [K]."""
        if self.schedule is not None:  # positions still determine the links
            return np.asarray(self.schedule[frame])
        region: np.ndarray = self.drift.region(mobility.position_m, self.network.topology.area_m).cpu().numpy()
        return region

    def _links(
        self, last: list[NetworkState], path: Sequence[MobilityState], fading: torch.Generator
    ) -> Iterator[Uplinks]:
        """The links of a frame's slots, in which users are along `path`; `last` holds the state that was given last."""
        for i in range(self.slots_per_frame):
            if i and self.passes:
                last[0] = self.network.moved(last[0], path[i], fading)
            elif i:
                last[0] = self.network.next_slot(last[0], fading)
            state = last[0]
            yield Uplinks(state.position_m, self.network.rate_bps(state), self.network.snr_db(state))
