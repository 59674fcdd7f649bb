"""Streets, sites, gains and traffic from files: what is read, what is refused in one line, and whole runs of each."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from pydantic import ValidationError
from scipy.io import savemat

from dtsim.core.parts import ConfigError
from dtsim.physical.traces import vehicles
from dtsim.physical.traces.gains import GainTable
from dtsim.physical.traces.mobility import Trace
from dtsim.physical.traces.places import projected
from dtsim.physical.traces.sites import Sites
from dtsim.physical.traces.traffic import TraceTraffic
from dtsim.physical.traces.vehicles import read_vehicles
from dtsim.runner import experiment, jobs

STREETS = Path(__file__).resolve().parents[1] / "examples" / "streets"
AREA = (0.0, 0.0, 400.0, 400.0)

# Two vehicles; b enters at 2 s and leaves at 6 s, c comes at 6 s.
PLAIN = (
    "time,user,x,y,speed\n0,a,0,0,1\n4,a,40,0,1\n10,a,40,60,1\n2,b,100,100,1\n6,b,100,140,1\n6,c,5,5,0\n10,c,5,9,0\n"
)


def written(tmp_path: Path, name: str, text: str) -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_a_vehicle_moves_evenly_between_its_times_and_waits_outside_them(tmp_path: Path) -> None:
    found = read_vehicles(written(tmp_path, "a.csv", PLAIN), None)
    assert found.names == ["a", "b", "c"]
    place, speed = found.at(np.array([0, 0, 0, 1, 1, 1, 2]), np.array([1.0, 7.0, 10.0, 0.0, 3.0, 9.0, 6.0]))
    np.testing.assert_allclose(place, [[10, 0], [40, 30], [40, 60], [100, 100], [100, 110], [100, 140], [5, 5]])
    np.testing.assert_allclose(speed, [10, 10, 0, 0, 10, 0, 1])


def test_a_trace_in_every_format_is_the_same(tmp_path: Path) -> None:
    sumo = pd.read_csv(written(tmp_path, "a.csv", PLAIN)).sort_values("time", kind="stable")
    columns = ["timestep_time", "vehicle_id", "vehicle_x", "vehicle_y", "vehicle_speed"]
    table = sumo.set_axis(columns, axis="columns")
    table.to_csv(tmp_path / "fcd.csv", sep=";", index=False)
    with (tmp_path / "fcd.csv").open("a") as file:
        file.write("11;;;;\n")  # a time without vehicles
    table.to_parquet(tmp_path / "fcd.parquet")
    steps = []
    for time, group in table.groupby("timestep_time"):
        moves = "".join(
            f'  <vehicle id="{row.vehicle_id}" x="{row.vehicle_x}" y="{row.vehicle_y}" speed="1.0" lane="e_0"/>\n'
            for row in group.itertuples()
        )
        steps.append(f' <timestep time="{time:.2f}">\n{moves} </timestep>\n')
    xml = f'<?xml version="1.0" encoding="UTF-8"?>\n<fcd-export>\n{"".join(steps)}</fcd-export>\n'
    (tmp_path / "fcd.xml").write_text(xml)
    (tmp_path / "odd.xml").write_text(xml.replace(' x="', ' type="car" x="').replace("\n", ""))
    one = read_vehicles(str(tmp_path / "fcd.csv"), None)
    assert (
        vehicles._by_line(str(tmp_path / "fcd.xml")) is not None
        and vehicles._by_line(str(tmp_path / "odd.xml")) is None
    )
    for name in ("fcd.parquet", "fcd.xml", "odd.xml"):
        other = read_vehicles(str(tmp_path / name), None)
        assert other.names == one.names
        np.testing.assert_allclose(other.time_s, one.time_s)
        np.testing.assert_allclose(other.place_m, one.place_m)


def test_latitude_and_longitude_are_projected_about_the_origin(tmp_path: Path) -> None:
    metres = 111_194.93  # a degree of latitude on a sphere of the Earth's mean radius
    place = projected(np.array([52.01, 52.0]), np.array([13.0, 13.01]), [52.0, 13.0])
    np.testing.assert_allclose(place, [[0, metres / 100], [metres / 100 * math.cos(math.radians(52)), 0]], atol=0.01)
    file = written(tmp_path, "geo.csv", "time,id,lat,lon\n0,a,52.0,13.0\n10,a,52.001,13.0\n")
    found = read_vehicles(file, [52.0, 13.0])
    np.testing.assert_allclose(found.at(np.array([0]), np.array([5.0]))[0], [[0, metres / 2000]], atol=0.01)
    with pytest.raises(ValueError, match="has lat and lon, so origin must be given"):
        read_vehicles(file, None)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "time,user,x,y\n0,a,0,0\n2,a,1,0\n1,a,2,0\n", "a.csv:4: time goes back for user=a, from 2 to 1"),
        ("a.csv", "time,user,x,y\n0,a,0,0\n0,a,1,0\n", "a.csv:3: user=a is given twice at time=0"),
        ("a.csv", "time,who,x,y\n0,a,0,0\n", "a.csv:1: must have the columns time, user, x, y or"),
        ("a.csv", "time,user,x,y\n0,a,0,0\n1,a,nan,0\n", "a.csv:3: x=nan: must be a number"),
        ("a.csv", "time,user,x,y\n0,a,0,0\n1,a,east,0\n", "a.csv:3: x=east: must be a number"),
        ("a.csv", "time,user,x,y\n", "a.csv: must have one row or more, has none"),
        ("a.csv", "", "a.csv:1: must have the columns"),
        ("a.csv", "time,user,x,y\n0,a,0,0,7\n1,a\n", "a.csv"),
        ("a.xml", "<fcd-export><timestep time='0'><vehicle id='a' x='1'/></timestep></fcd-export>", "y is missing"),
        ("a.xml", "<fcd-export><timestep time='0'>", "a.xml: must be XML"),
        ("a.xml", "<fcd-export/>", "must hold one vehicle or person or more"),
        (
            "a.xml",
            "<fcd-export><timestep time='0'><vehicle id='a' x='b' y='2'/></timestep></fcd-export>",
            "must hold numbers",
        ),
        ("a.parquet", "no parquet", "a.parquet: must be a Parquet file that can be read"),
    ],
)
def test_a_bad_trace_is_refused_in_one_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Trace(path=written(tmp_path, name, text))
    lines = str(refused.value.errors()[0]["ctx"]["error"]).splitlines()
    assert len(lines) == 1 and said in lines[0] and lines[0].startswith("path=")


def test_users_are_those_that_stay_longest_and_others_wait(tmp_path: Path) -> None:
    trace = Trace(path=written(tmp_path, "a.csv", PLAIN))
    rng = torch.Generator()
    state = trace.start((3,), AREA, rng, torch.float64, "cpu")
    assert state.vehicle.tolist() == [0, 1, 2]  # 10, 4 and 4 s
    assert state.position_m.tolist() == [[0, 0], [100, 100], [5, 5]]
    assert state.speed_mps.tolist() == [10, 0, 0]  # b and c wait where they enter
    later = trace.advance(trace.advance(state, 4.0, AREA, rng), 4.0, AREA, rng)
    assert later.position_m.tolist() == [[40, 40], [100, 140], [5, 7]]
    assert trace.start((1,), AREA, rng, torch.float64, "cpu").vehicle.tolist() == [0]
    late = Trace(path=trace.path, start_s=5.0).start((2,), AREA, rng, torch.float64, "cpu")
    assert late.vehicle.tolist() == [0, 2]  # b leaves a second later


def test_a_user_that_left_is_replaced_by_one_on_its_way(tmp_path: Path) -> None:
    gone = "0,d,1,1,0\n1,d,2,1,0\n"  # before the run begins: never taken
    trace = Trace(path=written(tmp_path, "a.csv", PLAIN + gone), absent="replace", start_s=2.0)
    rng = torch.Generator()
    state = trace.start((2,), AREA, rng, torch.float64, "cpu")
    assert state.vehicle.tolist() == [0, 1]
    state = trace.advance(state, 6.0, AREA, rng)
    assert state.vehicle.tolist() == [0, 2] and state.position_m[1].tolist() == [5, 7]
    assert trace.advance(state, 2.0, AREA, rng).vehicle.tolist() == [0, 2]  # c is still there, nobody is free


def test_training_slots_take_vehicles_at_times_at_which_they_are_there(tmp_path: Path) -> None:
    trace = Trace(path=str(STREETS / "fcd.xml"))
    state = trace.start((50, 30), AREA, torch.Generator().manual_seed(0), torch.float32, "cpu")
    assert state.position_m.shape == (50, 30, 2) and len(np.unique(state.vehicle)) == 10
    known = read_vehicles(trace.path, None)
    assert (state.time_s >= known.enters_s[state.vehicle]).all() and (
        state.time_s <= known.leaves_s[state.vehicle]
    ).all()
    assert float(state.speed_mps.max()) < 15


@pytest.mark.parametrize(
    ("needs", "keys", "said"),
    [
        ({"users": 4}, {}, "has 3 users after 0 s, must have mu=4"),
        ({"seconds": 11.0}, {}, "ends at 10 s, the run lasts until 11 s"),
        ({"area_m": (0.0, 0.0, 50.0, 50.0)}, {}, "must contain it"),
        ({"users": 2}, {"absent": "refuse"}, "absent=refuse: user b is there from 2 to 6 s only"),
    ],
)
def test_a_trace_that_does_not_fit_is_refused(
    tmp_path: Path, needs: dict[str, Any], keys: dict[str, Any], said: str
) -> None:
    trace = Trace(path=written(tmp_path, "a.csv", PLAIN), **keys)
    trace.check_fits(users=1, seconds=10.0, area_m=AREA)
    with pytest.raises(ValueError, match=said):
        trace.check_fits(**{"users": 1, "seconds": 10.0, "area_m": AREA, **needs})


def test_sites_in_metres_and_in_degrees_are_the_same_places() -> None:
    metres = Sites(path=str(STREETS / "sites.csv"))
    degrees = Sites(path=str(STREETS / "masts.csv"), origin=[52.52, 13.405])
    one, two = metres.build(), degrees.build()
    assert one.stations_m.tolist() == [[50, 50], [350, 100], [200, 350]]
    np.testing.assert_allclose(two.stations_m.numpy(), one.stations_m.numpy(), atol=0.05)
    assert one.station_flops.tolist() == [5e10, 2.5e10, 5e10] and set(two.station_flops.tolist()) == {5e10}
    assert one.area_m == (0.0, 0.0, 400.0, 400.0)


@pytest.mark.parametrize(
    ("text", "keys", "said"),
    [
        ("x,y\n1,2\n1,2\n", {}, "this site is given already"),
        ("x,y\n1,2\n", {"margin_m": 0.0}, "margin_m=0.0: the users' area must not be empty"),
        ("lat,lon\n1,2\n", {}, "origin must be given"),
        ("lat,lon\n1,2\n", {"origin": [95.0, 0.0]}, "origin=.*must be a latitude between -90 and 90"),
        ("x,y,flops\n1,2,0\n", {}, "station_flops=.*must be 1 to 1e24"),
        ("north,east\n1,2\n", {}, "must have the columns x, y, flops or x, y or"),
    ],
)
def test_a_bad_list_of_sites_is_refused(tmp_path: Path, text: str, keys: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Sites(path=written(tmp_path, "sites.csv", text), **keys)


def test_gains_are_those_of_the_table_in_every_format(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    db = rng.uniform(-110, -70, (3, 2, 4))
    np.savez(tmp_path / "a.npz", gain=db, other=1)
    savemat(tmp_path / "a.mat", {"H": 10 ** (db / 10)})
    frame, station, user = np.indices(db.shape).reshape(3, -1)
    pd.DataFrame({"frame": frame, "station": station, "user": user, "gain": db.ravel()}).to_csv(
        tmp_path / "a.csv", index=False
    )
    distance = torch.full((2, 3), 100.0, dtype=torch.float64)  # the first three users
    for keys in ({"path": "a.npz"}, {"path": "a.mat", "variable": "H", "unit": "linear"}, {"path": "a.csv"}):
        table = GainTable(**{**keys, "path": str(tmp_path / keys["path"]), "fading": "none"})  # type: ignore[arg-type]
        links = table.start(distance, torch.Generator())
        for n in range(3):
            np.testing.assert_allclose(table.gain(links).numpy(), 10 ** (db[n, :, :3] / 10))
            if n < 2:
                links = table.next_frame(links, distance, torch.zeros(3), torch.Generator())
    fades = GainTable(path=str(tmp_path / "a.npz"))
    links = fades.start(distance, torch.Generator().manual_seed(0))
    assert not torch.allclose(fades.gain(links), fades.mean_gain(links))
    drawn = fades.start(torch.full((40, 2, 6), 1.0), torch.Generator().manual_seed(0))  # training slots
    known = db.transpose(0, 2, 1).reshape(-1, 2)  # the gains of each frame and user
    some = 10 * torch.log10(drawn.table_gain.double()).transpose(-1, -2).reshape(-1, 2).numpy()
    nearest = np.abs(some[:, np.newaxis] - known).max(axis=-1)
    assert (nearest.min(axis=1) < 1e-4).all() and len(set(nearest.argmin(axis=1).tolist())) == 12


def test_gains_of_every_slot(tmp_path: Path) -> None:
    linear = np.random.default_rng(0).uniform(1e-9, 1e-7, (2, 3, 2, 4))
    np.savez(tmp_path / "a.npz", gain=linear)
    with pytest.raises(ValidationError, match="fading=rayleigh: must be none"):
        GainTable(path=str(tmp_path / "a.npz"), unit="linear")
    table = GainTable(path=str(tmp_path / "a.npz"), unit="linear", fading="none")
    distance = torch.ones(2, 4, dtype=torch.float64)
    links: Any = table.start(distance, torch.Generator())
    for slot in range(3):
        np.testing.assert_allclose(table.gain(links).numpy(), linear[0, slot])
        np.testing.assert_allclose(table.mean_gain(links).numpy(), linear[0].mean(axis=0))
        links = table.next_slot(links, torch.zeros(4), 0.005, torch.Generator())
    table.check_fits(users=4, stations=2, frames=2, slots=3)
    for needs in ({"users": 5}, {"stations": 3}, {"frames": 3}, {"slots": 4}):
        with pytest.raises(ValueError, match=r"has 2 × 3 × 2 × 4 gains, the run needs .*frames × slots × BSs × users"):
            table.check_fits(**{"users": 4, "stations": 2, "frames": 2, "slots": 3, **needs})


@pytest.mark.parametrize(
    ("name", "keys", "said"),
    [
        ("missing.npz", {}, "must be a file that can be read"),
        ("a.npz", {"variable": "H"}, "has no variable H, must be one of gain, flat"),
        ("a.npz", {"variable": "flat"}, r"flat has shape \(4,\), must be \[frames, BSs, users\]"),
        (
            "a.npz",
            {"unit": "linear"},
            r"gain -80 at \(0, 0, 0\) must be a finite number from 0 to 1e6 \(is unit right\?\)",
        ),
        ("torn.npz", {}, "cannot be read"),
        ("torn.mat", {}, "cannot be read"),
        ("a.csv", {}, "a link is given twice"),
        ("b.csv", {}, "has 2 rows, must have one for each of 1 × 1 × 3 links"),
    ],
)
def test_bad_gains_are_refused(tmp_path: Path, name: str, keys: dict[str, Any], said: str) -> None:
    np.savez(tmp_path / "a.npz", gain=np.full((1, 1, 2), -80.0), flat=np.zeros(4))
    for torn in ("torn.npz", "torn.mat"):
        (tmp_path / torn).write_bytes(b"PK\x03\x04 torn" * 30)
    written(tmp_path, "a.csv", "frame,station,user,gain\n0,0,0,-80\n0,0,0,-81\n")
    written(tmp_path, "b.csv", "frame,station,user,gain\n0,0,0,-80\n0,0,2,-81\n")
    with pytest.raises(ValidationError, match=said) as refused:
        GainTable(path=str(tmp_path / name), **keys)
    assert len(str(refused.value.errors()[0]["ctx"]["error"]).splitlines()) == 1


def test_traffic_is_as_listed(tmp_path: Path) -> None:
    traffic = TraceTraffic(path=written(tmp_path, "a.csv", "slot,user,images\n0,0,3\n0,1,0\n1,1,7\n1,0,5\n"))
    assert [traffic.scheduled(slot, 2).tolist() for slot in range(2)] == [[3, 0], [5, 7]]
    assert traffic.mean_images == 3.75 and traffic.max_images == 7
    drawn = traffic.draw((1000,), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {0, 3, 5, 7}
    traffic.check_fits(users=2, slots=2)
    with pytest.raises(ValueError, match="has 2 slots × 2 users, the run needs 3 × 2"):
        traffic.check_fits(users=2, slots=3)
    for text, said in (
        ("slot,user,images\n0,0,3\n0,0,4\n", "slot=0, user=0 is given already"),
        ("slot,user,images\n0,0,3\n1,1,4\n", "slot=0, user=1 is missing"),
        ("slot,user,images\n0,0,2.5\n", "images=2.5: must be a whole number"),
        ("slot,user,images\n0,0,-1\n", "images=-1: must be a whole number"),
    ):
        with pytest.raises(ValidationError, match=said):
            TraceTraffic(path=written(tmp_path, "b.csv", text))


RUNS = {
    "vehicles": [
        *("mobility=trace", f"mobility.path={STREETS / 'fcd.xml'}"),
        *("topology=sites", f"topology.path={STREETS / 'sites.csv'}"),
    ],
    "walkers": [
        *("mobility=trace", f"mobility.path={STREETS / 'walkers.csv'}", "mobility.origin=[52.52,13.405]"),
        *("topology=sites", f"topology.path={STREETS / 'masts.csv'}", "topology.origin=[52.52,13.405]"),
    ],
    "gains": ["channel=table", f"channel.path={STREETS / 'gains.npz'}"],
    "traffic": ["traffic=trace", f"traffic.path={STREETS / 'traffic.csv'}"],
}


def tiny_but(tiny: list[str], *keys: str) -> list[str]:
    """`tiny` with `keys`, without what they replace."""
    given = {key.split("=")[0] for key in keys}
    kept = [key for key in tiny if key.split("=")[0] not in given]
    return [*(key for key in kept if "traffic=trace" not in keys or not key.startswith("traffic.")), *keys]


@pytest.mark.parametrize("kind", RUNS)
def test_a_whole_run_of_each_example(kind: str, tiny: list[str], tmp_path: Path) -> None:
    keys = tiny_but(tiny, "frames=3", *RUNS[kind], f"outputs={tmp_path}")
    (job,) = jobs.plan(keys).jobs
    slots = pd.read_csv(experiment.run(job.config) / "slots.csv")
    assert slots["frame"].nunique() == 3
    starts = slots.groupby(["frame", "user"])[["x_m", "y_m"]].first()
    if kind == "vehicles":
        known = read_vehicles(str(STREETS / "fcd.xml"), None)
        first = np.argsort(-(known.leaves_s - known.enters_s), kind="stable")[:4]
        place, _ = known.at(np.tile(first, 3), np.repeat([0.0, 20.0, 40.0], 4))
        np.testing.assert_allclose(starts.to_numpy(), place)
    if kind == "traffic":
        listed = pd.read_csv(STREETS / "traffic.csv")
        expected = listed[(listed["slot"] < 6) & (listed["user"] < 4)]["images"]
        assert slots.sort_values(["slot", "user"])["images"].tolist() == expected.tolist()


def test_what_does_not_fit_ends_before_anything_runs(tiny: list[str], tmp_path: Path) -> None:
    for keys, said in (
        ([*RUNS["gains"], "frames=11"], "channel.path="),
        ([*RUNS["traffic"], "mu=7"], "traffic.path="),
        ([*RUNS["vehicles"], "mu=11"], "mobility.path="),
        ([*RUNS["walkers"][:-1], "topology.origin=[52.52,13.406]", "topology.margin_m=300"], "mobility.origin="),
    ):
        with pytest.raises(ConfigError) as refused:
            jobs.plan(tiny_but(tiny, *keys, f"outputs={tmp_path}"))
        assert len(refused.value.lines) == 1 and refused.value.lines[0].startswith(said)


def test_a_changed_file_is_another_run_and_another_policy(tiny: list[str], tmp_path: Path) -> None:
    file = tmp_path / "traffic.csv"
    file.write_bytes((STREETS / "traffic.csv").read_bytes())
    keys = tiny_but(tiny, "traffic=trace", f"traffic.path={file}", f"outputs={tmp_path}")
    one = jobs.plan(keys).jobs[0].config
    moved = tmp_path / "moved.csv"
    moved.write_bytes(file.read_bytes())
    same = jobs.plan([*keys, f"traffic.path={moved}"]).jobs[0].config
    assert one.digest == same.digest and one.content("traffic") == same.content("traffic")
    file.write_text(file.read_text().replace("\n0,0,", "\n0,0,1", 1))
    other = jobs.plan(keys).jobs[0].config
    assert other.digest != one.digest
