from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from dtsim.core.parts import ConfigError, build
from dtsim.physical.mobility import GaussMarkov, GaussMarkovState, RandomWaypoint, Static, WaypointState
from tests.composed import node

AREA = (100.0, -50.0, 200.0, 10.0)
CORNER, SIZE = torch.tensor([100.0, -50.0]).double(), torch.tensor([100.0, 60.0]).double()
MODELS = {"static": Static, "random_waypoint": RandomWaypoint, "gauss_markov": GaussMarkov}
MANY = 20_000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def walk(model: Any, seed: int, *, users: int = MANY, seconds: float = 0.0) -> Any:
    generator = seeded(seed)
    state = model.start((users,), AREA, generator, torch.float64, "cpu")
    return model.advance(state, seconds, AREA, generator) if seconds else state


def spread(state: Any) -> list[float]:
    """Variance of x and y in units of the area; 1/12 where uniform."""
    variance: list[float] = ((state.position_m - CORNER) / SIZE).var(0).tolist()
    return variance


@pytest.mark.parametrize("name", MODELS)
def test_yaml_holds_every_key_at_its_default(name: str) -> None:
    keys = node("mobility", name)
    assert build(keys, "mobility") == MODELS[name]()
    assert {field.name for field in fields(MODELS[name])} == keys.keys() - {"_target_"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", MODELS)
def test_shapes_precision_area_and_repeatability(name: str, dtype: torch.dtype) -> None:
    model = MODELS[name]()

    def run() -> list[Any]:
        generator = seeded(5)
        states = [model.start((4, 3, 50), AREA, generator, dtype, "cpu")]
        states += [model.advance(states[-1], dt_s, AREA, generator) for dt_s in (0.3, 7.0, 500.0)]
        return states

    for state, again in zip(run(), run(), strict=True):
        assert state.position_m.shape == (4, 3, 50, 2)
        assert state.speed_mps.shape == (4, 3, 50)
        assert state.position_m.dtype == state.speed_mps.dtype == dtype
        assert torch.equal(state.position_m, again.position_m)
        x, y = state.position_m.unbind(-1)
        assert x.min() >= 100
        assert x.max() <= 200
        assert y.min() >= -50
        assert y.max() <= 10
        assert state.speed_mps.min() >= 0


@pytest.mark.parametrize("name", MODELS)
def test_advance_leaves_the_given_state_as_it_was(name: str) -> None:
    model = MODELS[name]()
    state = walk(model, 1, users=30)
    before = {field.name: getattr(state, field.name).clone() for field in fields(state)}
    model.advance(state, 60.0, AREA, seeded(2))
    assert all(torch.equal(getattr(state, key), value) for key, value in before.items())


def test_static_users_stay_and_draw_nothing() -> None:
    state, generator = walk(Static(), 1), seeded(2)
    before = generator.get_state()
    assert torch.equal(Static().advance(state, 1e6, AREA, generator).position_m, state.position_m)
    assert torch.equal(generator.get_state(), before)
    assert spread(state) == pytest.approx([1 / 12] * 2, abs=0.003)


# Random waypoint


def waypoint_statistics(state: WaypointState) -> dict[str, float]:
    moving = state.speed_mps > 0
    x, y = spread(state)
    way_left = torch.linalg.vector_norm(state.target_m - state.position_m, dim=-1)
    return {
        "variance of x": x,
        "variance of y": y,
        "share pausing": 1 - moving.double().mean().item(),
        "speed under way": state.speed_mps[moving].mean().item(),
        "way left": way_left[moving].mean().item() / 100,
        "pause left": state.pause_s[~moving].mean().item() / 40,
    }


def test_random_waypoint_starts_from_the_law_that_it_converges_to() -> None:
    """The long run starts from uniform points and fair trips: it knows nothing of the stationary sampler."""
    model, generator = RandomWaypoint(pause_max_s=40.0), seeded(11)
    naive = WaypointState(
        position_m=CORNER + SIZE * torch.rand(MANY, 2, generator=generator).double(),
        target_m=CORNER + SIZE * torch.rand(MANY, 2, generator=generator).double(),
        trip_mps=0.5 + 2.5 * torch.rand(MANY, generator=generator).double(),
        speed_mps=torch.zeros(MANY).double(),
        pause_s=torch.zeros(MANY).double(),
    )
    naive = replace(naive, speed_mps=naive.trip_mps)
    reached = waypoint_statistics(model.advance(naive, 3000.0, AREA, generator))
    started = waypoint_statistics(walk(model, 12))
    # Four to six standard errors of a difference; a fair start is out by several times as much.
    tolerance = {"variance of x": 0.004, "variance of y": 0.004}
    for key, value in started.items():
        assert value == pytest.approx(reached[key], abs=tolerance.get(key, 0.03)), key
    fair = waypoint_statistics(naive)
    assert abs(fair["variance of x"] - started["variance of x"]) > 0.015
    assert fair["speed under way"] - started["speed under way"] > 0.2


def test_random_waypoint_does_not_drift_from_its_start() -> None:
    model = RandomWaypoint()
    started, later = waypoint_statistics(walk(model, 21)), waypoint_statistics(walk(model, 22, seconds=25.0))
    for key in ("variance of x", "variance of y"):
        assert later[key] == pytest.approx(started[key], abs=0.004)
    for key in ("share pausing", "speed under way", "way left"):
        assert later[key] == pytest.approx(started[key], abs=0.03)


def test_stationary_speed_and_pause_have_their_closed_forms() -> None:
    model = RandomWaypoint(speed_min_mps=0.5, speed_max_mps=3.0, pause_max_s=40.0)
    state = walk(model, 31)
    moving = state.speed_mps > 0
    slowness = math.log(6) / 2.5  # E[1/v] of a fair trip; under way E[v] is its inverse
    assert state.speed_mps[moving].mean().item() == pytest.approx(1 / slowness, abs=0.03)
    assert state.pause_s[~moving].mean().item() == pytest.approx(40 / 3, abs=0.7)
    first, second = CORNER + SIZE * torch.rand(2, 400_000, 2, generator=seeded(1)).double()
    mean_trip_s = (first - second).norm(dim=-1).mean().item() * slowness
    assert model.pause_probability(AREA) == pytest.approx(20 / (20 + mean_trip_s), rel=0.005)
    assert (~moving).double().mean().item() == pytest.approx(model.pause_probability(AREA), abs=0.018)


def test_mean_trip_of_the_unit_square_is_the_known_constant() -> None:
    model = RandomWaypoint(speed_min_mps=1.0, speed_max_mps=1.0, pause_max_s=2.0)
    known = (2 + math.sqrt(2) + 5 * math.asinh(1)) / 15  # 0.5214
    assert model.pause_probability((0.0, 0.0, 1.0, 1.0)) == pytest.approx(1 / (1 + known))


def one_user(position: tuple[float, float], target: tuple[float, float], speed: float, pause: float) -> WaypointState:
    return WaypointState(
        position_m=torch.tensor([position]).double(),
        target_m=torch.tensor([target]).double(),
        trip_mps=torch.tensor([speed]).double(),
        speed_mps=torch.tensor([0.0 if pause else speed]).double(),
        pause_s=torch.tensor([pause]).double(),
    )


@pytest.mark.parametrize(
    ("dt_s", "where", "speed", "pause_left"),
    [
        (1.0, (110.0, 0.0), 0.0, 2.0),  # pausing
        (3.0, (110.0, 0.0), 2.0, 0.0),  # sets out
        (8.0, (116.0, -8.0), 2.0, 0.0),  # 5 s at 2 m/s towards (128, -24), 30 m away
    ],
)
def test_a_walk_by_hand(dt_s: float, where: tuple[float, float], speed: float, pause_left: float) -> None:
    state = RandomWaypoint().advance(one_user((110, 0), (128, -24), 2.0, 3.0), dt_s, AREA, seeded(0))
    assert state.position_m[0].tolist() == pytest.approx(where)
    assert state.speed_mps.item() == speed
    assert state.pause_s.item() == pytest.approx(pause_left)


def test_several_waypoints_within_one_step_agree_with_a_walk_leg_by_leg() -> None:
    """One user in plain Python from the same draws: 20 or so trips in one call of advance."""
    model, dt_s = RandomWaypoint(), 1000.0
    state = one_user((110, 0), (128, -24), 2.0, 3.0)
    reached = model.advance(state, dt_s, AREA, seeded(7))

    generator, left, legs = seeded(7), dt_s, 0
    (x, y), (to_x, to_y), speed, pause = (110.0, 0.0), (128.0, -24.0), 2.0, 3.0
    while True:
        trip = math.hypot(to_x - x, to_y - y) / speed
        if pause + trip > left:
            break
        left, legs = left - pause - trip, legs + 1
        u, v = torch.rand(2, 1, generator=generator, dtype=torch.float64).flatten().tolist()
        x, y = to_x, to_y
        to_x, to_y = (CORNER + SIZE * torch.rand(2, generator=generator, dtype=torch.float64)).tolist()
        speed, pause = 0.5 + 2.5 * u, 10 * v
    share = max(0.0, left - pause) / trip
    assert legs > 5
    assert reached.target_m[0].tolist() == pytest.approx([to_x, to_y])
    assert reached.position_m[0].tolist() == pytest.approx([x + share * (to_x - x), y + share * (to_y - y)])


def test_nobody_walks_faster_than_the_highest_speed() -> None:
    model = RandomWaypoint()
    before = walk(model, 41)
    after = model.advance(before, 60.0, AREA, seeded(42))
    moved = torch.linalg.vector_norm(after.position_m - before.position_m, dim=-1)
    assert moved.max() <= 3 * 60
    assert moved.mean() > 20
    assert after.trip_mps.min() >= 0.5
    assert after.trip_mps.max() <= 3


# Gauss-Markov


def straight(x: float, y: float, heading: float) -> GaussMarkovState:
    return GaussMarkovState(
        position_m=torch.tensor([[x, y]]).double(),
        speed_mps=torch.tensor([2.0]).double(),
        unfolded_m=torch.tensor([[x, y]]).double() - CORNER,
        mean_heading_rad=torch.tensor([heading], dtype=torch.float64),
        heading_deviation_rad=torch.zeros(1).double(),
        speed_deviation_mps=torch.zeros(1).double(),
    )


@pytest.mark.parametrize(
    ("start", "heading", "dt_s", "end"),
    [
        ((195.0, 0.0), 0.0, 2.0, (199.0, 0.0)),
        ((195.0, 0.0), 0.0, 6.5, (192.0, 0.0)),  # 13 m, 5 of them to the right border
        ((195.0, 0.0), 0.0, 55.0, (105.0, 0.0)),  # 110 m: 5 to the right border, 100 to the left one, 5 back
        ((102.0, 0.0), math.pi, 2.0, (102.0, 0.0)),  # the left border and back
        ((150.0, 0.0), math.pi / 2, 8.0, (150.0, 4.0)),  # 16 m, 10 of them to the upper border
        ((197.0, 6.0), math.atan2(4, 3), 5.0, (197.0, 6.0)),  # both borders: +6 m folds to 0, +8 m folds to 0
    ],
)
def test_borders_reflect_a_straight_walk(
    start: tuple[float, float], heading: float, dt_s: float, end: tuple[float, float]
) -> None:
    model = GaussMarkov(mean_speed_mps=2.0, speed_std_mps=0.0, heading_std_rad=0.0)
    state = model.advance(straight(*start, heading), dt_s, AREA, seeded(0))
    assert state.position_m[0].tolist() == pytest.approx(end, abs=1e-9)
    assert state.speed_mps.tolist() == [2.0]


@pytest.mark.parametrize(
    ("memory", "dt_s", "expected"), [(0.6, 1.0, 0.6), (0.64, 0.5, 0.8), (0.5, 2.0, 0.25), (0, 1.0, 0)]
)
def test_speed_and_heading_are_stationary_autoregressions(memory: float, dt_s: float, expected: float) -> None:
    model = GaussMarkov(memory=float(memory), speed_std_mps=0.5, heading_std_rad=0.8)
    before = walk(model, 51)
    after = model.advance(before, dt_s, AREA, seeded(52))
    for name, deviation in (("speed_deviation_mps", 0.5), ("heading_deviation_rad", 0.8)):
        old, new = getattr(before, name) / deviation, getattr(after, name) / deviation
        assert (old * new).mean().item() == pytest.approx(expected, abs=0.04)
        assert new.var().item() == pytest.approx(1, abs=0.05)
    assert after.speed_mps.mean().item() == pytest.approx(1.5, abs=0.02)


def test_full_memory_keeps_speed_and_heading() -> None:
    model = GaussMarkov(memory=1.0)
    before = walk(model, 61, users=50)
    after = model.advance(before, 30.0, AREA, seeded(62))
    assert torch.equal(after.speed_mps, before.speed_mps)
    assert torch.equal(after.heading_deviation_rad, before.heading_deviation_rad)


def test_gauss_markov_positions_stay_uniform() -> None:
    assert spread(walk(GaussMarkov(), 71)) == pytest.approx([1 / 12] * 2, abs=0.003)
    assert spread(walk(GaussMarkov(), 71, seconds=200.0)) == pytest.approx([1 / 12] * 2, abs=0.003)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("RandomWaypoint", {"speed_min_mps": 0.0}, "mobility.speed_min_mps=0.0: must be >= 0.001"),
        ("RandomWaypoint", {"speed_min_mps": 4.0}, "speed_min_mps=4.0: must be <= speed_max_mps=3.0"),
        ("RandomWaypoint", {"pause_max_s": -1.0}, "mobility.pause_max_s=-1.0: must be >= 0"),
        ("GaussMarkov", {"memory": 1.1}, "mobility.memory=1.1: must be <= 1"),
        ("GaussMarkov", {"memory": -0.1}, "mobility.memory=-0.1: must be >= 0"),
        ("GaussMarkov", {"step_s": 0.0}, "mobility.step_s=0.0: must be >= 1e-12"),
        ("GaussMarkov", {"mean_speed_mps": -1.0}, "mobility.mean_speed_mps=-1.0: must be >= 0"),
        ("GaussMarkov", {"speed_std_mps": -1.0}, "mobility.speed_std_mps=-1.0: must be >= 0"),
        ("GaussMarkov", {"heading_std_rad": "wide"}, "mobility.heading_std_rad='wide': must be a number"),
        ("Static", {"speed": 1.0}, "mobility.speed=1.0: there is no such key"),
    ],
)
def test_bad_values_are_named(target: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": f"dtsim.physical.mobility.{target}", **options}, "mobility")
    assert said in str(error.value)
