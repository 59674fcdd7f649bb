"""Drift as somebody tells it: which region each MU is in, and which classes each region has, from CSV files.

Both files have a header and may have further columns, which are not read, so what a run wrote can be fed back as it is.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np

V = TypeVar("V")


def read_schedule(path: str, *, users: int, frames: int, regions: int) -> np.ndarray:
    """The region of every MU in every frame from columns frame, user, region; int64 [N, K].

    Later frames and further users than asked for are checked and left out, so that one file serves runs of any size.

    Raises:
        ValueError: in one line that names file and line, where the file cannot be read, a value is none, a region
            does not exist, or an MU's frame is given twice or not at all.
    """
    region = np.full((frames, users), -1)
    seen: dict[tuple[int, int], str] = {}
    for place, (frame, user, value) in _rows(path, {"frame": _count, "user": _count, "region": _count}):
        _below(place, "region", value, regions)
        if (frame, user) in seen:
            raise ValueError(f"{place}: frame={frame}, user={user} is given already, {seen[frame, user]}")
        seen[frame, user] = place
        if frame < frames and user < users:
            region[frame, user] = value
    missing = np.argwhere(region < 0)
    if len(missing):
        frame, user = missing[0]
        raise ValueError(
            f"{path}: must give every MU's region in every frame, of {frames} frames × {users} users {len(missing)} "
            f"are missing, the first frame={frame}, user={user}"
        )
    return region


def rows_left_out(path: str, *, users: int, frames: int) -> int:
    """How many rows of a schedule are of later frames or further users than asked for.

    Raises:
        ValueError: as `read_schedule`.
    """
    columns: dict[str, Callable[[str], int]] = {"frame": _count, "user": _count}
    return sum(frame >= frames or user >= users for _, (frame, user) in _rows(path, columns))


def read_distributions(path: str, *, regions: int) -> np.ndarray:
    """The probability of each class in each region from columns region, class, probability; float64 [R, C].

    Raises:
        ValueError: in one line that names file and line, where the file cannot be read, a value is none, a region and
            class is given twice or not at all, or a region's probabilities do not sum to 1 within 1e-6.
    """
    given: dict[tuple[int, int], float] = {}
    columns: dict[str, Callable[[str], float]] = {"region": _count, "class": _count, "probability": _share}
    for place, (where, which, value) in _rows(path, columns):
        region, label = int(where), int(which)
        _below(place, "region", region, regions)
        if (region, label) in given:
            raise ValueError(f"{place}: region={region}, class={label} is given twice")
        given[region, label] = value
    classes = 1 + max((label for _, label in given), default=0)
    for region in range(regions):
        for label in range(classes):
            if (region, label) not in given:
                raise ValueError(f"{path}: region={region}, class={label} is missing")
    table = np.array([[given[region, label] for label in range(classes)] for region in range(regions)])
    for region, total in enumerate(table.sum(axis=1)):
        if abs(total - 1) > 1e-6:
            raise ValueError(f"{path}: the probabilities of region={region} sum to {total:g}, must be 1")
        if abs(total - 1) > 1e-12:  # what a run wrote comes back bit for bit
            table[region] /= total
    return table


def _rows(path: str, columns: Mapping[str, Callable[[str], V]]) -> Iterator[tuple[str, list[V]]]:
    """Place ("file:line") and values of every row; blank lines are skipped."""
    try:
        with Path(path).expanduser().open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            absent = [name for name in columns if name not in (reader.fieldnames or [])]
            if absent:
                raise ValueError(f"{path}:1: the header must name {', '.join(columns)}; {', '.join(absent)} is missing")
            for row in reader:
                place = f"{path}:{reader.line_num}"
                values = []
                for name, read in columns.items():
                    try:
                        values.append(read(row[name] or ""))
                    except ValueError as error:
                        raise ValueError(f"{place}: {name}={row[name]!r}: {error}") from None
                yield place, values
    except OSError as error:
        raise ValueError(f"{path}: must be a file that can be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: must be a CSV file ({error})") from None


def _count(text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError("must be a whole number >= 0")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ValueError("must be a number from 0 to 1")
    return value


def _below(place: str, name: str, value: int, limit: int) -> None:
    if value >= limit:
        raise ValueError(f"{place}: {name}={value}: must be < {limit}, the drift's rows × columns")
