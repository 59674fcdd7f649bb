"""Damage Fashion-MNIST's files in every way and place, and see that each damage is noticed and named.

    python scripts/break_data.py    with the files that the cache holds; a few minutes, and 600 MB of scratch space

In the cache a damaged file must be named and fetched again, so that the images are the right ones after all. Where a
user gives the folder, or the system's copy is all there is, it must be named and refused. Exits with 1 where not.
"""

from __future__ import annotations

import gzip
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dtsim.core.folders import cache_folder
from dtsim.core.progress import QUIET, Progress
from dtsim.learning.data import fetch, idx
from dtsim.learning.data.errors import DatasetError


def _changed(change: Callable[[bytearray], bytes | bytearray]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = change(bytearray(path.read_bytes()))
        path.unlink()  # it may be a link to the whole file
        path.write_bytes(data)

    return damage


def _flip(place: float) -> Callable[[bytearray], bytearray]:
    def flipped(data: bytearray) -> bytearray:
        data[int(place * (len(data) - 1))] ^= 0x10
        return data

    return flipped


def _zeroed(data: bytearray) -> bytearray:
    middle, half = len(data) // 2, min(2048, len(data) // 8)
    data[middle - half : middle + half] = bytes(2 * half)
    return data


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def _swap(path: Path) -> None:
    """Exchange a file and that of the other part: images to train with and images to test with."""
    other = path.with_name(path.name.replace("train", "?").replace("t10k", "train").replace("?", "t10k"))
    scratch = path.with_name("swapped")
    path.rename(scratch)
    other.rename(path)
    scratch.rename(other)


DAMAGES: dict[str, Callable[[Path], None]] = {
    "last byte cut off": _changed(lambda data: data[:-1]),
    "cut in half": _changed(lambda data: data[: len(data) // 2]),
    "cut within its header": _changed(lambda data: data[:6]),
    "first byte cut off": _changed(lambda data: data[1:]),
    "empty": _changed(lambda data: b""),
    "a bit flipped in its header": _changed(_flip(0.0)),
    "a bit flipped in the middle": _changed(_flip(0.5)),
    "a bit flipped near the end": _changed(_flip(0.98)),
    "a block zeroed": _changed(_zeroed),
    "bytes appended": _changed(lambda data: data + b"more"),
    "twice": _changed(lambda data: data + data),
    "an error page": _changed(lambda data: b"<html>404 not found</html>"),
    "swapped": _swap,
    "missing": _replaced(lambda path: None),
    "a folder": _replaced(Path.mkdir),
    "a FIFO": _replaced(os.mkfifo),
    "a device": _replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to nothing": _replaced(lambda path: path.symlink_to("nowhere")),
}
PLACES = ("cache", "given, unpacked", "given, packed", "system")


class Said(Progress):
    """Keeps what a person would be told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        """Keep one line."""
        self.lines.append(message)


@dataclass(frozen=True)
class Outcome:
    """What became of one damage."""

    place: str
    file: str
    damage: str
    fault: str
    """What was not as it must be; empty where all was."""
    line: str
    """What a person was told."""


def outcomes(whole: Path, scratch: Path) -> Iterator[Outcome]:
    """Try every damage of every file in every place.

    Args:
        whole: a folder with the four files as published, packed.
        scratch: an empty folder.
    """
    unpacked = scratch / "whole"
    unpacked.mkdir()
    files, known = idx.read_folder(whole)
    if not known:
        raise DatasetError(f"{whole}: must hold the published files")
    for name, data in files.items():
        (unpacked / name).write_bytes(data)
    for place in PLACES:
        for name in idx.NAMES:
            for damage in DAMAGES:
                with tempfile.TemporaryDirectory(dir=scratch) as folder:
                    yield _try(place, name, damage, whole, unpacked, Path(folder), files)


def _try(
    place: str, name: str, damage: str, packed: Path, unpacked: Path, scratch: Path, files: dict[str, bytes]
) -> Outcome:
    is_packed = place in ("given, packed", "system")
    cache, system = scratch / "cache", packed if place == "cache" else scratch / "absent"
    folder = cache / "fashion-mnist" / "FashionMNIST" / "raw" if place == "cache" else scratch / "given"
    folder.mkdir(parents=True)
    for path in (packed if is_packed else unpacked).iterdir():
        os.link(path, folder / path.name)
    path = folder / (f"{name}.gz" if is_packed else name)
    DAMAGES[damage](path)
    if place == "system":
        system = folder
    usual, fetch.SYSTEM_FASHION_MNIST = fetch.SYSTEM_FASHION_MNIST, system
    told = Said()
    fault = ""
    try:
        if place.startswith("given"):
            from dtsim.learning.data.datasets import FashionMnist

            FashionMnist(root=str(folder)).load(cache, told)
            fault = "was taken"
        else:
            found = fetch.fashion_mnist(cache, may_download=False, progress=told)
            fault = "" if place == "cache" and found == files else "was taken"
    except DatasetError as error:
        told.lines.append(str(error))
        fault = "was not fetched again" if place == "cache" else ""
    finally:
        fetch.SYSTEM_FASHION_MNIST = usual
    line = told.lines[0] if told.lines else ""
    # A file that is not there makes the whole folder another thing: then the folder is named, and what it needs.
    named = path.name if not (damage == "missing" and place != "cache") else str(folder)
    parts = ("train", "t10k") if damage == "swapped" else ("",)
    if not fault and named not in line and not any(f"{part}-" in line for part in parts if part):
        fault = "was not named"
    if "\n" in line:
        fault = "took more than a line"
    if place == "cache" and not fault and fetch.fashion_mnist(cache, may_download=False, progress=QUIET) != files:
        fault = "stayed damaged"
    return Outcome(place, name, damage, fault, line.replace(str(scratch), "…"))


def main() -> int:
    """Entry point."""
    with tempfile.TemporaryDirectory(prefix="dtsim-break-") as folder:
        scratch = Path(folder)
        packed = scratch / "packed"
        packed.mkdir()
        for name, data in fetch.fashion_mnist(cache_folder(), may_download=True, progress=QUIET).items():
            (packed / f"{name}.gz").write_bytes(gzip.compress(data, 1))
        (scratch / "work").mkdir()
        found = list(outcomes(packed, scratch / "work"))
        shutil.rmtree(scratch / "work")
    table = Table("damage", *PLACES, title="damages noticed and named, of those tried")
    for damage in DAMAGES:
        of = {place: [o for o in found if (o.place, o.damage) == (place, damage)] for place in PLACES}
        table.add_row(damage, *(f"{sum(not o.fault for o in some)} of {len(some)}" for some in of.values()))
    console = Console()
    console.print(table)
    for outcome in found:
        if outcome.fault:
            console.print(f"{outcome.place}: {outcome.file}, {outcome.damage}: {outcome.fault}: {outcome.line}")
    faults = sum(bool(outcome.fault) for outcome in found)
    console.print(f"{len(found)} damages, {len(found) - faults} noticed and named")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
