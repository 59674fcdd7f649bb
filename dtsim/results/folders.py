"""Folders of runs: which there are, and what state each is in."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any


def find(path: Path) -> list[Path]:
    """Folders of runs, finished or failed, under `path`, in order."""
    found = []
    for folder, below, files in os.walk(path):
        below[:] = [name for name in below if not name.startswith(".")]  # a run that is being written
        if "result.json" in files or "failed" in files:
            found.append(Path(folder))
    return sorted(found, key=_natural)


def is_done(folder: Path) -> bool:
    """Whether `folder` holds a whole result that no later attempt failed to replace."""
    return (folder / "result.json").is_file() and not (folder / "failed").is_file()


def why_failed(folder: Path) -> str:
    """The last line of a failed run's traceback; empty where there is none."""
    try:
        lines = (folder / "failed").read_text(errors="replace").strip().splitlines()
    except OSError:
        return ""
    return lines[-1] if lines else ""


def read_run(folder: Path) -> dict[str, Any]:
    """The row of run.csv: numbers as such, an empty field NaN.

    Raises:
        OSError: where it cannot be read.
        ValueError: where it has no row.
    """
    with (folder / "run.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            return {column: _number(text or "") for column, text in row.items()}
    raise ValueError(f"{folder / 'run.csv'} has no row")


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text if text else float("nan")


def _natural(folder: Path) -> list[tuple[int, int | str]]:
    """Sort key that puts mu=5 before mu=20."""
    return [
        (0, int(number)) if (number := part.rpartition("=")[2].split("-")[0]).isdigit() else (1, part)
        for part in folder.parts
    ]
