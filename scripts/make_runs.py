"""Make many run folders from a few real ones, for measuring the speed of reading results. Their numbers are arbitrary.

python scripts/make_runs.py outputs /path/to/many --runs 2000; time dtsim report /path/to/many
"""

from __future__ import annotations

import argparse
import csv
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dtsim.results.folders import find, is_done
from dtsim.results.names import RUN
from dtsim.results.seal import read_result, seal

SEEDS = 5  # per scheme, number of MUs and bandwidth
VARIED = ("channel", "bandwidth_hz")


def make(source: Path, target: Path, runs: int) -> None:
    """Write `runs` folders into `target`, each a copy of one of the finished runs under `source`.

    Seeds, digests and one key are changed wherever they occur, and the measures in run.csv by a few per cent.

    Raises:
        ValueError: if there is no finished run under `source`.
    """
    originals = list({folder.parent: folder for folder in find(source) if is_done(folder)}.values())  # one seed of each
    if not originals:
        raise ValueError(f"SOURCE={str(source)!r}: there is no finished run under it")
    random = np.random.default_rng(0)
    for number in range(runs):
        variant, rest = divmod(number, len(originals) * SEEDS)
        seed, original = divmod(rest, len(originals))
        _copy(originals[original], target, number, 1000 + seed, variant, random)


def _copy(original: Path, target: Path, number: int, seed: int, variant: int, random: np.random.Generator) -> None:
    folder = target / original.parent.parent.name / original.parent.name / f"seed={seed}-{number:08x}"
    folder.mkdir(parents=True)
    for file in original.glob("*.csv"):
        with file.open(newline="") as text:
            header, *rows = list(csv.reader(text))
        for row in rows:
            if "seed" in header:
                row[header.index("seed")] = str(seed)
            if file.name == RUN:
                row[:] = [_changed(value, name, random) for name, value in zip(header, row, strict=True)]
        with (folder / file.name).open("w", newline="") as text:
            csv.writer(text, lineterminator="\n").writerows([header, *rows])
    result = read_result(original)
    result["digest"] = f"{number:08x}"
    result["config"]["seed"] = seed
    result["config"][VARIED[0]][VARIED[1]] = 1e6 * (variant + 1)
    seal(folder, result)
    shutil.copystat(original, folder)


def _changed(value: str, name: str, random: np.random.Generator) -> str:
    """A measure times a factor close to one; shares stay within 0 and 1."""
    if "." not in value or name in ("scheme", "allocator"):
        return value
    changed = float(value) * float(np.exp(0.05 * random.standard_normal()))
    return repr(min(changed, 1.0) if name.endswith(("_rate", "accuracy_mean")) else changed)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="a folder with finished runs")
    parser.add_argument("target", type=Path, help="a new folder")
    parser.add_argument("--runs", type=int, default=2000, help="how many [runs]")
    given = parser.parse_args(arguments)
    try:
        make(given.source, given.target, given.runs)
    except (ValueError, OSError) as error:
        parser.exit(2, f"error: {error}\n")


if __name__ == "__main__":
    main()
