"""Folders of runs: finding them and their states."""

from __future__ import annotations

import csv
import os
from pathlib import Path

from dtsim.results.names import FAILED, RESULT, RUN
from dtsim.results.seal import damage

Number = int | float | str


def find(path: Path) -> list[Path]:
    """Folders of finished or failed runs under `path`, in order."""
    found = []
    for folder, below, files in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]  # being written
        if RESULT in files or FAILED in files:
            found.append(Path(folder))
    return sorted(found, key=_natural)


def is_done(folder: Path) -> bool:
    """Whether `folder` holds a complete result, and no later attempt failed to replace it."""
    return not why_not_done(folder)


def why_not_done(folder: Path) -> str:
    """The reason why `folder` holds no complete result, in one line; empty if it holds one."""
    if failed(folder):
        return why_failed(folder) or "failed"
    if not folder.is_dir():
        return "not run"
    return damage(folder) or ""


def failed(folder: Path) -> bool:
    """Whether the last attempt at the run of `folder` failed."""
    return (folder / FAILED).is_file()


def why_failed(folder: Path) -> str:
    """The last line of a failed run's traceback; empty if there is none."""
    try:
        lines = (folder / FAILED).read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def read_run(folder: Path) -> dict[str, Number]:
    """The row of run.csv: numbers as numbers, an empty field as NaN.

    Raises:
        OSError: if it cannot be read.
        ValueError: if it has no row.
    """
    with (folder / RUN).open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            return {column: _number(text or "") for column, text in row.items()}
    raise ValueError(f"{folder / RUN} has no row")


def _number(text: str) -> Number:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text if text else float("nan")


def _natural(folder: Path) -> list[tuple[int, int | str]]:
    """Sort key that orders mu=5 before mu=20."""
    return [
        (0, int(number)) if (number := part.rpartition("=")[2].split("-")[0]).isdigit() else (1, part)
        for part in folder.parts
    ]
