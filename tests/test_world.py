"""The evaluated world: what changes from slot to slot and from frame to frame, and which images each MU sees."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import torch

from dtsim.core.seeding import Streams
from dtsim.physical.mobility import RandomWaypoint
from dtsim.simulation.world import World
from tests.small_world import AWAY, CLASSES, HOME, SCHEDULE, SLOTS, UNSEEN, USERS, numbers, split_of, world


def moving() -> World:
    """The small world with MUs that walk, in regions that their positions say."""
    still = world(schedule=None)
    still.network = replace(still.network, mobility=RandomWaypoint())
    return still


def test_fading_moves_on_in_every_slot_and_positions_in_every_frame() -> None:
    place = moving()
    both = [(frame, list(frame.links)) for frame in place.frames(2)]
    (first, _), (second, _) = both
    for frame, (one, two) in both:
        assert (one.rate_bps != two.rate_bps).all()
        assert (frame.forecast_rate_bps != one.rate_bps).all()
    assert (both[0][1][0].position_m != both[1][1][0].position_m).any()
    assert (first.forecast_rate_bps != second.forecast_rate_bps).any()
    assert [slot.index for frame in (first, second) for slot in frame.slots] == [0, 1, 2, 3]
    assert [slot.in_frame for frame in (first, second) for slot in frame.slots] == [0, 1, 0, 1]
    again = [list(frame.links) for frame in place.frames(2)]
    assert torch.equal(again[1][1].rate_bps, both[1][1][1].rate_bps)


def test_links_that_nobody_asked_for_change_nothing_later() -> None:
    def last(read: int) -> torch.Tensor:
        """The links of the third frame's last slot where `read` slots' links of the frames before were read."""
        *_, links = (list(islice(frame.links, SLOTS if frame.index == 2 else read)) for frame in moving().frames(3))
        return links[-1].rate_bps

    assert torch.equal(last(SLOTS), last(1)) and torch.equal(last(SLOTS), last(0))


def test_the_forecast_is_the_rate_at_the_mean_gain() -> None:
    frame = next(moving().frames(1))
    channel = moving().network.channel
    assert torch.equal(frame.forecast_rate_bps, channel.rate_bps(frame.mean_gain))
    first = next(frame.links)
    snr = 10 ** (first.snr_db / 10)
    torch.testing.assert_close(first.rate_bps, 20e6 * torch.log2(1 + snr))  # eq. (2) at 20 MHz


def test_regions_are_those_of_the_schedule_or_of_the_positions() -> None:
    for frame, regions in zip(world().frames(len(SCHEDULE)), SCHEDULE, strict=True):
        assert frame.region.tolist() == regions.tolist()
        assert all(slot.region.tolist() == regions.tolist() for slot in frame.slots)
    place = moving()
    x0, _, x1, _ = place.network.topology.area_m
    for frame in place.frames(6):
        (*_, links) = frame.links
        east = links.position_m[:, 0] >= (x0 + x1) / 2
        assert frame.region.tolist() == east.long().tolist()


def test_each_mu_and_slot_has_images_of_its_own_from_its_regions_classes() -> None:
    place = world()
    frames = list(place.frames(len(SCHEDULE)))
    captures = [capture for frame in frames for slot in frame.slots for capture in slot.captures]
    assert len({tuple(capture.test.tolist()) for capture in captures}) == len(captures) == USERS * SLOTS * len(frames)
    by_region: dict[int, list[np.ndarray]] = {HOME: [], AWAY: []}
    for frame in frames:
        for slot in frame.slots:
            for user, capture in enumerate(slot.captures):
                assert len(capture.labels) == slot.images[user]
                by_region[int(slot.region[user])].append(capture.labels)
    home, away = (np.bincount(np.concatenate(by_region[region]), minlength=CLASSES) for region in (HOME, AWAY))
    assert home[UNSEEN] == 0
    assert 0.3 < away[UNSEEN] / away.sum() < 0.7


def test_what_is_scored_and_what_is_collected_are_the_captures_images() -> None:
    place = world()
    (frame,) = place.frames(1)
    counts = np.array([4, 0, 7])
    for slots in (frame.slots[1:], frame.slots):
        view = place.scored(slots)
        scored = view.seen(view.places, HOME)
        captures = [capture for slot in slots for capture in slot.captures]
        assert (split_of(scored), numbers(scored)) == ({"test"}, np.concatenate([c.test for c in captures]).tolist())
        assert scored.labels.tolist() == np.concatenate([capture.labels for capture in captures]).tolist()
        assert view.user.tolist() == np.repeat([0, 1, 2] * len(slots), [len(c.test) for c in captures]).tolist()
    last = place.scored(frame.slots, [2])
    assert last.places.tolist() == np.concatenate([slot.captures[2].test for slot in frame.slots]).tolist()
    assert set(last.user.tolist()) == {2}
    captures = list(frame.slots[1].captures)
    ((user, source, at),) = place.collected(frame.slots[1], counts)
    collected = source.at(at)
    assert user.tolist() == [0] * 4 + [2] * 7
    places = [*captures[0].increment[:4], *captures[2].increment[:7]]
    assert (split_of(collected), numbers(collected)) == ({"increment"}, places)
    assert collected.labels.tolist() == [*captures[0].labels[:4], *captures[2].labels[:7]]
    assert not list(place.collected(frame.slots[1], np.zeros(USERS, dtype=np.int64)))


def test_images_are_shown_as_the_region_shows_them() -> None:
    place = world(brightness=0.5)
    (frame,) = place.frames(1)
    slot = frame.slots[0]
    view = place.scored([slot])
    groups = list(place.collected(slot, slot.images))
    collected = {mu: shown.at(at[who == mu]) for who, shown, at in groups for mu in set(who.tolist())}
    for user, region in enumerate(SCHEDULE[0].tolist()):
        (look,) = set(view.look[view.user == user].tolist())
        scored = view.seen(view.places[view.user == user], look).images
        own = collected[user].images
        for split, shown in (("test", scored), ("increment", own)):
            plain = getattr(place.splits, split).images[torch.from_numpy(getattr(slot.captures[user], split))]
            assert torch.equal(shown, place.drift.transform(region, plain))
            assert torch.equal(shown, plain) == (region == HOME)


def test_regions_where_images_look_the_same_share_a_look_and_others_do_not() -> None:
    """What a model said of an image is remembered by its look, so two looks must not be taken for one."""

    def looks(place: World) -> list[object]:
        (frame,) = place.frames(1)
        view = place.scored(frame.slots[:1])
        return [view.look[view.user == user][0] for user in range(USERS)]

    regions = SCHEDULE[0].tolist()
    assert len(set(regions)) == 2
    assert len(set(looks(world()))) == 1  # label shift alone
    brighter = looks(world(brightness=0.5))
    assert brighter == [brighter[regions.index(region)] for region in regions]
    assert len(set(brighter)) == 2


def test_probes_are_of_the_test_split_in_the_regions_proportions() -> None:
    home, away = world().held_out(20)
    for probe, counts in ((home, [10, 10, 0]), (away, [5, 5, 10])):
        assert split_of(probe) == {"test"}
        assert probe.class_counts(CLASSES).tolist() == counts


def test_fresh_images_are_increments_of_the_labels_asked_for() -> None:
    fresh = world().fresh(AWAY, np.array([2, 0, 2]), Streams(0).numpy("test"))
    assert split_of(fresh) == {"increment"}
    assert fresh.labels.tolist() == [2, 0, 2]
