"""Places on the ground: a plane in metres, or latitude and longitude projected to one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

EARTH_RADIUS_M = 6_371_008.8
"""Mean radius of the Earth (IUGG)."""


def projected(lat_deg: NDArray[np.float64], lon_deg: NDArray[np.float64], origin: list[float]) -> NDArray[np.float64]:
    """x to the east and y to the north of `origin`, [..., 2] in m: the local equirectangular projection.

    x = R cos(lat0) (lon - lon0), y = R (lat - lat0) in radians. Within 10 km of the origin it is off by less than 10 m.

    Args:
        lat_deg: latitudes; [...].
        lon_deg: longitudes; [...].
        origin: latitude and longitude of x = y = 0 in degrees.
    """
    lat0, lon0 = origin
    east = np.radians(lon_deg - lon0) * np.cos(np.radians(lat0))
    return EARTH_RADIUS_M * np.stack([east, np.radians(lat_deg - lat0)], axis=-1)


def check_origin(origin: list[float] | None) -> None:
    """Check the key `origin`.

    Raises:
        ValueError: if it is no latitude and longitude.
    """
    if origin is not None and not (-90 < origin[0] < 90 and -180 <= origin[1] <= 180):
        raise ValueError(f"origin={origin}: must be a latitude between -90 and 90 and a longitude from -180 to 180")
