"""A slot of an environment as a picture: the delay of every MU, and what it is given."""

from __future__ import annotations

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from dtsim.allocation.optimal import Optimal
from dtsim.allocation.problem import Allocation, AllocationProblem, serving, station_delay_s, user_delay_s


def picture(problem: AllocationProblem, allocation: Allocation) -> NDArray[np.uint8]:
    """`allocation` in the slot `problem` [K], as an RGB picture [height, width, 3].

    Bars are MUs, sorted and coloured by BS. Above: delays, and as a line the least possible one of each BS. Below: the
    share of its BS's compute that an MU gets, and as a dot the share of its data that it uploads.
    """
    exact = problem.to(torch.float64)
    given = Allocation(allocation.compute_flops.double(), allocation.upload_bytes.double())
    order = torch.argsort(problem.station, stable=True)
    station = problem.station[order].numpy()
    delay_ms = 1e3 * user_delay_s(exact, given)[order].numpy()
    least_s = station_delay_s(exact, user_delay_s(exact, Optimal().allocate(exact)))
    least_ms = 1e3 * serving(least_s, exact)[order].numpy()
    share = (given.compute_flops / serving(exact.station_flops, exact))[order].numpy()
    upload = torch.nan_to_num(given.upload_bytes / exact.captured_bytes)[order].numpy()
    figure = Figure(figsize=(6.4, 4.4), dpi=100, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True)
    place = np.arange(len(station))
    colours = colormaps["tab10"](station % 10)
    above.bar(place, delay_ms, color=colours)
    above.hlines(least_ms, place - 0.45, place + 0.45, colors="black", linewidth=1.2)
    above.set(ylabel="delay (ms)", title=f"system delay {delay_ms.max():.2f} ms, at least {least_ms.max():.2f} ms")
    below.bar(place, 100 * share, color=colours)
    below.plot(place, 100 * upload, "k.", markersize=5)
    below.set(ylabel="compute (bar), upload (dot), %", ylim=(0, 103))
    below.set_xticks(place, [f"{user}" for user in order.tolist()], fontsize=7 if len(place) < 40 else 4)
    below.set_xlabel("MU, coloured by its BS")
    canvas.draw()  # type: ignore[no-untyped-call]
    drawn: NDArray[np.uint8] = np.asarray(canvas.buffer_rgba())[..., :3].copy()  # type: ignore[no-untyped-call]
    return drawn
