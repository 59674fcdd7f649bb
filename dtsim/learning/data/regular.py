"""Reading files that were given, and nothing else: a FIFO would block for ever, a device might never end."""

from __future__ import annotations

import stat
from pathlib import Path

from dtsim.learning.data.errors import DatasetError

_KINDS = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
    stat.S_IFDIR: "a folder",
}


def require_regular(path: Path) -> None:
    """See that `path` is a file, or a link to one, without opening it.

    Raises:
        DatasetError: where it is missing, or is something else.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise DatasetError(f"{path}: {_reason(error)}") from None
    if not stat.S_ISREG(mode):
        raise DatasetError(f"{path}: is {_KINDS.get(stat.S_IFMT(mode), 'no file')}: it must be a regular file")


def read(path: Path) -> bytes:
    """All of a regular file.

    Raises:
        DatasetError: where it is none, or cannot be read.
    """
    require_regular(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: {_reason(error)}") from None


def _reason(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "is missing"
    return f"cannot be read ({error.strerror or type(error).__name__})"
