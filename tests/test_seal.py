"""A finished run is whole: what is missing, cut or altered is no result, is named, and is redone."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dtsim.cli.app import app
from dtsim.results.folders import is_done, why_not_done
from dtsim.results.names import FAILED, LOG, RESULT
from dtsim.results.seal import DamagedRun, damage, read_result, seal
from dtsim.runner import experiment, jobs


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "slots.csv").write_text("user,delay_s\n0,0.5\n")
    (folder / "run.csv").write_text("mu\n1\n")
    seal(folder, {"digest": "abc"})
    return folder


def test_a_sealed_folder_lists_every_file_and_is_whole(sealed: Path) -> None:
    result = read_result(sealed)
    assert result["digest"] == "abc"
    assert set(result["files"]) == {"slots.csv", "run.csv"}
    assert result["files"]["run.csv"]["bytes"] == len("mu\n1\n")
    assert is_done(sealed)
    (sealed / FAILED).write_text("Traceback\nValueError: no\n")
    assert not is_done(sealed)
    assert why_not_done(sealed) == "ValueError: no"


def alter(path: Path) -> None:
    path.write_text(path.read_text().replace("0.5", "0.6"))


def rewrite(**changed: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / RESULT
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return change


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: alter(folder / "slots.csv"), "slots.csv: was altered, its SHA-256 differs"),
        (lambda folder: (folder / "slots.csv").write_text("user"), "slots.csv: is damaged, it has 4 bytes instead of"),
        (lambda folder: (folder / "run.csv").unlink(), "run.csv: is missing"),
        (lambda folder: fifo(folder / "run.csv"), "run.csv: is not a regular file"),
        (lambda folder: fifo(folder / RESULT), "result.json: is not a regular file"),
        (lambda folder: (folder / RESULT).unlink(), "result.json: is missing"),
        (lambda folder: (folder / RESULT).write_text("[]"), "result.json: is damaged, it is not a JSON object"),
        (lambda folder: (folder / RESULT).write_text('{"dig'), "result.json: is damaged, it is not valid JSON"),
        (lambda folder: (folder / RESULT).write_text("[" * 100_000), "result.json: is damaged, it is not valid JSON"),
        (rewrite(digest="abd"), "result.json: is damaged, its checksum differs"),
        (rewrite(files=None), "result.json: lists no files, it is damaged or was written by another version"),
    ],
)
def test_every_damage_is_named_in_one_line(sealed: Path, harm: Callable[[Path], object], said: str) -> None:
    harm(sealed)
    found = damage(sealed)
    assert found is not None
    assert said in found
    assert "\n" not in found
    assert not is_done(sealed)
    with pytest.raises(DamagedRun, match=re.escape(said)):
        read_result(sealed)


def test_a_damaged_result_is_redone_by_the_same_command_and_left_out_of_a_report(
    tiny: list[str], tmp_path: Path
) -> None:
    (job,) = jobs.plan([*tiny, f"outputs={tmp_path}"]).jobs
    folder = experiment.run(job.config)
    whole = (folder / "slots.csv").read_text()
    shutil.copytree(folder, other := folder.with_name("seed=1-abc"))
    (folder / "slots.csv").write_text(whole[:-40])
    answer = CliRunner().invoke(app, ["report", str(tmp_path), "--html", str(tmp_path / "page.html")])
    assert answer.exit_code == 0, answer.output
    assert f"{folder}/slots.csv: is damaged, it has" in answer.output.replace("\n", "")
    assert (tmp_path / "page.html").exists()
    experiment.run(job.config)
    assert (folder / "slots.csv").read_text() == whole
    assert is_done(folder)
    assert is_done(other)


def test_the_log_of_a_run_is_in_its_folder(tiny: list[str], tmp_path: Path) -> None:
    (job,) = jobs.plan([*tiny, f"outputs={tmp_path}"]).jobs
    folder = experiment.run(job.config)
    lines = (folder / LOG).read_text().splitlines()
    assert f"INFO run proposed mu=4 seed=0, digest {job.config.digest}" in lines[0]
    assert "versions: python" in lines[1]
    assert any("frames: started, 4 steps" in line for line in lines)
    assert lines[-1].endswith("INFO finished")
    assert LOG in read_result(folder)["files"]
    assert [path.name for path in folder.parent.iterdir() if path.suffix == ".log"] == []


def test_the_log_of_a_failed_run_stands_beside_its_traceback(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: object, frames: int) -> None:
        import warnings

        warnings.warn("something odd", stacklevel=1)
        raise RuntimeError("no more")

    monkeypatch.setattr("dtsim.simulation.loop.Simulation.run", fail)
    (job,) = jobs.plan([*tiny, f"outputs={tmp_path}"]).jobs
    with pytest.raises(experiment.JobError, match="no more"):
        experiment.run(job.config)
    assert "RuntimeError: no more" in (job.config.folder / FAILED).read_text()
    assert "WARNING UserWarning: something odd" in (job.config.folder / LOG).read_text()


def test_a_delay_that_is_not_finite_fails_by_name(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dtsim.physical import delay

    def endless(*arguments: object) -> object:
        found = true(*arguments)  # type: ignore[arg-type]
        found[2] = float("inf")
        return found

    true = delay.local_delay_s
    monkeypatch.setattr("dtsim.simulation.recorder.delay.local_delay_s", endless)
    (job,) = jobs.plan([*tiny, f"outputs={tmp_path}"]).jobs
    with pytest.raises(experiment.JobError, match=r"local_delay_s of user 2 in slot 0 is inf"):
        experiment.run(job.config)
    assert not (job.config.folder / RESULT).exists()
