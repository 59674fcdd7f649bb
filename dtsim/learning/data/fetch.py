"""Getting the files of a data set into the cache: from the system, the network, or Debian's package."""

from __future__ import annotations

import http.client
import shutil
import subprocess
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from dtsim.core.progress import Progress
from dtsim.learning.data import idx
from dtsim.learning.data._torchvision import cure
from dtsim.learning.data.debian import SYSTEM_FASHION_MNIST, from_debian
from dtsim.learning.data.splits import DatasetError

FAILURES = (DatasetError, OSError, http.client.HTTPException, subprocess.SubprocessError)
"""What getting files may end in."""


def fashion_mnist(cache_dir: Path, download: bool, progress: Progress) -> Path:
    """A folder that holds Fashion-MNIST in torchvision's layout, checked; fetched once into `cache_dir`.

    Tried in turn: the system's copy, what the cache holds, torchvision's address, Debian's package.

    Args:
        cache_dir: fetched files are kept in its `fashion-mnist`.
        download: whether the network may be used.
        progress: shows what is being fetched.

    Raises:
        DatasetError: where nothing works: what was tried, and what to do.
    """
    root = cache_dir / "fashion-mnist"
    sources: list[tuple[str, Callable[[Path], None]]] = [
        (f"the system's copy in {SYSTEM_FASHION_MNIST}", _from_system),
    ]
    if download:
        sources += [
            ("download from torchvision's address", lambda raw: _from_torchvision(raw, progress)),
            ("Debian's package dataset-fashion-mnist", lambda raw: from_debian(raw, progress)),
        ]
    with _locked(root):
        found = _whole(root, progress)
        if found:
            return root
        failures = []
        for name, fetch in sources:
            try:
                with _staging(root) as scratch:
                    fetch(scratch / "FashionMNIST" / "raw")
                return root
            except FAILURES as error:
                failures.append(f"{name} ({_one_line(error)})")
    if not download:
        failures.append("no download, since dataset.download=false")
    raise DatasetError(
        "Fashion-MNIST was not found. Tried: " + "; ".join(failures) + ". Put its four *-ubyte.gz files in a folder "
        "and give it as dataset.root=FOLDER, or install the package dataset-fashion-mnist"
    )


def cifar10(cache_dir: Path, download: bool, progress: Progress) -> Path:
    """A folder that holds CIFAR-10 in torchvision's layout; fetched once into `cache_dir`.

    Raises:
        DatasetError: where it is not there and cannot be downloaded.
    """
    cure()
    from torchvision.datasets import CIFAR10

    root = cache_dir / "cifar-10"
    with _locked(root):
        if root.is_dir():
            return root
        advice = "give a folder that holds cifar-10-batches-py as dataset.root=FOLDER"
        if not download:
            raise DatasetError(f"CIFAR-10 is not in {cache_dir} and dataset.download=false: {advice}")
        try:
            with _staging(root) as scratch:
                archive = scratch / CIFAR10.filename
                _download(CIFAR10.url, archive, CIFAR10.tgz_md5, progress)
                CIFAR10(scratch, download=True)  # finds the archive there, and unpacks it
                archive.unlink()
        except (*FAILURES, RuntimeError) as error:
            raise DatasetError(f"CIFAR-10 cannot be downloaded ({_one_line(error)}): {advice}") from None
    return root


@contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Let one job fetch `root` while the others wait for it."""
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(f"{root}.lock")
        lock.acquire()
    except OSError as error:
        raise DatasetError(f"{root.parent}: cannot keep data sets there ({_one_line(error)})") from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """A folder that becomes `root` where all goes well, and vanishes where not: `root` is whole or absent."""
    scratch = Path(tempfile.mkdtemp(dir=root.parent, prefix=f".{root.name}-"))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.replace(root)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _whole(root: Path, progress: Progress) -> bool:
    """Whether `root` holds Fashion-MNIST; what is damaged is removed."""
    if not root.is_dir():
        return False
    try:
        idx.check_folder(root / "FashionMNIST" / "raw")
    except (DatasetError, OSError) as error:
        progress.say(f"{_one_line(error)}. Fetching it again")
        shutil.rmtree(root)
        return False
    return True


def _from_system(raw: Path) -> None:
    source = idx.holder(SYSTEM_FASHION_MNIST)
    if source is None:
        raise DatasetError("not there")
    idx.unpack(source, raw)


def _from_torchvision(raw: Path, progress: Progress) -> None:
    cure()
    from torchvision.datasets import FashionMNIST

    with tempfile.TemporaryDirectory() as scratch:
        for name, md5 in FashionMNIST.resources:
            failure: Exception | None = None
            for mirror in FashionMNIST.mirrors:
                try:
                    _download(f"{mirror}{name}", Path(scratch) / name, md5, progress)
                    break
                except FAILURES as error:
                    failure = error
            else:
                raise failure or DatasetError("no address")
        idx.unpack(Path(scratch), raw)


def _download(url: str, path: Path, md5: str, progress: Progress, timeout_s: float = 10.0) -> None:
    """Write what `url` gives to `path`. torchvision's own download never times out and draws its own bars."""
    from torchvision.datasets.utils import check_integrity

    with (
        urllib.request.urlopen(url, timeout=timeout_s) as response,
        path.open("wb") as file,
        progress.phase(f"download {path.name}", float(response.headers.get("Content-Length") or 0)) as phase,
    ):
        while chunk := response.read(1 << 18):
            file.write(chunk)
            phase.advance(len(chunk))
    if not check_integrity(path, md5):
        raise DatasetError(f"{url}: what arrived has another MD5 than {md5}")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
