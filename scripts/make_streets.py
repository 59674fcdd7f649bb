"""Write the small files of examples/streets: SUMO-like floating-car data, sites, gains and traffic.

    python scripts/make_streets.py

Vehicles drive along a grid of streets at 30 to 50 km/h, and enter and leave; people walk; the numbers are invented.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

FOLDER = Path(__file__).resolve().parents[1] / "examples" / "streets"
BLOCK_M, ACROSS = 100.0, 4
SECONDS, VEHICLES, WALKERS = 100, 10, 6
LAT, LON = 52.520, 13.405
METRES_PER_DEGREE = 111_195.0


def drive(rng: np.random.Generator, seconds: int) -> np.ndarray:
    """Positions [seconds, 2] of a vehicle that turns at random at crossings, in m."""
    place = BLOCK_M * rng.integers(0, ACROSS + 1, 2).astype(float)
    speed, heading, left = rng.uniform(8.0, 14.0), np.zeros(2), 0.0
    places = []
    for _ in range(seconds):
        places.append(place.copy())
        step = speed
        while step > 1e-9:
            if left <= 1e-9:
                place = BLOCK_M * np.round(place / BLOCK_M)
                ways = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], dtype=float)
                inside = [(at >= 0).all() and (at <= ACROSS * BLOCK_M).all() for at in place + BLOCK_M * ways]
                back = (ways == -heading).all(axis=1)
                heading, left = ways[rng.choice(np.flatnonzero(np.array(inside) & ~back))], BLOCK_M
            moved = min(step, left)
            place, step, left = place + moved * heading, step - moved, left - moved
    return np.array(places)


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    enters = [0, 0, 0, 0, 0, 0, 0, 20, 40, 60]
    leaves = [SECONDS] * 6 + [50, SECONDS, 90, SECONDS]
    tracks = [drive(rng, leaves[k] - enters[k] + 1) for k in range(VEHICLES)]
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', "<fcd-export>"]
    for second in range(0, SECONDS + 1, 2):
        lines.append(f'    <timestep time="{second:.2f}">')
        for k, track in enumerate(tracks):
            if enters[k] <= second <= leaves[k]:
                x, y = track[second - enters[k]]
                lines.append(f'        <vehicle id="veh{k}" x="{x:.2f}" y="{y:.2f}" type="car"/>')
        lines.append("    </timestep>")
    (FOLDER / "fcd.xml").write_text("\n".join([*lines, "</fcd-export>"]) + "\n")
    (FOLDER / "sites.csv").write_text("x,y,flops\n50,50,5e10\n350,100,2.5e10\n200,350,5e10\n")

    rows = ["time,user,lat,lon"]
    for k in range(WALKERS):
        place, way = rng.uniform(50, 350, 2), rng.uniform(-1.5, 1.5, 2)
        for second in range(0, SECONDS + 1, 5):
            x, y = np.clip(place + way * second, 0, 400)
            lat, lon = LAT + y / METRES_PER_DEGREE, LON + x / METRES_PER_DEGREE / np.cos(np.radians(LAT))
            rows.append(f"{second},person{k},{lat:.7f},{lon:.7f}")
    (FOLDER / "walkers.csv").write_text("\n".join(rows) + "\n")
    (FOLDER / "masts.csv").write_text(
        "lat,lon\n"
        + "".join(
            f"{LAT + y / METRES_PER_DEGREE:.7f},{LON + x / METRES_PER_DEGREE / np.cos(np.radians(LAT)):.7f}\n"
            for x, y in ((50, 50), (350, 100), (200, 350))
        )
    )

    distance = rng.uniform(30, 300, (10, 3, 6))
    shadowing = rng.normal(0, 4, distance.shape)
    np.savez_compressed(FOLDER / "gains.npz", gain=np.float32(-(43.3 + 20 * np.log10(distance)) + shadowing))

    counts = rng.poisson(15 + 10 * np.sin(np.arange(100) / 16)[:, np.newaxis] ** 2, (100, 6))
    listed = [f"{slot},{user},{counts[slot, user]}" for slot in range(100) for user in range(6)]
    (FOLDER / "traffic.csv").write_text("slot,user,images\n" + "\n".join(listed) + "\n")


if __name__ == "__main__":
    main()
