"""Getting the files of a data set into the cache: from the system's copy, or from the network."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from filelock import FileLock

from dtsim.core.progress import Progress
from dtsim.learning.data import idx, published
from dtsim.learning.data.download import FAILURES, download
from dtsim.learning.data.errors import DatasetError
from dtsim.learning.data.regular import read

SYSTEM_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts its files."""

Source = tuple[str, Callable[[Path], Path]]
"""A name, and what gives the folder of Fashion-MNIST's four files, packed or not; it may fill the one it is given."""


def fashion_mnist(
    cache_dir: Path, may_download: bool, progress: Progress, more: Sequence[Source] = ()
) -> dict[str, bytes]:
    """Fashion-MNIST's four files by name, unpacked, as published; fetched once into `cache_dir`.

    Tried in turn: what the cache holds, the system's copy, the published addresses, and `more`. A damaged copy is
    named, and the next source tried.

    Args:
        cache_dir: fetched files are kept in its `fashion-mnist`.
        may_download: whether the network may be used.
        progress: shows what is being fetched.
        more: other sources.

    Raises:
        DatasetError: where nothing works: what was tried, and what to do.
    """
    root = cache_dir / "fashion-mnist"
    with suppress(DatasetError):  # looked at again below, when no other process is fetching it
        return _published(root / "FashionMNIST" / "raw")
    sources: list[Source] = [(f"the system's copy in {SYSTEM_FASHION_MNIST}", _system)]
    if may_download:
        for address in published.FASHION_MNIST_ADDRESSES:
            sources.append((f"download from {address}", partial(_downloaded, address, progress)))
    failures: list[str] = []
    with _locked(root):
        with _damage_said(root, progress):
            return _published(root / "FashionMNIST" / "raw")
        for name, get in [*sources, *more]:
            try:
                with tempfile.TemporaryDirectory(dir=root.parent, prefix=".fetching-") as scratch:
                    files = _published(get(Path(scratch)))
                with _staging(root) as whole:
                    raw = whole / "FashionMNIST" / "raw"
                    raw.mkdir(parents=True)
                    for file, data in files.items():
                        (raw / file).write_bytes(data)
                return files
            except (*FAILURES, subprocess.SubprocessError) as error:
                if "replace it" in str(error):  # not merely absent
                    progress.say(_one_line(error))
                failures.append(f"{name} ({_one_line(error)})")
    if not may_download:
        failures.append("no download, since dataset.download=false")
    raise DatasetError(
        "Fashion-MNIST was not found. Tried: " + "; ".join(failures) + ". Put its four *-ubyte.gz files in a folder "
        "and give it as dataset.root=FOLDER; or on Debian and Ubuntu: python -m dtsim.learning.data.debian"
    )


def cifar10(cache_dir: Path, may_download: bool, progress: Progress) -> dict[str, bytes]:
    """CIFAR-10's seven files by name, as published; fetched once into `cache_dir`.

    Raises:
        DatasetError: where it is not there and cannot be downloaded.
    """
    root = cache_dir / "cifar-10"
    with suppress(DatasetError):  # looked at again below, when no other process is fetching it
        return read_cifar10(root)
    advice = f"give a folder that holds {published.CIFAR10_FOLDER} as dataset.root=FOLDER"
    with _locked(root):
        with _damage_said(root, progress):
            return read_cifar10(root)
        if not may_download:
            raise DatasetError(f"CIFAR-10 is not in {cache_dir} and dataset.download=false: {advice}")
        try:
            with _staging(root) as scratch:
                archive = scratch / "archive.tar.gz"
                download(published.CIFAR10_ADDRESS, archive, f"md5:{published.CIFAR10_ARCHIVE_MD5}", progress)
                _take_out(archive, scratch / published.CIFAR10_FOLDER)
                archive.unlink()
                return read_cifar10(scratch)
        except (*FAILURES, tarfile.TarError) as error:
            raise DatasetError(f"CIFAR-10 cannot be downloaded ({_one_line(error)}): {advice}") from None


def read_cifar10(root: Path) -> dict[str, bytes]:
    """The seven files in `root`, each of them the published one.

    Raises:
        DatasetError: naming the file that is missing or damaged.
    """
    files = {}
    for name, md5 in published.CIFAR10.items():
        path = root / published.CIFAR10_FOLDER / name
        files[name] = read(path)
        if published.md5(files[name]) != md5:
            raise DatasetError(f"{path}: is damaged, it is not the published file (its MD5 is not {md5}): replace it")
    return files


def _take_out(archive: Path, folder: Path) -> None:
    """Only the seven files, whatever else an archive may hold, and wherever it would have them put."""
    folder.mkdir()
    with tarfile.open(archive) as tar:
        for name in published.CIFAR10:
            try:
                member = tar.extractfile(f"{published.CIFAR10_FOLDER}/{name}")
            except KeyError:
                member = None
            if member is None:
                raise DatasetError(f"the archive does not hold {name}")
            (folder / name).write_bytes(member.read())


def _published(folder: Path) -> dict[str, bytes]:
    """The four files of `folder`, which must be the published ones."""
    files, known = idx.read_folder(folder)
    if not known:
        raise DatasetError(f"{folder}: is damaged, it holds another data set")
    return files


def _system(_: Path) -> Path:
    source = idx.holder(SYSTEM_FASHION_MNIST)
    if source is None:
        raise DatasetError("not there")
    return source


def _downloaded(address: str, progress: Progress, folder: Path) -> Path:
    for name, known in published.FASHION_MNIST.items():
        download(f"{address}{name}.gz", folder / f"{name}.gz", f"sha256:{known.packed_sha256}", progress)
    return folder


@contextmanager
def _damage_said(root: Path, progress: Progress) -> Iterator[None]:
    """Where what is cached in `root` is damaged, say so and remove it; where there is nothing, go on."""
    try:
        yield
    except DatasetError as error:
        if root.is_dir():
            progress.say(f"{_one_line(error).removesuffix(': replace it')}: fetching it again")
            shutil.rmtree(root)


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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
