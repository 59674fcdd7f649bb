"""Downloads with a limit of size and of time, kept only where their hash is the published one."""

from __future__ import annotations

import http.client
import time
import urllib.request
from pathlib import Path
from typing import Any

from dtsim.core.progress import Progress
from dtsim.learning.data.errors import DatasetError

FAILURES = (DatasetError, OSError, http.client.HTTPException, ValueError)
"""What a download may end in."""


def download(
    address: str,
    target: Path,
    known_hash: str,
    progress: Progress,
    *,
    largest_bytes: int = 1 << 29,
    longest_s: float = 1800.0,
    silence_s: float = 10.0,
) -> None:
    """Write what `address` gives to `target`; nothing is left there where that fails.

    Args:
        address: http or https.
        target: its folder exists.
        known_hash: "sha256:…" or "md5:…" of the whole file.
        progress: shows how far it is.
        largest_bytes: more is refused.
        longest_s: it may take no longer, from the first byte on.
        silence_s: longest wait for an answer, and for the next bytes.

    Raises:
        DatasetError: where it is too large, takes too long, or is another file.
        OSError: where the address cannot be reached.
        http.client.HTTPException: where what answers does not speak HTTP.
    """
    import pooch

    pooch.get_logger().setLevel("ERROR")  # `progress` says what is going on

    def fetch(url: str, output_file: str, _: Any, check_only: bool = False) -> None:
        with urllib.request.urlopen(url, timeout=silence_s) as response, Path(output_file).open("wb") as file:
            said = str(response.headers.get("Content-Length") or "")
            expected = int(said) if said.isascii() and said.isdigit() else 0
            if expected > largest_bytes:
                raise DatasetError(f"{url}: has {expected:,} bytes, more than {largest_bytes:,}")
            began, done = time.monotonic(), 0
            with progress.phase(f"download {target.name}", float(expected)) as phase:
                while chunk := response.read1(1 << 18):  # what has arrived, however little: so the clock is looked at
                    done += len(chunk)
                    if done > largest_bytes:
                        raise DatasetError(f"{url}: has more than {largest_bytes:,} bytes")
                    if time.monotonic() - began > longest_s:
                        raise DatasetError(f"{url}: gave only {done:,} bytes in {longest_s:g} s")
                    file.write(chunk)
                    phase.advance(len(chunk))

    if not address.startswith(("http://", "https://")):
        raise DatasetError(f"{address}: must begin with http:// or https://")
    try:
        pooch.retrieve(address, known_hash, target.name, target.parent, downloader=fetch)
    except ValueError as error:
        if "hash" not in str(error):
            raise
        raise DatasetError(
            f"{address}: what arrived is another file (its {known_hash.split(':')[0]} differs)"
        ) from None
