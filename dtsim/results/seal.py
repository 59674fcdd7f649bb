"""The seal of a finished run: `result.json` lists every file of the folder with its size and its SHA-256.

`result.json` is written last and contains a hash of its own content. A folder whose files do not match it is damaged
and does not count as a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtsim.results.names import RESULT

_FILES, _CHECKSUM = "files", "checksum"


class DamagedRun(ValueError):
    """A folder with files that differ from what its run wrote; the message is one line that names the file."""


def seal(folder: Path, result: Mapping[str, object]) -> None:
    """Write `result` as the `result.json` of `folder`, with size and SHA-256 of all files in it.

    Files and folder are flushed to the disk first, so that a rename of the folder afterwards yields a complete result
    even if the machine loses power.

    Raises:
        OSError: if it cannot be written.
    """
    listed = {}
    for path in sorted(folder.iterdir()):
        if path.name != RESULT:
            with path.open("rb") as file:
                listed[path.name] = {
                    "bytes": os.fstat(file.fileno()).st_size,
                    "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
                }
                os.fsync(file.fileno())
    content = {**result, _FILES: listed}
    with (folder / RESULT).open("w", encoding="utf-8") as text:
        text.write(json.dumps({**content, _CHECKSUM: _checksum(content)}, indent=2) + "\n")
        text.flush()
        os.fsync(text.fileno())
    sync_folder(folder)


def sync_folder(folder: Path) -> None:
    """Flush the entries of `folder` to the disk, if the system supports it."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # Windows cannot open folders
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_result(folder: Path) -> dict[str, Any]:
    """The content of `result.json` of a complete run.

    Raises:
        DamagedRun: if a file is missing, truncated, changed or not a regular file.
    """
    path = _regular(folder / RESULT)
    try:
        result = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        raise DamagedRun(f"{path}: is damaged, it is not valid JSON") from None
    if not isinstance(result, dict):
        raise DamagedRun(f"{path}: is damaged, it is not a JSON object")
    checksum, files = result.pop(_CHECKSUM, None), result.get(_FILES)
    if not isinstance(files, dict):
        raise DamagedRun(f"{path}: lists no files, it is damaged or was written by another version")
    if checksum != _checksum(result):
        raise DamagedRun(f"{path}: is damaged, its checksum differs")
    for name, noted in files.items():
        _check(folder / name, noted)
    return result


def damage(folder: Path) -> str | None:
    """The first fault of a finished run in one line; None if there is none."""
    try:
        read_result(folder)
    except DamagedRun as error:
        return str(error)
    return None


def _check(path: Path, noted: Mapping[str, object]) -> None:
    size, wanted = _regular(path).stat().st_size, noted["bytes"]
    if size != wanted:
        raise DamagedRun(f"{path}: is damaged, it has {size:,} bytes instead of {wanted:,}")
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedRun(f"{path}: cannot be read ({error.strerror})") from None
    if found != noted["sha256"]:
        raise DamagedRun(f"{path}: was altered, its SHA-256 differs")


def _regular(path: Path) -> Path:
    """Return `path` if it is a regular file; reading another kind, such as a FIFO, could block."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise DamagedRun(f"{path}: {'is missing' if missing else f'cannot be read ({error.strerror})'}") from None
    if not stat.S_ISREG(mode):
        raise DamagedRun(f"{path}: is not a regular file")
    return path


def _checksum(content: Mapping[str, object]) -> str:
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
