"""Reading run folders: columns, variants, what is left out and why."""

import math
import subprocess
import sys
from pathlib import Path

import pytest

from dtsim.reporting.labels import labelled, usual, with_scheme
from dtsim.reporting.runs import ReportError, load, read
from dtsim.results.folders import find
from dtsim.results.seal import read_result, seal
from tests.run_folders import write_run


def test_a_run_is_a_row_with_its_measures_and_its_configuration(tmp_path: Path) -> None:
    folder = write_run(tmp_path, mu=5, seed=3, retrains=7)
    (row,) = load(tmp_path).to_dict("records")
    assert (row["scheme"], row["mu"], row["seed"], row["retrains"]) == ("proposed", 5, 3, 7)
    assert row["system_delay_mean_s"] == 0.1 + 0.01 * 3  # every bit of it
    assert math.isnan(row["prediction_mae"])  # an empty field
    assert row["folder"] == folder
    assert row["config.generator.amount"] == "fill"
    assert row["config.topology.station_flops"] == "[1.0, 2.0]"
    assert row["config.dataset.root"] == "null"
    assert row["versions.torch"] == "2.13.0"
    assert row["variant"] == ""


def test_the_variant_names_the_keys_that_differ_within_a_scheme(tmp_path: Path) -> None:
    for scheme in ("proposed", "single_timescale"):
        for amount in ("fill", "kl"):
            write_run(tmp_path, scheme, config={"generator.amount": amount, "scheme.associate": scheme})
    runs = load(tmp_path)
    assert sorted(set(runs["variant"])) == ["generator.amount=fill", "generator.amount=kl"]
    assert set(runs["scheme"]) == {"proposed", "single_timescale"}  # its own keys differ between schemes only
    assert set(labelled(runs[runs["config.generator.amount"] == "kl"])["variant"]) == {""}


def test_another_class_is_named_without_the_keys_that_follow_from_it(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    umi = {"channel._target_": "dtsim.physical.urban.UrbanMicro", "channel.fading": "rician", "channel.height_m": 10.0}
    write_run(tmp_path, seed=1, config=umi)
    assert list(load(tmp_path)["variant"]) == ["channel=free_space", "channel=umi"]
    write_run(tmp_path, seed=2, config={**umi, "channel.fading": "none"})
    assert list(load(tmp_path).sort_values("seed")["variant"]) == [
        "channel=free_space, channel.fading=rayleigh",
        "channel=umi, channel.fading=rician",
        "channel=umi, channel.fading=none",
    ]


def test_a_scheme_whose_own_key_was_changed_is_another_scheme(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=0, config={"scheme.associate": "slot"})
    assert set(load(tmp_path)["scheme"]) == {"proposed, associate=frame", "proposed, associate=slot"}


def test_what_differs_from_scheme_to_scheme_only_is_no_variant_but_is_told(tmp_path: Path) -> None:
    write_run(tmp_path, "proposed")
    write_run(
        tmp_path, "oracle", config={"channel._target_": "dtsim.physical.urban.UrbanMicro", "channel.fading": "none"}
    )
    runs = load(tmp_path)
    assert set(runs["variant"]) == {""}
    assert with_scheme(runs) == {"channel": {"oracle": "umi", "proposed": "free_space"}}


def test_a_key_that_older_runs_lack_and_a_column_that_newer_ones_have(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    write_run(tmp_path, seed=1, config={"drift.images": 10, "drift.noise": 0.1}, forgetting=0.02)
    runs = load(tmp_path).sort_values("seed")
    assert list(runs["variant"]) == ["drift.images=–", "drift.images=10"]  # the other key says nothing more
    assert math.isnan(runs["forgetting"].iloc[0])
    assert runs["forgetting"].iloc[1] == 0.02


def test_runs_that_are_there_twice_count_once(tmp_path: Path) -> None:
    write_run(tmp_path / "one", seed=0)
    write_run(tmp_path / "two", seed=0)
    write_run(tmp_path / "two", seed=1)
    assert list(load(tmp_path)["seed"]) == [0, 1]


def test_of_two_runs_that_only_their_digests_tell_apart_one_is_left_out_and_told(tmp_path: Path) -> None:
    first, second = (write_run(tmp_path / name, seed=0) for name in ("one", "two"))
    result = read_result(second)
    seal(second, {**result, "digest": "f" + result["digest"]})
    runs, failures = read(find(tmp_path))
    assert list(runs["folder"]) == [first]
    assert failures[second].startswith("left out: another run has the same scheme, mu, seed and keys")


def test_failed_damaged_and_half_written_folders_are_no_runs_but_are_told(tmp_path: Path) -> None:
    write_run(tmp_path, seed=0)
    failed, cut = write_run(tmp_path, seed=1), write_run(tmp_path, seed=2)
    (failed / "failed").write_text("Traceback ...\nDatasetError: train.gz: is truncated\n")
    text = (cut / "result.json").read_text()
    (cut / "result.json").write_text(text[: len(text) // 2])
    write_run(tmp_path, seed=3).rename(tmp_path / ".seed=3.4711")
    runs, failures = read(find(tmp_path))
    assert list(runs["seed"]) == [0]
    assert failures[failed] == "failed: DatasetError: train.gz: is truncated"
    assert failures[cut] == f"{cut}/result.json: is damaged, it is not valid JSON"
    assert set(failures) == {failed, cut}


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_path_without_runs_is_an_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ReportError, match=rf"PATH='{tmp_path / name}': there is no"):
        load(tmp_path / name)


def test_a_path_where_nothing_finished_is_an_error(tmp_path: Path) -> None:
    (write_run(tmp_path) / "failed").write_text("MemoryError\n")
    with pytest.raises(ReportError, match="none of the 1 runs under it has finished"):
        load(tmp_path)


def test_reading_imports_no_simulator() -> None:
    code = "import sys, dtsim.reporting.runs, dtsim.reporting.statistics; print({'torch', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr


def test_many_keys_that_differ_are_named_where_they_are_not_usual(tmp_path: Path) -> None:
    umi = {"channel._target_": "dtsim.physical.urban.UrbanMicro", "channel.fading": "rician", "channel.height_m": 10.0}
    for scheme in ("proposed", "oracle"):
        for changed in ({}, {"generator.amount": "kl"}, {"frames": 4}, umi, {"frames": 4, "generator.amount": "none"}):
            write_run(tmp_path, scheme, config=changed)
    runs = load(tmp_path)
    assert runs["variant"].unique().tolist() == [
        "usual", "channel=umi", "frames=4", "frames=4, generator.amount=none", "generator.amount=kl"
    ]  # fmt: skip
    assert usual(runs) == "frames=2, generator.amount=fill, channel=free_space"
    assert runs.groupby(["variant", "scheme"]).size().eq(1).all()
