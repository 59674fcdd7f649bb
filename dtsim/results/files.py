"""Writing the folder of a run: tidy CSV, the log and `result.json`.

All files appear at once, since the finished folder is renamed.
"""

from __future__ import annotations

import platform
import shutil
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from dtsim.core.cache import naming
from dtsim.results.formats import Format, write_table
from dtsim.results.names import FAILED, LOG
from dtsim.results.records import Records
from dtsim.results.seal import read_result, seal, sync_folder


def versions() -> dict[str, str]:
    """Versions that affect the last bits of results: Python, packages and the CPU instructions that torch uses."""
    found = {"python": platform.python_version(), "cpu": torch.backends.cpu.get_cpu_capability()}
    for name in ("dtsim", "torch", "torchvision", "tianshou", "ortools", "highspy", "numpy", "hydra-core"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def write(
    folder: Path,
    records: Records,
    *,
    own: Mapping[str, str | int],
    result: Mapping[str, object],
    form: Format = "csv",
    log: Path | None = None,
) -> None:
    """Write all files of a run at once.

    Args:
        folder: the target; an existing folder is replaced.
        records: the rows of every file.
        own: the leading columns of every file, `schema.OWN`, with the run's values.
        result: the content of `result.json` besides the list of files.
        form: the format of the large tables.
        log: a file to move into the folder.

    Raises:
        OSError: if they cannot be written; it names the folder. No incomplete folder looks finished.
    """
    with _at_once(folder) as scratch:
        for file in records.schemas:
            table = records.table(file)
            for place, (column, value) in enumerate(own.items()):
                table.insert(place, column, value)
            write_table(table, scratch / file, form)
        if log is not None:
            shutil.move(log, scratch / LOG)
        seal(scratch, result)


def copy(folder: Path, target: Path, *, config: Mapping[str, object], choices: Mapping[str, str], digest: str) -> None:
    """Write the files of the finished run `folder` also as those of a run that computes the same.

    Args:
        folder: the finished run.
        target: the folder of the other run, which is replaced.
        config: its configuration.
        choices: the choice made in each of its groups.
        digest: its digest. The key `same_as` of its `result.json` keeps that of `folder`.

    Raises:
        DamagedRun: if `folder` is not whole.
        OSError: if they cannot be written.
    """
    result = read_result(folder)
    with _at_once(target) as scratch:
        for name in result["files"]:
            shutil.copyfile(folder / name, scratch / name)
        own = {"config": dict(config), "choices": dict(choices), "digest": digest}
        seal(scratch, {**result, **own, "same_as": result["digest"]})


@contextmanager
def _at_once(folder: Path) -> Iterator[Path]:
    """A scratch folder, which replaces `folder` when the block ends without an error."""
    scratch, old = (folder.with_name(f".{folder.name}.{what}") for what in ("new", "old"))
    try:
        with naming(folder):
            scratch.mkdir(parents=True)
            yield scratch
            if folder.exists():  # failed or redone; renamed first, since a half-deleted folder could look complete
                folder.rename(old)
            scratch.rename(folder)
            sync_folder(folder.parent)
    finally:
        for left in (scratch, old):
            shutil.rmtree(left, ignore_errors=True)


def write_failure(folder: Path, error: BaseException, log: Path | None = None) -> None:
    """Write the traceback of a failed run, and its log, into its folder, if possible."""
    with suppress(OSError):  # the run may have failed because the disk is full
        folder.mkdir(parents=True, exist_ok=True)
        (folder / FAILED).write_text("".join(traceback.format_exception(error)))
        if log is not None:
            shutil.move(log, folder / LOG)
