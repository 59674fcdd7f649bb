"""Where the files of a data set come from: cache, system, network and Debian's package, and what may go wrong there."""

from __future__ import annotations

import gzip
import http.server
import io
import multiprocessing
import os
import shutil
import stat
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dtsim.core.errors import DatasetError
from dtsim.core.folders import cache_folder
from dtsim.core.progress import QUIET
from dtsim.learning.data import debian, download, fetch, idx, published
from dtsim.learning.data.datasets import Cifar10, FashionMnist
from dtsim.learning.data.splits import content_digest
from scripts.break_data import Said
from tests import tiny_data

Answer = bytes | Callable[[http.server.BaseHTTPRequestHandler], None]


class Server:
    """An HTTP server on this machine: bytes, or what a function does, for each path; 404 for others."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.asked.append(self.path)
                answer = outer.answers.get(self.path)
                if answer is None:
                    self.send_error(404)
                elif isinstance(answer, bytes):
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(answer)))
                    self.end_headers()
                    self.wfile.write(answer)
                else:
                    answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        self.address = f"http://127.0.0.1:{self.http.server_port}/"


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture
def whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Tiny files that count as the published ones; no system's copy, no address and no apt."""
    folder = tiny_data.write_fashion_mnist(tmp_path / "whole", 60, 30, flat=True)
    monkeypatch.setattr(published, "FASHION_MNIST", tiny_data.hashes_of(folder))
    monkeypatch.setattr(published, "FASHION_MNIST_ADDRESSES", [])
    monkeypatch.setattr(fetch, "SYSTEM_FASHION_MNIST", tmp_path / "absent")
    monkeypatch.setattr("dtsim.learning.data.debian.shutil.which", lambda _: None)
    return folder


