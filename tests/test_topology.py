from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
import torch
from hydra.utils import get_class

from dtsim.core.parts import ConfigError, build
from tests.composed import node

HEXAGONAL = "dtsim.physical.topology.Hexagonal"
EXPLICIT = "dtsim.physical.topology.Explicit"


def distances(points: torch.Tensor) -> torch.Tensor:
    apart: torch.Tensor = torch.linalg.vector_norm(points[:, None] - points[None], dim=-1)
    return apart


def test_three_stations_are_an_equilateral_triangle() -> None:
    topology = build(node("topology", "three_bs"), "topology").build()
    apart = distances(topology.stations_m)
    assert apart[~torch.eye(3, dtype=torch.bool)].tolist() == pytest.approx([100.0] * 6)
    assert topology.area_m == pytest.approx((0, 0, 200, 100 + 50 * 3**0.5))
    assert topology.stations_m.amin(0).tolist() == pytest.approx([50, 50])
    assert topology.station_flops.tolist() == [50e9] * 3
    assert topology.mu_flops == 1e9
    assert topology.stations == 3


def test_seven_stations_are_a_centre_and_its_ring() -> None:
    apart = distances(build(node("topology", "hexagonal"), "topology").build().stations_m)
    assert apart[0, 1:].tolist() == pytest.approx([100.0] * 6)
    ring = apart[1:, 1:].sort(-1).values  # itself, two neighbours, two across, one opposite
    assert ring[0].tolist() == pytest.approx([0, 100, 100, 100 * 3**0.5, 100 * 3**0.5, 200])
    assert torch.allclose(ring, ring[0].expand_as(ring))


@pytest.mark.parametrize("stations", [2, 5, 12, 19, 40])
def test_grid_is_a_lattice_whose_first_points_do_not_depend_on_their_number(stations: int) -> None:
    options = {"_target_": HEXAGONAL, "inter_site_m": 30.0}
    points = build({**options, "stations": stations}, "topology").build().stations_m
    apart = distances(points) + torch.eye(stations) * 1e9
    assert apart.amin(-1).tolist() == pytest.approx([30.0] * stations)
    more = build({**options, "stations": 60}, "topology").build().stations_m
    assert torch.allclose(points - points[0], (more - more[0])[:stations])


def test_nineteen_stations_are_two_rings() -> None:
    points = build({"_target_": HEXAGONAL, "stations": 19, "inter_site_m": 1.0}, "topology").build().stations_m
    assert distances(points)[0].amax().item() == pytest.approx(2)


def test_explicit_example_is_built_as_written() -> None:
    topology = build(node("topology", "explicit"), "topology").build()
    assert topology.stations_m.tolist() == [[0, 10], [80, -10], [160, 10], [240, -10]]
    assert topology.area_m == (-30, -40, 270, 40)
    assert topology.station_flops.tolist() == [50e9, 25e9, 25e9, 50e9]


def test_explicit_area_overrides_the_margin() -> None:
    options = {
        "_target_": EXPLICIT,
        "stations_m": [[0.0, 0.0]],
        "area_m": [-1.0, -2.0, 3.0, 4.0],
        "margin_m": 9.0,
    }
    assert build(options, "topology").build().area_m == (-1, -2, 3, 4)


@pytest.mark.parametrize("name", ["three_bs", "hexagonal", "explicit"])
def test_yaml_lists_every_key(name: str) -> None:
    keys = node("topology", name)
    assert {field.name for field in fields(get_class(keys["_target_"]))} == keys.keys() - {"_target_"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stations": 0}, "topology.stations=0: must be >= 1"),
        ({"inter_site_m": 0.0}, "topology.inter_site_m=0.0: must be >= 0.001"),
        ({"margin_m": -1.0}, "topology.margin_m=-1.0: must be >= 0"),
        ({"mu_flops": 0.0}, "topology.mu_flops=0.0: must be >= 1"),
        ({"station_flops": -1.0}, "station_flops=-1.0: must be 1 to 1e24"),
        ({"station_flops": [1.0, 0.0, 1.0]}, "station_flops=[1.0, 0.0, 1.0]: must be 1 to 1e24"),
        ({"station_flops": [1.0, 2.0]}, "station_flops=[1.0, 2.0]: must be one value or 3"),
        ({"stations": 2, "margin_m": 0.0}, "margin_m=0.0: must be > 0"),
        ({"sites": 3}, "topology.sites=3: there is no such key"),
    ],
)
def test_bad_values_of_a_grid_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": HEXAGONAL, **options}, "topology")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"stations_m": []}, "topology.stations_m=[]"),
        ({"stations_m": [[1.0, 2.0, 3.0]]}, "topology.stations_m.0=[1.0, 2.0, 3.0]"),
        (
            {"area_m": [0.0, 0.0, 0.0, 1.0]},
            "area_m=[0.0, 0.0, 0.0, 1.0]: must be x0, y0, x1, y1 with x0 < x1",
        ),
        ({"area_m": [0.0, 1.0]}, "topology.area_m=[0.0, 1.0]"),
        ({"margin_m": 0.0}, "margin_m=0.0: must be > 0 where stations_m lie on a line"),
    ],
)
def test_bad_values_of_coordinates_are_named(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build({"_target_": EXPLICIT, "stations_m": [[0.0, 0.0], [0.0, 9.0]], **options}, "topology")
    assert said in str(error.value)
