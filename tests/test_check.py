"""`dtsim check` refuses what `run` would refuse before its first frame, and writes nothing."""

import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

import pytest
import torch

from dtsim.core.parts import ConfigError
from dtsim.core.progress import Delayed, Phase, Progress
from dtsim.runner import jobs
from tests.commands import dtsim


def refusals(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        jobs.plan(list(overrides), reads_data=True)
    return error.value.lines


@pytest.mark.parametrize(
    ("override", "said"),
    [
        (
            "model.channels=[8,8,8,8,8]",
            "model.channels=[8, 8, 8, 8, 8]: images of 28×28 pixels can be halved at most 4",
        ),
        ("drift.unseen_classes=12", "drift.unseen_classes=12: the data set has 10 classes"),
        ("dataset.root=/nowhere", "dataset.root=/nowhere"),
        ("dataset.test_images=0", "dataset.test_images=0: must be > 0"),
    ],
)
def test_what_run_would_refuse_check_refuses(tiny: list[str], override: str, said: str) -> None:
    lines = refusals(*tiny, override)
    assert any(line.startswith(said) for line in lines), lines


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused(tiny: list[str]) -> None:
    assert refusals(*[key for key in tiny if key != "device=cpu"], "device=cuda") == [
        "device='cuda': there is no CUDA GPU here; must be auto or cpu"
    ]


def test_a_flat_policy_for_another_number_of_users_is_refused(tiny: list[str]) -> None:
    own = [key for key in tiny if not key.startswith("allocator")]
    (line,) = refusals(*own, "allocator=ddpg_paper", "allocator.train_users=20")
    assert "trained for K=20, M=3, cannot serve K=4" in line


def test_a_split_that_is_smaller_than_asked_is_said(tiny: list[str]) -> None:
    own = [key for key in tiny if not key.startswith("dataset.test_images")]
    asked = jobs.plan([*own, "dataset.test_images=9000"], reads_data=True)
    assert asked.notes == ["dataset.test_images=9000: the data set has only 500 for it"]


def test_check_writes_nothing(tiny: list[str], tmp_path: Path) -> None:
    own = [key for key in tiny if not key.startswith("cache")]
    outputs, cache = tmp_path / "deep" / "outputs", tmp_path / "deep" / "cache"
    done = dtsim("check", "-m", *own, "mu=2,3", f"outputs={outputs}", f"cache={cache}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 jobs can run" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_outputs_below_a_file_are_refused(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (line,) = refusals(*tiny, f"outputs={tmp_path}/file/x")
    assert line == f"outputs='{tmp_path}/file/x': must be a folder that can be written (Not a directory)"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no /proc here")
def test_outputs_where_even_root_creates_nothing_are_refused(tiny: list[str]) -> None:
    (line,) = refusals(*tiny, "outputs=/proc/nothing")
    assert line == "outputs='/proc/nothing': must be a folder that can be written (no permission)"


def test_check_has_help() -> None:
    done = dtsim("check", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("dtsim check [HYDRA FLAGS]")


class Impostor:
    """Offers nothing, and must not be called."""

    called = 0

    def __init__(self, **keys: object) -> None:
        type(self).called += 1


def not_annotated(**keys: object):  # type: ignore[no-untyped-def]
    Impostor.called += 1


def runs_a_command(**keys: object) -> int:
    Impostor.called += 1
    return 0


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("tests.test_check.Impostor", "must offer solve, as Solver asks"),
        ("tests.test_check.not_annotated", "must be a class, or a function annotated with the class that it returns"),
        ("tests.test_check.runs_a_command", "must offer solve, as Solver asks"),
        ("os.system", "must be a class, or a function"),
        ("subprocess.Popen", "must offer solve, as Solver asks"),
    ],
)
def test_a_target_that_is_no_part_is_refused_and_never_called(tiny: list[str], target: str, said: str) -> None:
    lines = refusals(*tiny, f"solver._target_={target}")
    assert any(said in line and f"solver._target_='{target}'" in line for line in lines), lines
    assert Impostor.called == 0


class Shown(Progress):
    """Keeps the names of phases, innermost last, and how far the outermost has come."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.is_open = Event()
        self.done = 0.0

    @contextmanager
    def phase(self, name: str, total: float) -> Iterator[Phase]:
        self.opened.append(name)
        yield self
        self.opened.append(f"{name} ends")

    def advance(self, steps: float = 1, note: str = "") -> None:
        self.done += steps
        self.is_open.set()


def test_a_long_phase_is_shown_though_it_does_not_advance() -> None:
    shown = Shown()
    with Delayed(shown, 0.05).phase("checking jobs", 2) as phase:
        phase.advance(0.5)
        assert shown.is_open.wait(20.0)  # nothing advances: torch is being imported
        assert (shown.opened, shown.done) == (["checking jobs"], 0.5)
        phase.advance()
        assert shown.done == 1.5
    assert shown.opened == ["checking jobs", "checking jobs ends"]


def test_a_short_phase_is_not_shown() -> None:
    shown = Shown()
    with Delayed(shown, 3600.0).phase("checking jobs", 2) as phase:
        phase.advance(2)
    assert shown.opened == []
    with Delayed(shown, 0.05).phase("checking jobs", 2):
        pass
    time.sleep(0.2)  # its time passes after its end
    assert shown.opened == []


def test_an_inner_phase_is_shown_below_the_outer_one() -> None:
    shown = Shown()
    delayed = Delayed(shown, 0.2)
    with delayed.phase("checking jobs", 2), delayed.phase("images", 9):
        assert shown.is_open.wait(20.0)
    assert shown.opened == ["checking jobs", "images", "images ends", "checking jobs ends"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounts need root")
def test_a_finished_run_on_a_read_only_disk_can_be_asked_for(
    tiny: list[str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    own = [key for key in tiny if not key.startswith("cache")]
    keys = ["run", *own, f"outputs={tmp_path / 'disk' / 'outputs'}", f"cache={tmp_path / 'disk' / 'cache'}"]
    (tmp_path / "disk").mkdir()
    assert dtsim(*keys).returncode == 0

    def mount(*options: str) -> Callable[[], object]:
        return lambda: subprocess.run(["mount", *options, str(tmp_path / "disk")], capture_output=True, check=True)

    try:
        mount("--bind", str(tmp_path / "disk"))()
        request.addfinalizer(lambda: subprocess.run(["umount", str(tmp_path / "disk")], check=True))
        mount("-o", "remount,bind,ro")()
    except subprocess.CalledProcessError:
        pytest.skip("this machine mounts nothing")
    again = dtsim(*keys)
    assert again.returncode == 0, again.stderr
    assert "already done" in again.stderr
    elsewhere = dtsim(*[key for key in keys if not key.startswith("outputs")], f"outputs={tmp_path / 'elsewhere'}")
    assert elsewhere.returncode == 0, elsewhere.stderr  # a cache that holds everything is used as it is
    refused = dtsim(*keys, "seed=7")
    assert refused.returncode == 2
    assert re.search(r"outputs='.*': must be a folder that can be written", refused.stderr)


def test_a_cache_that_is_no_folder_is_refused(tiny: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    own = [key for key in tiny if not key.startswith("cache")]
    for cache in ("/dev/null", tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(ConfigError, match=f"cache='{cache}': must be a folder, "):
            jobs.plan([*own, f"cache={cache}", f"outputs={tmp_path}"], reads_data=True)
