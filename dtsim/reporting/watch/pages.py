"""A scene as one HTML page that plays it, without network: the numbers are in it, packed."""

from __future__ import annotations

import base64
import json
from importlib import resources
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray

from dtsim.reporting.style import COLOURS
from dtsim.reporting.watch.scene import Scene

_NONE = 255
"""The accuracy of a user without an image."""


def packed(scene: Scene) -> dict[str, Any]:
    """The scene as JSON-able values; arrays are base64 of little-endian numbers, row by row.

    Positions are uint16 over the area, accuracies and shares uint8 (of 254 and 255), delays float32.
    """
    x0, y0, x1, y1 = scene.area_m
    low, size = np.array([x0, y0]), np.maximum([x1 - x0, y1 - y0], 1e-9)
    place = np.clip((scene.position_m - low) / size, 0, 1)
    accuracy = np.where(np.isnan(scene.accuracy), _NONE, np.round(254 * np.nan_to_num(scene.accuracy)))
    return {
        "title": scene.title,
        "slots": scene.slots,
        "users": scene.station.shape[1],
        "stations": [[float(x), float(y)] if np.isfinite([x, y]).all() else None for x, y in scene.stations_m],
        "area": scene.area_m,
        "regions": scene.regions,
        "threshold": scene.threshold,
        "objective": scene.objective,
        "colours": COLOURS,
        "frame": scene.frame.tolist(),
        "x": _text(np.round(65535 * place[..., 0]), "<u2"),
        "y": _text(np.round(65535 * place[..., 1]), "<u2"),
        "station": _text(scene.station, "<u2"),
        "region": _text(scene.region, "<u2"),
        "accuracy": _text(accuracy, "u1"),
        "delay": _text(scene.delay_s, "<f4"),
        "upload": _text(np.round(255 * np.clip(scene.upload, 0, 1)), "u1"),
        "compute": _text(np.round(255 * np.clip(scene.compute, 0, 1)), "u1"),
        "retrain": _text(scene.retrain + scene.begins.astype(np.int64), "u1"),
    }


def page(scene: Scene) -> str:
    """The page that plays `scene`."""
    source = resources.files("dtsim.reporting.watch").joinpath("watch.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    # "<" ends a script in HTML, whatever it means in JSON.
    data = json.dumps(packed(scene), separators=(",", ":")).replace("<", "\\u003c")
    return environment.from_string(source).render(title=scene.title, data=data)


def _text(values: NDArray[Any], dtype: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype(dtype).tobytes()).decode("ascii")
