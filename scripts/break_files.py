"""Damage results and caches in many ways, and check that every damage is detected, named and repaired.

    python -m scripts.break_files --results 120 --caches 60

A damaged result must not count as done: the same command executes the run again and gets the same tables, and a report
names the result in one line and continues with all other runs. A damaged cache entry is named and made again, and the
run that needs it gets the same tables.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path

from typer.testing import CliRunner

from dtsim.cli.app import app
from dtsim.results.folders import find, is_done, why_not_done
from dtsim.results.names import RESULT
from dtsim.runner import experiment, jobs
from dtsim.runner.config import Config
from scripts.small_sweep import SWEEP, content, write_images


class Unnoticed(Exception):
    """A damage that was not detected or not repaired."""


Damage = Callable[[Path, random.Random], object]


def _cut(path: Path, rng: random.Random) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])


def _flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def _zero(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    start = rng.randrange(len(data))
    data[start : start + 64] = bytes(len(data[start : start + 64]))
    path.write_bytes(data)


def _append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.randbytes(7))


def _swap_lines(path: Path, rng: random.Random) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    lines[0], lines[-1] = lines[-1], lines[0]
    path.write_bytes(b"".join(lines) + b"\n" * (len(lines) < 2))


def _empty(path: Path, rng: random.Random) -> None:
    path.write_bytes(b"")


def _remove(path: Path, rng: random.Random) -> None:
    path.unlink()


def _fifo(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def _text(text: str) -> Damage:
    return lambda path, rng: path.write_text(text)


ANY: dict[str, Damage] = {
    "cut": _cut,
    "bit flipped": _flip,
    "bytes zeroed": _zero,
    "appended": _append,
    "lines swapped": _swap_lines,
    "empty": _empty,
    "removed": _remove,
    "FIFO": _fifo,
    "folder": _folder,
    "dangling link": _dangling,
}
JSON: dict[str, Damage] = {
    "[]": _text("[]"),
    "null": _text("null"),
    "{}": _text("{}"),
    "nested": _text("[" * 100_000),
    "not JSON": _text("done"),
    "old": lambda path, rng: path.write_text(json.dumps({**json.loads(path.read_text()), "files": None})),
    "another digest": lambda path, rng: path.write_text(
        json.dumps({**json.loads(path.read_text()), "digest": "00000000"})
    ),
}


def break_results(configs: list[Config], outputs: Path, count: int, rng: random.Random) -> Counter[str]:
    """Damage one file of one result, `count` times; return how often each kind of damage was done.

    Raises:
        Unnoticed: if a damage was not detected or named, affected another run in the report, or was not repaired.
    """
    known = {config.folder: content(config.folder) for config in configs}
    done: Counter[str] = Counter()
    kinds: list[tuple[str, Damage, str | None]] = [(kind, damage, None) for kind, damage in ANY.items()]
    kinds += [(f"{RESULT} is {kind}", damage, RESULT) for kind, damage in JSON.items()]
    for number in range(count):
        kind, damage, only = kinds[number % len(kinds)]
        config = rng.choice(configs)
        files = sorted(path for path in config.folder.iterdir() if path.stat().st_size)
        path = config.folder / only if only else files[number // len(kinds) % len(files)]
        damage(path, rng)
        said = why_not_done(config.folder)
        # A folder with neither a result nor a failure is not a run; what counts as done must have a result.
        if is_done(config.folder) or (path.name not in said and RESULT not in said):
            raise Unnoticed(f"{kind} of {path}: {said or 'counts as done'}")
        _check_report(outputs, config.folder, kind)
        with redirect_stderr(StringIO()):
            experiment.run(config, in_sweep=True)
        if content(config.folder) != known[config.folder]:
            raise Unnoticed(f"{kind} of {path}: executed again, the result differs")
        done[kind] += 1
    return done


def _check_report(outputs: Path, folder: Path, kind: str) -> None:
    page = outputs.parent / "page.html"
    answer = CliRunner().invoke(app, ["report", str(outputs), "--html", str(page)])
    named = str(folder) in answer.output or folder not in find(outputs)
    if answer.exit_code != 0 or not named or "Traceback" in answer.output or not page.exists():
        raise Unnoticed(f"{kind} of {folder}: the report says {answer.output[-500:]!r} {answer.exception!r}")
    page.unlink()


def break_caches(config: Config, count: int, rng: random.Random) -> Counter[str]:
    """Damage one entry of the cache, `count` times, and execute the run again; return how often each kind was done.

    Raises:
        Unnoticed: if a damage was not named, or the run's tables differ.
    """
    known = content(config.folder)
    done: Counter[str] = Counter()
    entries = sorted(config.cache_folder.rglob("[!.]*.pt"))
    for number in range(count):
        kind, damage = list(ANY.items())[number % len(ANY)]
        path = entries[number // len(ANY) % len(entries)]
        damage(path, rng)
        said = StringIO()
        with redirect_stderr(said):
            experiment.run(config, in_sweep=True)
        if kind != "removed" and str(path) not in said.getvalue():
            raise Unnoticed(f"{kind} of {path}: not named in {said.getvalue()[-500:]!r}")
        if content(config.folder) != known:
            raise Unnoticed(f"{kind} of {path}: the result differs")
        done[kind] += 1
    return done


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=int, default=120, help="number of damaged results (default: 120)")
    parser.add_argument("--caches", type=int, default=60, help="number of damaged cache entries (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random damages")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory(prefix="break-files-") as place:
        work = Path(place)
        write_images(work / "images")
        own = [f"dataset.root={work / 'images'}", f"outputs={work / 'outputs'}", f"cache={work / 'cache'}"]
        configs = [job.config for job in jobs.plan([*SWEEP[1:], *own]).jobs]
        with redirect_stderr(StringIO()):
            for config in configs:
                experiment.run(config, in_sweep=True)
        fresh = jobs.plan([*SWEEP[1:], *own, "fresh=true"]).jobs[0].config
        try:
            results = break_results(configs, work / "outputs", given.results, rng)
            caches = break_caches(fresh, given.caches, rng)
        except Unnoticed as error:
            sys.exit(f"unnoticed: {error}")
    for what, counts in (("results", results), ("caches", caches)):
        print(f"{counts.total()} damaged {what}, all detected and repaired:")
        for kind, number in sorted(counts.items()):
            print(f"  {kind}: {number}")


if __name__ == "__main__":
    main()
