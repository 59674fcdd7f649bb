"""Things that take long to make and are the same every time: made once, kept under a digest of what they depend on."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from dtsim.progress import QUIET, Progress


def digest_of(content: Any, length: int = 12) -> str:
    """Hexadecimal SHA-256 of `content` (JSON-able) in canonical form, cut to `length` digits."""
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:length]


def write_atomically(path: Path, data: bytes) -> None:
    """Write `path` so that it is either absent (or as before) or whole, whenever the process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


@dataclass(frozen=True)
class Cache:
    """A folder of tensors by digest.

    A file is the SHA-256 of its body followed by the body, torch's weights-only format, so a damaged file is noticed,
    said and made again. A lock per entry lets several jobs ask for the same thing while one makes it.
    """

    root: Path
    progress: Progress = field(default=QUIET)

    def get(self, kind: str, content: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The entry of `kind` that depends on `content` (JSON-able), made by `make` where it is not there yet."""
        path = self.root / kind / f"{digest_of(content, 24)}.pt"
        found = self._read(path)
        if found is not None:
            return found
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            found = self._read(path)  # another job may have made it while this one waited
            if found is not None:
                return found
            made = make()
            buffer = io.BytesIO()
            torch.save(made, buffer)
            body = buffer.getvalue()
            write_atomically(path, hashlib.sha256(body).digest() + body)
            return made

    def _read(self, path: Path) -> dict[str, Any] | None:
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        head, body = data[:32], data[32:]
        if hashlib.sha256(body).digest() != head:
            self.progress.say(f"cache file {path} is damaged: making it again")
            path.unlink(missing_ok=True)
            return None
        loaded: dict[str, Any] = torch.load(io.BytesIO(body), weights_only=True)
        return loaded
