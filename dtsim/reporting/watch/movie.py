"""A scene as a GIF or MP4 file, drawn slot by slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from dtsim.reporting.runs import ReportError
from dtsim.reporting.style import COLOURS, look
from dtsim.reporting.watch.scene import Scene

MOST_PICTURES = 400
"""Longer runs are shown with steps of several slots."""
_TRAIL = 12

Tell = Callable[[int, int], None]
"""Told how many of all pictures are drawn."""


def pictures(scene: Scene, tell: Tell = lambda done, of: None) -> Iterator[NDArray[np.uint8]]:
    """The pictures of `scene` in order, each [height, width, 3]; at most `MOST_PICTURES`."""
    step = -(-scene.slots // MOST_PICTURES)
    shown = range(0, scene.slots, step)
    with look():
        for done, slot in enumerate(shown, start=1):
            yield _picture(scene, slot)
            tell(done, len(shown))


def write_gif(scene: Scene, file: Path, per_second: float, tell: Tell) -> None:
    """Write `scene` as an animated GIF."""
    frames = [Image.fromarray(picture).quantize(64) for picture in pictures(scene, tell)]
    frames[0].save(file, save_all=True, append_images=frames[1:], duration=1000 / per_second, loop=0, format="GIF")


def write_mp4(scene: Scene, file: Path, per_second: float, tell: Tell) -> None:
    """Write `scene` as an MP4 file, with the FFmpeg that the package imageio-ffmpeg brings.

    Raises:
        ReportError: if the package is missing.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ReportError(f"mp4={str(file)!r}: needs the package imageio-ffmpeg (pip install 'dtsim[movie]')") from None
    drawn = pictures(scene, tell)
    first = next(drawn)
    height, width = first.shape[:2]
    writer = imageio_ffmpeg.write_frames(str(file), (width, height), fps=per_second, macro_block_size=2)
    writer.send(None)
    try:
        writer.send(np.ascontiguousarray(first))
        for picture in drawn:
            writer.send(np.ascontiguousarray(picture))
    finally:
        writer.close()


def _picture(scene: Scene, slot: int) -> NDArray[np.uint8]:
    figure = Figure(figsize=(6.0, 6.6), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    cell, below = figure.subplots(2, 1, gridspec_kw={"height_ratios": [5, 1]})
    _cell(cell, scene, slot)
    _history(below, scene, slot)
    known = scene.accuracy[slot][np.isfinite(scene.accuracy[slot])]
    accuracy = f"{100 * known.mean():.0f} %" if len(known) else "none"
    cell.set_title(
        f"{scene.title}: frame {scene.frame[slot]}, slot {slot}, delay {1e3 * scene.system_delay_s[slot]:.1f} ms, "
        f"accuracy {accuracy}"
    )
    canvas.draw()  # type: ignore[no-untyped-call]
    picture: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return picture


def _cell(axes: Axes, scene: Scene, slot: int) -> None:
    x0, y0, x1, y1 = scene.area_m
    axes.set(xlim=(x0, x1), ylim=(y0, y1), aspect="equal", xlabel="x (m)", ylabel="y (m)")
    axes.grid(visible=False)
    if scene.regions is not None:
        rows, columns, home = scene.regions
        wide, high = (x1 - x0) / columns, (y1 - y0) / rows
        for region in range(rows * columns):
            corner = (x0 + region % columns * wide, y0 + region // columns * high)
            shade = "white" if region == home else "0.95"
            axes.add_patch(Rectangle(corner, wide, high, facecolor=shade, edgecolor="0.7", linewidth=0.5, zorder=0))
    here, station = scene.position_m[slot], scene.station[slot]
    past = scene.position_m[max(0, slot - _TRAIL) : slot + 1]
    axes.add_collection(LineCollection(list(past.transpose(1, 0, 2)), colors="0.6", linewidths=0.8, zorder=1))
    links = np.stack([here, scene.stations_m[station]], axis=1)
    changed = slot > 0 and scene.station[slot] != scene.station[slot - 1]
    axes.add_collection(
        LineCollection(
            list(links),
            colors=[COLOURS[m % len(COLOURS)] for m in station],
            linewidths=np.where(changed, 2.5, 0.5),
            zorder=2,
        )
    )
    for m, (x, y) in enumerate(scene.stations_m):
        axes.plot(x, y, marker=(3, 0, 0), markersize=11, color=COLOURS[m % len(COLOURS)], markeredgecolor="black")
    low = max(0.0, scene.threshold - 0.25)
    colours = ScalarMappable(TwoSlopeNorm(scene.threshold, low, 1.0), "RdYlBu")
    shades = colours.to_rgba(np.nan_to_num(scene.accuracy[slot], nan=scene.threshold))
    axes.scatter(here[:, 0], here[:, 1], c=shades, s=28, edgecolors="black", linewidths=0.5, zorder=3)
    for mask, size in ((scene.retrain[slot], 70), (scene.begins[slot], 220)):
        ringed = here[mask]
        axes.scatter(
            ringed[:, 0], ringed[:, 1], s=size, facecolors="none", edgecolors="black", linewidths=1.0, zorder=3
        )


def _history(axes: Axes, scene: Scene, slot: int) -> None:
    axes.plot(1e3 * scene.system_delay_s, color=COLOURS[3])
    axes.axvline(slot, color="black", linewidth=0.8)
    axes.set(xlim=(0, max(1, scene.slots - 1)), xlabel="slot", ylabel="delay (ms)")
    axes.set_ylim(bottom=0)
