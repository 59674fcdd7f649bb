"""Fashion-MNIST from Debian's package, for any user of a machine with apt: `python -m dtsim.learning.data.debian`.

`make run` and `make reproduce` do this first, so that they work where packages can be had and the data set's own
addresses cannot. `dtsim run` itself never calls apt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from dtsim.core.folders import cache_folder
from dtsim.core.progress import Progress
from dtsim.core.terminal import LineProgress
from dtsim.learning.data import fetch, idx
from dtsim.learning.data.errors import DatasetError

_PACKAGE = "dataset-fashion-mnist"


def from_debian(progress: Progress, scratch: Path) -> Path:
    """The files of Debian's `dataset-fashion-mnist` below `scratch`, without installing it and without root.

    Raises:
        DatasetError: where there is no apt, or it cannot get the package.
        subprocess.TimeoutExpired: where it takes more than minutes.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DatasetError(f"no {program} here")
    with progress.phase(f"fetch Debian's {_PACKAGE}", 3) as phase:
        for sub in ("state/lists/partial", "cache/archives/partial"):
            (scratch / sub).mkdir(parents=True)
        own = ["-o", f"Dir::State={scratch}/state", "-o", f"Dir::State::Lists={scratch}/state/lists"]
        own += ["-o", f"Dir::Cache={scratch}/cache"]
        try:
            _run(["apt-get", "-o", f"Dir::Cache={scratch}/cache", "download", _PACKAGE], scratch)
        except DatasetError:  # no lists of packages on this machine, or outdated ones
            _run(["apt-get", *own, "update"], scratch, tolerate=True)
            _run(["apt-get", *own, "download", _PACKAGE], scratch)
        phase.advance(2)
        archives = list(scratch.glob(f"{_PACKAGE}*.deb"))
        if not archives:
            raise DatasetError("apt-get download left no package")
        _run(["dpkg-deb", "-x", str(archives[0]), str(scratch / "package")], scratch)
        source = idx.holder(scratch / "package" / fetch.SYSTEM_FASHION_MNIST.relative_to("/"))
        if source is None:
            raise DatasetError("the package does not hold the four files")
        phase.advance(1)
    return source


def _run(command: list[str], folder: Path, tolerate: bool = False) -> None:
    """Run `command` in `folder`; `tolerate` a failure where one of many package sources may be down."""
    if command[0] == "apt-get":
        quick = ["-qq", "-o", "Acquire::http::Timeout=15", "-o", "Acquire::https::Timeout=15"]
        # Root would hand the download to a user who may not write in this folder.
        command = [
            command[0],
            *quick,
            "-o",
            "Acquire::Retries=1",
            "-o",
            "APT::Sandbox::User=root",
            *command[1:],
        ]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | {"LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode and not tolerate:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [f"status {done.returncode}"]
        raise DatasetError(f"{command[0]}: {said[0]}")


def main(arguments: Sequence[str]) -> int:
    """Put Fashion-MNIST into the cache if it is not there: from the system, the network or Debian's package.

    Args:
        arguments: those of `dtsim run`, of which `cache=FOLDER` says where the cache is. Nothing is done where another
            data set is asked for, or one is given.
    """
    keys = dict(word.split("=", 1) for word in arguments if "=" in word)
    other = keys.get("dataset", "fashion_mnist") != "fashion_mnist" or "dataset.root" in keys
    if other or keys.get("dataset.download") == "false":
        return 0
    folder = cache_folder(keys.get("cache"))
    progress = LineProgress()
    sources = [(f"Debian's package {_PACKAGE}", lambda scratch: from_debian(progress, scratch))]
    try:
        fetch.fashion_mnist(folder, may_download=True, progress=progress, more=sources)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
