"""Fashion-MNIST from Debian's package, for any user of a machine with apt."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from dtsim.core.progress import Progress
from dtsim.learning.data import idx
from dtsim.learning.data.splits import DatasetError

SYSTEM_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where the package puts its files."""


def from_debian(raw: Path, progress: Progress) -> None:
    """Put the files of Debian's `dataset-fashion-mnist` into `raw`, without installing it and without root.

    Raises:
        DatasetError: where there is no apt, or it cannot get the package.
        subprocess.TimeoutExpired: where it takes more than minutes.
    """
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise DatasetError(f"no {program} here")
    with (
        tempfile.TemporaryDirectory(prefix="dtsim-apt-") as folder,
        progress.phase("fetch Debian's dataset-fashion-mnist", 3) as phase,
    ):
        scratch = Path(folder)
        for sub in ("state/lists/partial", "cache/archives/partial"):
            (scratch / sub).mkdir(parents=True)
        own = ["-o", f"Dir::State={scratch}/state", "-o", f"Dir::State::Lists={scratch}/state/lists"]
        own += ["-o", f"Dir::Cache={scratch}/cache"]
        try:
            _run(["apt-get", "-o", f"Dir::Cache={scratch}/cache", "download", "dataset-fashion-mnist"], scratch)
        except DatasetError:  # no lists of packages on this machine, or outdated ones
            _run(["apt-get", *own, "update"], scratch, tolerate=True)
            _run(["apt-get", *own, "download", "dataset-fashion-mnist"], scratch)
        phase.advance(2)
        archives = list(scratch.glob("dataset-fashion-mnist*.deb"))
        if not archives:
            raise DatasetError("apt-get download left no package")
        _run(["dpkg-deb", "-x", str(archives[0]), str(scratch / "package")], scratch)
        source = idx.holder(scratch / "package" / SYSTEM_FASHION_MNIST.relative_to("/"))
        if source is None:
            raise DatasetError("the package does not hold the four files")
        idx.unpack(source, raw)
        phase.advance(1)


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
