"""Things that take long to make and are the same every time: made once, kept under a digest of what they depend on."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from dtsim.core.progress import QUIET, Progress


def digest_of(content: object, length: int = 12) -> str:
    """Hexadecimal SHA-256 of `content` (JSON-able) in canonical form, cut to `length` digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of the disk say which path it is about: writing to a full one does not by itself."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_atomically(path: Path, data: bytes) -> None:
    """Write `path` so that it is either absent (or as before) or whole, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with naming(path), scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def packed(content: Mapping[str, object]) -> bytes:
    """Tensors and plain values as a file: the SHA-256 of its body, then the body, torch's weights-only format."""
    import torch  # takes a second, which a command line with a typo must not wait for

    buffer = io.BytesIO()
    torch.save(content, buffer)
    body = buffer.getvalue()
    return hashlib.sha256(body).digest() + body


def unpacked(data: bytes) -> dict[str, object]:
    """What was `packed`.

    Raises:
        ValueError: where the file is damaged or none of ours.
    """
    import torch

    head, body = data[:32], data[32:]
    if hashlib.sha256(body).digest() != head:
        raise ValueError("is damaged, or was not written by dtsim")
    try:
        loaded = torch.load(io.BytesIO(body), weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError):
        # torch's own message advises to load the file unsafely.
        raise ValueError("holds something else than tensors and plain values") from None
    if not isinstance(loaded, dict):
        raise ValueError("holds something else than dtsim wrote")
    return loaded


@dataclass(frozen=True)
class Cache:
    """A folder of tensors by digest, `packed`, so that a damaged file is noticed, said and made again.

    A lock per entry lets several jobs ask for the same thing while one makes it.
    """

    root: Path
    progress: Progress = field(default=QUIET)

    def get(self, kind: str, content: object, make: Callable[[], dict[str, object]]) -> dict[str, object]:
        """The entry of `kind` that depends on `content` (JSON-able), made by `make` where it is not there yet."""
        path = self.path(kind, content)
        found = self._read(path)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            found = self._read(path)  # another job may have made it while this one waited
            if found is not None:
                return found
            for left in path.parent.glob(f".{path.stem}.*"):  # half written by a killed process
                left.unlink(missing_ok=True)
            made = make()
            write_atomically(path, packed(made))
            return made

    def path(self, kind: str, content: object) -> Path:
        """The file of that entry, made or not."""
        return self.root / kind / f"{digest_of(content, 24)}.pt"

    def _clear(self, path: Path) -> None:
        """Remove what is no regular file; reading a FIFO would block for ever. A folder with content stays an error."""
        self.progress.say(f"cache file {path}: is not a regular file; making it again")
        with suppress(FileNotFoundError):  # another job may have removed it
            if path.is_dir() and not path.is_symlink():
                path.rmdir()
            else:
                path.unlink()

    def _read(self, path: Path) -> dict[str, object] | None:
        if not path.is_file():
            if path.exists() or path.is_symlink():
                self._clear(path)
            return None
        data = path.read_bytes()
        try:
            return unpacked(data)
        except ValueError as error:
            self.progress.say(f"cache file {path}: {error}; making it again")
            return None
