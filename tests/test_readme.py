"""README and pages: every command in them works. Ordinary tests run them on tiny data, slow ones as they are written.

The blocks of a page are run in order in one folder, as a reader would: `sh` line by line, `python` in one session. A
`python` or `yaml` block that begins with the path of a file is written there. A command that an earlier page has is not
run again, but for README and tutorial, which are run whole.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from dtsim.cli.app import app
from tests.tiny_data import write_image_folder

ROOT = Path(__file__).parent.parent
FIRST = ["README.md", "docs/tutorial.md"]
"""A slow test goes through these pages with real data, as they are written."""
PAGES = [*FIRST, "CONTRIBUTING.md"]
PAGES += sorted({page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").rglob("*.md")} - {*FIRST})

NOT_RUN: dict[str, str] = {
    "make setup": "makes an environment: the tests are in one",
    "make data": "needs the network or a Debian mirror",
    ". .venv/bin/activate": "the tests are in an environment",
    "make run": "`dtsim run scheme=proposed mu=20` after a set-up",
    "make test": "would run this test again",
    "make lint types docs": "what .ci/run does after the tests",
    "make docs-serve": "serves until it is stopped; test_docs.py builds the site",
    "python -m pip install --pre --no-deps hydra-core==1.4.0rc3 omegaconf==2.4.1rc1": "changes the environment",
    "python -m pytest -q tests/test_sweep.py tests/test_config.py tests/test_input.py tests/test_composer.py "
    "tests/test_cli.py": "would run tests again",
    "make reproduce": "takes an hour; test_reproduce.py runs a small one",
    "make race": "takes half an hour; test_race.py runs a small one",
    "make map": "takes hours; test_tiles.py runs a small one",
    "make reproduce QUICK=1": "takes minutes; test_reproduce.py runs a smaller one",
    "export DTSIM_CACHE=/shared/dtsim-cache": "a disk of the reader's",
    "dtsim run -m hydra/launcher=slurm hydra.launcher.partition=short outputs=/shared/outputs "
    "scheme=proposed,oracle seed=0,1,2": "needs a cluster; test_sweep.py runs submitit's local launcher",
    "dtsim run -m hydra/launcher=slurm hydra.launcher.partition=short hydra.launcher.timeout_min=30 "
    'hydra.launcher.mem_gb=2 hydra.launcher.array_parallelism=36 mu=100 "seed=range(30)" '
    "scheme=proposed,without_dt,without_il,single_timescale outputs=/shared/outputs": "needs a cluster, likewise",
    'dtsim run -m hydra/launcher=ray_cluster hydra.launcher.ray.init.address=auto mu=100 "seed=range(30)" '
    "scheme=proposed,without_dt,without_il,single_timescale outputs=/shared/outputs": "needs a cluster, likewise",
    'dtsim run -m hydra/sweeper=optuna generator.amount=kl "generator.kl_scale_nat=interval(0.05,1)" '
    "solver=cpsat,greedy": "takes twenty runs; test_study.py does a smaller study",
    "dtsim run tracker=tensorboard": "test_tracker.py reads the event files of such a run",
    "dtsim run -m tracker=mlflow tracker.uri=http://localhost:5000 seed=0,1,2": "needs a server; test_tracker.py",
    "dtsim run \"drift.schedule='outputs/proposed/mu=20/seed=0-1a2b3c4d/drift.csv'\"": (
        "names a folder of the reader's; test_trace.py feeds a run's files back"
    ),
    "dtsim watch outputs/proposed/mu=20/seed=0-*": "names a folder of the reader's; test_watch.py watches a run",
    "dtsim watch outputs/proposed/mu=20/seed=0-* --gif run.gif": "likewise",
}
"""Commands that no test runs, and why."""

CHECKED = {
    "dtsim run -m hydra/launcher=laptop seed=0,1,2",
    "dtsim run -m hydra/launcher=laptop scheme=proposed,without_dt seed=0,1,2",
    "dtsim run -m hydra/launcher=laptop hydra.launcher.n_jobs=2 seed=0,1,2",
    "dtsim run experiment=paper",
}
"""Ordinary tests only check the jobs of these: processes take seconds to start, and test_sweep.py starts some."""

BRIEF = {
    "dtsim bench allocation": ["--allocators=equal,proportional", "--users=3", "--slots=20", "--repeats=1"],
    "dtsim bench allocation --mode contiguous": [
        "--allocators=proportional,drift_plus_penalty",
        "--seeds=3",
        "--worlds=1",
        "--frames=1",
        "slots_per_frame=4",
    ],
    "dtsim bench association": [
        "--solvers=greedy,annealing",
        "--sizes=50/5",
        "--loads=equal",
        "--seeds=1",
        "--time-limit=1",
    ],
    "dtsim run experiment=paper": ["dataset=fashion_mnist"],
    "dtsim run experiment=paper_cpu": ["model=resnet8"],
    "dtsim run experiment=small_data dataset=image_folder dataset.root=photos drift.unseen_classes=1": [
        "pretraining.min_steps=0"
    ],
    "dtsim info": ["model=small_cnn"],
    "dtsim info dataset=image_folder dataset.root=photos drift.unseen_classes=1": ["model=small_cnn"],
    # One seed is enough where nothing is averaged.
    "dtsim run -m scheme=proposed,without_dt,without_il,single_timescale,oracle,never_retrain mu=20 seed=0,1,2": [
        "seed=0"
    ],
}
"""What ordinary tests add to a command, beside tiny data."""

NOT_EXECUTED = {
    "docs/allocation.md": "compiles for seconds; test_allocation_environment.py makes both environments",
    "docs/api/running.md": "runs on real data; test_api.py does the same on tiny data",
    "docs/howto/python.md": "runs on real data; test_api.py and test_examples.py do the same on tiny data",
}
"""Pages whose Python no ordinary test executes, and why."""

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<kind>\w+)\n(?P<text>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"^# (\S+/\S+\.(?:py|yaml))\n")


def blocks(page: str) -> list[tuple[str, str]]:
    """Kind and text of the fenced blocks of a page."""
    text = (ROOT / page).read_text()
    return [(found["kind"], textwrap.dedent(found["text"])) for found in _BLOCK.finditer(text)]


def commands(text: str) -> list[str]:
    """The commands of a `sh` block without comments."""
    lines = [re.sub(r"\s+#.*", "", line).rstrip() for line in text.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def shown(page: str) -> list[str]:
    """The commands of all `sh` blocks of a page."""
    return [command for kind, text in blocks(page) if kind == "sh" for command in commands(text)]


ALL = [command for page in PAGES for command in shown(page)]
RUN = [page for page in PAGES if any(kind in ("sh", "python") for kind, _ in blocks(page))]


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 160


def test_commands_are_read() -> None:
    assert commands("a b   # c\n# d\n\nx 'y # z'\n")[0] == "a b"
    assert commands("a \\\n  b\n") == ["a    b"]
    assert {"make run", "dtsim run --help", "dtsim report tutorial"} < set(ALL)


def test_what_is_not_run_is_said_and_there_is_no_more_of_it() -> None:
    others = {command for command in ALL if not command.startswith("dtsim ")}
    assert others <= set(NOT_RUN), "a command of a page must be run, or be in NOT_RUN with the reason"
    for known in (set(NOT_RUN), CHECKED, set(BRIEF)):
        assert known <= set(ALL), "in a table of this file, but on no page"
    assert set(NOT_EXECUTED) <= set(RUN)
    named = {name for why in [*NOT_RUN.values(), *NOT_EXECUTED.values()] for name in re.findall(r"test_\w+\.py", why)}
    assert named and all((ROOT / "tests" / name).is_file() for name in named)


def test_every_target_of_make_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in PAGES:
        said = re.findall(r"`make ([^`]+)`", (ROOT / page).read_text())
        said += [command.removeprefix("make ") for command in shown(page) if command.startswith("make ")]
        named = {word for words in said for word in words.split() if "=" not in word}
        assert named <= targets, page


def test_links_of_the_readme_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text()):
            assert (ROOT / link).exists(), f"{page}: {link}"


def arguments_of(command: str, tiny: list[str]) -> list[str]:
    """What follows `dtsim`, on tiny data: other keys than the command sets, and 2, 3, ... in place of its `mu`."""
    arguments = [_few(argument) for argument in shlex.split(command)[1:]]
    more = BRIEF.get(command, [])
    if arguments[0] not in ("run", "check", "info") or "--help" in arguments:
        return [*arguments, *more]
    if command in CHECKED:
        arguments = ["check", *arguments[1:]]
    replaced = {key.split("=")[0] for key in more}
    kept = [argument for argument in arguments if argument.split("=")[0] not in replaced]
    given = {argument.split("=")[0] for argument in kept if "=" in argument}
    return [*kept, *(key for key in tiny if key.split("=")[0] not in given), *more]


def _few(argument: str) -> str:
    key, _, values = argument.partition("=")
    return f"mu={','.join(str(2 + place) for place in range(values.count(',') + 1))}" if key == "mu" else argument


def prepare(page: str, folder: Path, runs: Path) -> None:
    """What a page takes for granted: images, earlier results, and the files that it shows."""
    if "dataset.root=photos" in (ROOT / page).read_text():
        write_image_folder(folder / "photos")
    if page.startswith("docs/howto/"):
        shutil.copytree(runs / "makespan", folder / "outputs")
    for kind, text in blocks(page):
        if kind == "csv":
            (folder / "schedule.csv").write_text(text)


def execute(text: str, names: dict[str, Any], folder: Path) -> None:
    """Write a block that begins with the path of a file; execute another one."""
    named = _FILE.match(text)
    if named:
        (folder / named[1]).parent.mkdir(parents=True, exist_ok=True)
        (folder / named[1]).write_text(text)
    else:
        exec(compile(text, "block", "exec"), names)


@pytest.mark.parametrize(
    "page", [page if page == "README.md" else pytest.param(page, marks=pytest.mark.slow) for page in RUN]
)
def test_the_commands_of_a_page_run_on_tiny_data(
    page: str, tiny: list[str], real_runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.syspath_prepend(tmp_path)
    prepare(page, tmp_path, real_runs)
    names: dict[str, Any] = {}
    before = {command for earlier in PAGES[: PAGES.index(page)] for command in shown(earlier)}
    for kind, text in blocks(page):
        if kind in ("python", "yaml") and page not in NOT_EXECUTED:
            if kind == "python" or _FILE.match(text):
                execute(text, names, tmp_path)
        elif kind == "sh":
            for command in commands(text):
                if command not in NOT_RUN and not (command in before and page not in FIRST):
                    done = CliRunner().invoke(app, arguments_of(command, tiny))
                    assert done.exit_code == 0, f"{command}\n{done.output}\n{done.exception!r}"
    if page == "docs/tutorial.md":
        assert (tmp_path / "tutorial.png").stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize("page", FIRST)
def test_the_commands_of_a_page_run_as_they_are_written(page: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    session = ""  # of Python: what a reader has typed so far
    for kind, text in blocks(page):
        if kind == "python":
            session += text
            steps = [[sys.executable, "-c", session]]
        elif kind == "sh":
            steps = [["sh", "-c", command] for command in commands(text) if command not in NOT_RUN]
        else:
            continue
        for step in steps:
            done = subprocess.run(step, cwd=tmp_path, env=environment, capture_output=True, text=True)
            assert done.returncode == 0, f"{step[-1]}\n{done.stdout}\n{done.stderr}"