def entries(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_fashion_mnist_comes_from_the_system_and_stays_in_the_cache(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = tmp_path / "system"
    shutil.copytree(whole, system)
    monkeypatch.setattr(fetch, "SYSTEM_FASHION_MNIST", system)
    part = FashionMnist(download=False)
    first = part.load(tmp_path / "cache", QUIET)
    shutil.rmtree(system)
    second = part.load(tmp_path / "cache", QUIET)
    assert torch.equal(first.train_images, second.train_images)
    assert entries(tmp_path / "cache") == ["fashion-mnist", "fashion-mnist.lock"]
    assert entries(tmp_path / "cache" / "fashion-mnist" / "FashionMNIST" / "raw") == sorted(idx.NAMES)

    cached = tmp_path / "cache" / "fashion-mnist" / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    cached.write_bytes(cached.read_bytes()[:-1] + b"\0")
    said = Said()
    shutil.copytree(whole, system)
    assert torch.equal(part.load(tmp_path / "cache", said).train_images, first.train_images)
    assert len(said.lines) == 1
    assert said.lines[0].startswith(f"{cached}: is damaged, it is not the published file")
    assert said.lines[0].endswith(": fetching it again")


def test_all_that_was_tried_is_said(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(published, "FASHION_MNIST_ADDRESSES", ["http://127.0.0.1:9/", "ftp://nowhere/"])
    with pytest.raises(DatasetError) as caught:
        FashionMnist().load(tmp_path / "cache", QUIET)
    message = str(caught.value)
    for words in ("absent (not there)", "http://127.0.0.1:9/ (", "must begin with http", "dataset.root=", "debian"):
        assert words in message
    assert "\n" not in message
    assert entries(tmp_path / "cache") == ["fashion-mnist.lock"]
    with pytest.raises(DatasetError, match=r"dataset\.download=false"):
        FashionMnist(download=False).load(tmp_path / "cache", QUIET)


def test_a_run_never_calls_apt(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", refuse)
    with pytest.raises(DatasetError, match=r"python -m dtsim\.learning\.data\.debian"):
        FashionMnist().load(tmp_path / "cache", QUIET)


def test_fashion_mnist_is_downloaded_and_its_hash_checked(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    for name in idx.NAMES:
        data = (whole / f"{name}.gz").read_bytes()
        server.answers[f"/good/{name}.gz"] = data
        server.answers[f"/other/{name}.gz"] = gzip.compress(gzip.decompress(data)[:-1] + b"\x09")
    monkeypatch.setattr(published, "FASHION_MNIST_ADDRESSES", [f"{server.address}other/"])
    with pytest.raises(DatasetError, match=r"what arrived is another file \(its sha256 differs\)"):
        FashionMnist().load(tmp_path / "cache", QUIET)
    addresses = [f"{server.address}{where}/" for where in ("down", "other", "good")]
    monkeypatch.setattr(published, "FASHION_MNIST_ADDRESSES", addresses)
    assert FashionMnist().load(tmp_path / "cache", QUIET).train_images.shape == (60, 1, 28, 28)
    asked = len(server.asked)
    FashionMnist().load(tmp_path / "cache", QUIET)
    assert len(server.asked) == asked, "once is enough"
    assert entries(tmp_path / "cache") == ["fashion-mnist", "fashion-mnist.lock"]


def sends(*headers: tuple[str, str], body: bytes = b"") -> Answer:
    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        for header in headers:
            handler.send_header(*header)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def drips(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(b"x")
            time.sleep(0.02)
    except OSError:
        pass  # the other side has had enough


def gushes(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        while True:
            handler.wfile.write(bytes(1 << 16))
    except OSError:
        pass


def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(3)


def garbage(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"\x00\x01\x02 no HTTP\r\n\r\n")


GOOD = b"the file"
HASH = f"sha256:{published.sha256(GOOD)}"


@pytest.mark.parametrize("length", ["abc", "", "-5", "8, 8", "1e3", "٣"])
def test_a_download_survives_a_length_that_is_no_number(server: Server, tmp_path: Path, length: str) -> None:
    server.answers["/x"] = sends(("Content-Length", length.encode().decode("latin1")), body=GOOD)
    download.download(f"{server.address}x", tmp_path / "x", HASH, QUIET)
    assert (tmp_path / "x").read_bytes() == GOOD


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (sends(("Content-Length", "999999999999"), body=GOOD), "has 999,999,999,999 bytes, more than 100,000"),
        (gushes, "has more than 100,000 bytes"),
        (drips, "bytes in 0.3 s"),
        (silent, "timed out"),
        (garbage, "no HTTP"),
        (sends(("Content-Length", "8"), body=GOOD[:-1]), "another file"),
        (sends(body=b"another file"), "another file"),
        (None, "404"),
    ],
)
def test_a_download_has_limits_and_leaves_nothing(
    server: Server, tmp_path: Path, answer: Answer | None, says: str
) -> None:
    if answer is not None:
        server.answers["/x"] = answer
    limits: Any = {"largest_bytes": 100_000, "longest_s": 0.3, "silence_s": 1.0}
    began = time.monotonic()
    with pytest.raises(download.FAILURES, match=says):
        download.download(f"{server.address}x", tmp_path / "x", HASH, QUIET, **limits)
    assert time.monotonic() - began < 5
    assert entries(tmp_path) == []


def test_a_stopped_fetch_leaves_nothing(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(source: Path) -> tuple[dict[str, bytes], bool]:
        if source == whole:
            raise KeyboardInterrupt
        return read(source)

    read = idx.read_folder
    monkeypatch.setattr(fetch, "SYSTEM_FASHION_MNIST", whole)
    monkeypatch.setattr(idx, "read_folder", stopped)
    with pytest.raises(KeyboardInterrupt):
        FashionMnist().load(tmp_path / "cache", QUIET)
    assert entries(tmp_path / "cache") == ["fashion-mnist.lock"]


def fetch_in_a_process(system: Path, cache: Path, answers: multiprocessing.Queue[str]) -> None:
    setattr(fetch, "SYSTEM_FASHION_MNIST", system)  # noqa: B010 - in this process alone
    answers.put(content_digest(FashionMnist(download=False).load(cache, QUIET).train_images))


def test_two_jobs_may_fetch_at_once(whole: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    answers: multiprocessing.Queue[str] = context.Queue()
    jobs = [context.Process(target=fetch_in_a_process, args=(whole, tmp_path / "cache", answers)) for _ in range(2)]
    for job in jobs:
        job.start()
    digests = {answers.get(timeout=60) for _ in jobs}
    for job in jobs:
        job.join()
    assert len(digests) == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache_that_holds_everything_is_used(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(fetch, "SYSTEM_FASHION_MNIST", whole)
    cache = tmp_path / "cache"
    FashionMnist(download=False).load(cache, QUIET)
    (cache / "fashion-mnist.lock").unlink()
    cache.chmod(stat.S_IRUSR | stat.S_IXUSR)
    FashionMnist(download=False).load(cache, QUIET)
    cache.chmod(stat.S_IRWXU)


def test_what_the_cache_holds_is_read_without_its_lock(whole: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(fetch, "SYSTEM_FASHION_MNIST", whole)
    FashionMnist(download=False).load(tmp_path / "cache", QUIET)
    monkeypatch.setattr(fetch, "_locked", None)
    FashionMnist(download=False).load(tmp_path / "cache", QUIET)


@pytest.fixture
def cifar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(published, "CIFAR10", tiny_data.write_cifar10(tmp_path / "cifar"))
    return tmp_path / "cifar"


def archived(cifar: Path) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(cifar / published.CIFAR10_FOLDER, published.CIFAR10_FOLDER)
        tar.addfile(tarfile.TarInfo("../evil"))
    return buffer.getvalue()


def test_cifar10_is_downloaded_once_and_again_where_it_is_damaged(
    cifar: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: Server
) -> None:
    server.answers["/archive"] = archive = archived(cifar)
    monkeypatch.setattr(published, "CIFAR10_ADDRESS", f"{server.address}archive")
    with pytest.raises(DatasetError, match=r"cannot be downloaded .* another file \(its md5 differs\)"):
        Cifar10().load(tmp_path / "cache", QUIET)
    monkeypatch.setattr(published, "CIFAR10_ARCHIVE_MD5", published.md5(archive))
    first = Cifar10().load(tmp_path / "cache", QUIET)
    assert torch.equal(first.train_images, Cifar10().load(tmp_path / "cache", QUIET).train_images)
    assert len(server.asked) == 2
    assert entries(tmp_path / "cache") == ["cifar-10", "cifar-10.lock"]
    assert entries(tmp_path / "cache" / "cifar-10") == [published.CIFAR10_FOLDER]

    file = tmp_path / "cache" / "cifar-10" / published.CIFAR10_FOLDER / "data_batch_2"
    file.write_bytes(file.read_bytes()[:-1])
    said = Said()
    assert torch.equal(first.train_images, Cifar10().load(tmp_path / "cache", said).train_images)
    assert len(said.lines) == 1 and said.lines[0].startswith(f"{file}: is damaged")
    assert len(server.asked) == 3


def test_cifar10_without_network_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"dataset\.download=false: give a folder"):
        Cifar10(download=False).load(tmp_path / "cache", QUIET)


def test_debians_package_fills_the_cache(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(debian, "from_debian", lambda progress, scratch: whole)
    assert debian.main([f"cache={tmp_path / 'cache'}", "mu=5"]) == 0
    assert FashionMnist(download=False).load(tmp_path / "cache", QUIET).train_images.shape == (60, 1, 28, 28)
    monkeypatch.setattr(fetch, "fashion_mnist", None)
    for other in ("dataset=cifar10", f"dataset.root={whole}", "dataset.download=false"):
        assert debian.main([other]) == 0, "nothing is fetched that is not asked for"
    assert capsys.readouterr().err == ""


def test_without_apt_the_command_says_all_that_was_tried(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert debian.main([f"cache={tmp_path / 'cache'}"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: Fashion-MNIST was not found. Tried: ") and "no apt-get here" in said


@pytest.mark.slow
def test_debians_package_is_fetched_without_root(tmp_path: Path) -> None:
    if shutil.which("apt-get") is None:
        pytest.skip("no apt-get here")
    try:
        found = debian.from_debian(QUIET, tmp_path)
    except DatasetError as error:
        pytest.skip(f"no package source here: {error}")
    _, known = idx.read_folder(found)
    assert known, "they are the published files"


@pytest.mark.slow
def test_the_real_files_are_read_as_torchvision_reads_them() -> None:
    from dtsim.learning.data.operators import cure

    cure()
    from torchvision.datasets import FashionMNIST

    try:
        raw = FashionMnist().load(cache_folder(), QUIET)
    except DatasetError as error:
        pytest.skip(str(error))
    train, test = (FashionMNIST(cache_folder() / "fashion-mnist", train=part) for part in (True, False))
    assert torch.equal(raw.train_images[:, 0], train.data) and torch.equal(raw.train_labels, train.targets)
    assert torch.equal(raw.test_images[:, 0], test.data) and torch.equal(raw.test_labels, test.targets)
    assert raw.classes == train.classes
    assert torch.bincount(raw.train_labels).tolist() == [6_000] * 10
