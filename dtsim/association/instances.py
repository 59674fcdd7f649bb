"""Instances of P2 to compare solvers on: five sizes of cells, four kinds of loads, any number of seeds.

Base stations (BSs) stand 100 m apart on a triangular lattice. Mobile users (MUs) are uniform in the rectangle around
it, up to 50 m beyond the outermost BSs. Links have free space's path loss at 3.5 GHz; an MU sends with -10 dBm over
20 MHz against a noise of -100 dBm. An MU has 14 to 26 images of 784 bytes in a slot, 4.9 kFLOP a byte; an MU that
retrains has 2 to 6 GFLOP more. A BS does 50 GFLOP/s.
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import numpy as np

from dtsim.association.problem import Array, AssociationProblem
from dtsim.core.seeding import Streams

Loads = Literal["mixed", "retraining", "inference", "equal"]
"""Who retrains: 30 % of MUs, all, none, or none with the same 20 images for all."""

LOADS: tuple[Loads, ...] = get_args(Loads)
SIZES: tuple[tuple[int, int], ...] = ((50, 5), (100, 10), (300, 20), (1000, 50), (3000, 100))
"""Numbers of MUs and BSs."""

_RETRAINING = {"mixed": 0.3, "retraining": 1.0, "inference": 0.0, "equal": 0.0}
_INTER_SITE_M, _MARGIN_M = 100.0, 50.0
_WAVELENGTH_M = 299_792_458 / 3.5e9
_SNR_AT_GAIN_1 = 10**9.0  # -10 dBm over -100 dBm
_BANDWIDTH_HZ = 20e6
_IMAGE_BYTES, _FLOP_PER_BYTE = 784, 4.9e3
_STATION_FLOPS = 50e9


def instance(users: int, stations: int, loads: Loads, seed: int) -> AssociationProblem:
    """The instance with these numbers of MUs and BSs, this kind of loads and this seed; always the same.

    Raises:
        ValueError: if a number is below 1, the seed is negative, or there is no such kind of loads.
    """
    for name, value, least in (("users", users, 1), ("stations", stations, 1), ("seed", seed, 0)):
        if value < least:
            raise ValueError(f"{name}={value}: must be >= {least}")
    if loads not in LOADS:
        raise ValueError(f"loads={loads!r}: must be one of {', '.join(LOADS)}")
    rng = Streams(seed).numpy("association/instance", users, stations, LOADS.index(loads))
    stations_m = _lattice(stations)
    low_m, high_m = stations_m.min(axis=0) - _MARGIN_M, stations_m.max(axis=0) + _MARGIN_M
    users_m = rng.uniform(low_m, high_m, (users, 2))
    distance_m = np.maximum(np.linalg.norm(stations_m[:, None] - users_m, axis=-1), 1.0)
    gain = (_WAVELENGTH_M / (4 * math.pi * distance_m)) ** 2
    rate_bps = _BANDWIDTH_HZ * np.log2(1 + _SNR_AT_GAIN_1 * gain)
    images = np.full(users, 20.0) if loads == "equal" else rng.uniform(14, 26, users)
    captured_bytes = _IMAGE_BYTES * images
    retrained = rng.random(users) < _RETRAINING[loads]
    return AssociationProblem(
        work_flop=_FLOP_PER_BYTE * captured_bytes + retrained * rng.uniform(2e9, 6e9, users),
        upload_s=8 * captured_bytes / rate_bps,
        station_flops=np.full(stations, _STATION_FLOPS),
        gain=gain,
    )


def _lattice(stations: int) -> Array:
    """[M, 2] Positions of BSs [m] in rows that are as many as each is long; every second row is shifted by half."""
    rows = max(1, round(math.sqrt(stations / (2 / math.sqrt(3)))))
    lengths = [stations // rows + (row < stations % rows) for row in range(rows)]
    points = [
        ((column + row % 2 / 2) * _INTER_SITE_M, row * _INTER_SITE_M * math.sqrt(3) / 2)
        for row, length in enumerate(lengths)
        for column in range(length)
    ]
    return np.array(points)
