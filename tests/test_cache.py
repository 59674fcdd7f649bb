import multiprocessing
import os
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dtsim.core.cache import Cache, digest_of, write_atomically
from dtsim.core.progress import Progress


class Heard(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_an_entry_is_made_once_and_found_again(tmp_path: Path) -> None:
    made = []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"weights": torch.arange(3.0), "curve": [{"step": 1}]}

    cache = Cache(tmp_path)
    first = cache.get("kind", {"a": 1}, make)
    second = cache.get("kind", {"a": 1}, make)
    torch.testing.assert_close(second["weights"], first["weights"], rtol=0, atol=0)
    assert second["curve"] == [{"step": 1}]
    assert len(made) == 1
    cache.get("kind", {"a": 2}, make)
    assert len(made) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_a_damaged_entry_is_said_and_made_again(tmp_path: Path, damage: str) -> None:
    heard = Heard()
    cache = Cache(tmp_path, heard)
    cache.get("kind", "x", lambda: {"value": torch.ones(50)})
    (file,) = tmp_path.glob("kind/*.pt")
    data = bytearray(file.read_bytes())
    if damage == "flipped":
        data[len(data) // 2] ^= 1
    file.write_bytes({"truncated": bytes(data[:-7]), "flipped": bytes(data), "empty": b""}[damage])
    again = cache.get("kind", "x", lambda: {"value": torch.zeros(50)})
    torch.testing.assert_close(again["value"], torch.zeros(50), rtol=0, atol=0)
    assert len(heard.lines) == 1
    assert "damaged" in heard.lines[0]
    assert str(file) in heard.lines[0]


def _slow_entry(root: Path, log: Path) -> None:
    def make() -> dict[str, Any]:
        with log.open("a") as file:
            file.write("made\n")
        time.sleep(0.3)
        return {"value": torch.ones(1)}

    assert Cache(root).get("kind", "x", make)["value"] == 1


def test_jobs_that_ask_at_once_make_it_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    jobs = [context.Process(target=_slow_entry, args=(tmp_path, log)) for _ in range(3)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0, 0, 0]
    assert log.read_text() == "made\n"


def test_an_interrupted_maker_leaves_nothing(tmp_path: Path) -> None:
    def make() -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Cache(tmp_path).get("kind", "x", make)
    assert not list(tmp_path.rglob("*.pt"))


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    write_atomically(file, b"old")

    def full(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_a_digest_depends_on_content_and_not_on_order() -> None:
    assert digest_of({"a": 1, "b": [2]}) == digest_of({"b": [2], "a": 1})
    assert digest_of({"a": 1}) != digest_of({"a": 1.5})
