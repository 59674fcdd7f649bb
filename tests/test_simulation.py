"""The whole loop on tiny data: what every scheme must satisfy, recomputed from the CSVs alone."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest
import torch

from dtsim.core.parts import ConfigError
from dtsim.reporting.runs import columns_of, load
from dtsim.results.formats import read_table
from dtsim.results.schema import SCHEMAS
from dtsim.results.summary import calibration_error, retrain_errors
from dtsim.runner import assembly, experiment, jobs
from dtsim.simulation.world import Slot, Uplinks
from tests.tiny_data import write_image_folder

Run: TypeAlias = Callable[..., Path]

SCHEMES = ["proposed", "without_dt", "without_il", "single_timescale", "oracle", "never_retrain"]
SCHEMES += ["prior_correction", "scratch_with_twin", "every_slot_windowed"]
WORLD = ["frame", "slot", "user", "region", "x_m", "y_m", "captured_bytes", "images"]


@pytest.fixture(scope="session")
def ran(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Folder of a run by (scheme, further overrides); each is run once."""
    outputs = tmp_path_factory.mktemp("outputs")
    done = {}

    def run(scheme: str, *overrides: str) -> Path:
        key = (scheme, *overrides)
        if key not in done:
            asked = jobs.plan([*tiny, f"scheme={scheme}", f"outputs={outputs}", "accuracy_threshold=0.97", *overrides])
            done[key] = experiment.run(asked.jobs[0].config)
        return done[key]

    return run


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_file_has_its_columns_and_rows(ran: Run, scheme: str) -> None:
    folder = ran(scheme)
    tables = {file: pd.read_csv(folder / file) for file in SCHEMAS}
    for file, columns in SCHEMAS.items():
        assert list(tables[file].columns) == list(columns)
        assert (tables[file]["scheme"] == scheme).all()
    assert len(tables["slots.csv"]) == 2 * 2 * 4
    assert len(tables["frames.csv"]) == 2 * 4
    assert len(tables["run.csv"]) == 1
    assert len(tables["associations.csv"]) == (4 if scheme in ("single_timescale", "every_slot_windowed") else 2)
    result = json.loads((folder / "result.json").read_text())
    assert result["config"]["scheme"]["name"] == scheme
    assert folder.name == f"seed=0-{result['digest']}"
    assert result["versions"]["torch"]


def test_parquet_holds_what_csv_holds_and_reports_read_both(ran: Run, tiny: list[str], tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    keys = [*tiny, "scheme=proposed", "accuracy_threshold=0.97", "format=parquet", f"outputs={tmp_path}"]
    (job,) = jobs.plan(keys).jobs
    csv, parquet = ran("proposed"), experiment.run(job.config)
    assert csv.name == parquet.name  # the same digest
    assert {path.name for path in parquet.iterdir()} == {
        path.name.replace("slots.csv", "slots.parquet").replace("frames.csv", "frames.parquet")
        for path in csv.iterdir()
    }
    for file in ("slots.csv", "frames.csv"):
        pd.testing.assert_frame_equal(read_table(parquet / file), read_table(csv / file))
    assert read_table(parquet / "run.csv")["accuracy_mean"].equals(read_table(csv / "run.csv")["accuracy_mean"])
    columns = columns_of(load(tmp_path).iloc[0], "frames.csv", ["user", "accuracy"])
    assert columns.equals(pd.read_csv(csv / "frames.csv", usecols=["user", "accuracy"]))


def test_parquet_without_pyarrow_is_refused_before_a_run_and_named_by_a_report(
    tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dtsim.runner.check.has_parquet", lambda: False)
    with pytest.raises(ConfigError, match="format=parquet: must be csv unless pyarrow is installed"):
        jobs.plan([*tiny, "format=parquet", f"outputs={tmp_path}"])
    (tmp_path / "slots.parquet").touch()
    monkeypatch.setattr("dtsim.results.formats.has_parquet", lambda: False)
    with pytest.raises(ValueError, match="needs pyarrow"):
        read_table(tmp_path / "slots.csv")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stranger_can_recompute_every_delay_from_slots_csv(ran: Run, scheme: str) -> None:
    slots = pd.read_csv(ran(scheme) / "slots.csv")
    upload_s = 8 * slots.upload_bytes / slots.rate_bps + slots.downlink_delay_s
    local_s = slots.flop_per_byte * (slots.captured_bytes - slots.upload_bytes) / slots.local_flops
    work, compute = slots.flop_per_byte * slots.upload_bytes, slots.compute_flops
    compute_s = np.where(work > 0, work / compute, 0)
    retrain_s = np.where(slots.retrain_flop > 0, slots.retrain_flop / compute, 0)
    delay_s = np.maximum(local_s, upload_s + compute_s + retrain_s)
    for column, values in {
        "upload_delay_s": upload_s,
        "local_delay_s": local_s,
        "compute_delay_s": compute_s,
        "retrain_delay_s": retrain_s,
        "delay_s": delay_s,
    }.items():
        np.testing.assert_allclose(slots[column], values, rtol=1e-9, atol=1e-15, err_msg=column)
    given = slots.groupby(["slot", "station"])["compute_flops"].sum()
    capacity = slots.groupby(["slot", "station"])["station_flops"].first()
    assert (given <= capacity * (1 + 1e-12)).all()  # (6)
    assert ((slots.upload_bytes >= 0) & (slots.upload_bytes <= slots.captured_bytes)).all()
    run = pd.read_csv(ran(scheme) / "run.csv").iloc[0]
    makespan = pd.Series(delay_s).groupby(slots.slot).max()
    assert run.system_delay_mean_s == pytest.approx(makespan.mean())
    assert run.system_delay_p95_s == pytest.approx(np.percentile(makespan, 95))
    optimum = slots.groupby("slot")["objective_optimum_s"].first()
    assert (optimum <= makespan * (1 + 1e-9)).all()
    assert run.allocator_gap_mean == pytest.approx((makespan / optimum - 1).mean(), abs=1e-12)
    assert run.accuracy_mean == pytest.approx((slots.correct / slots.images).mean())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_frames_csv_agrees_with_slots_csv(ran: Run, scheme: str) -> None:
    slots, frames = (pd.read_csv(ran(scheme) / file) for file in ("slots.csv", "frames.csv"))
    by_frame = slots.groupby(["frame", "user"])
    assert frames.accuracy.to_numpy() == pytest.approx(
        (by_frame["correct"].sum() / by_frame["images"].sum()).to_numpy()
    )
    assert frames.retrain_flop.to_numpy() == pytest.approx(by_frame["retrain_flop"].sum().to_numpy())
    assert (frames.breakout == (frames.accuracy < 0.97)).all()
    assert (frames.loc[frames.retrain == 0, ["samples_real", "samples_generated"]] == 0).all(axis=None)


@pytest.mark.parametrize("scheme", SCHEMES[1:])
def test_same_seed_same_world_under_every_scheme(ran: Run, scheme: str) -> None:
    ours, theirs = (pd.read_csv(ran(name) / "slots.csv") for name in ("proposed", scheme))
    pd.testing.assert_frame_equal(ours[WORLD], theirs[WORLD], check_exact=True)
    same_link = ours.station == theirs.station
    assert same_link.any()
    for column in ("snr_db", "rate_bps"):
        assert (ours.loc[same_link, column] == theirs.loc[same_link, column]).all()


def test_same_seed_same_gains_and_images_slot_by_slot(tiny: list[str]) -> None:
    """The links to all BSs and the very images, before any scheme chooses among them."""

    def world(scheme: str, seed: int) -> list[tuple[Slot, Uplinks]]:
        config = jobs.plan([*tiny, f"scheme={scheme}", f"seed={seed}"]).jobs[0].config
        simulation = assembly.assemble(config)
        return [pair for frame in simulation.world.frames(2) for pair in zip(frame.slots, frame.links, strict=True)]

    first = world("proposed", 0)
    for scheme in SCHEMES[1:]:
        for (ours, our_links), (theirs, their_links) in zip(first, world(scheme, 0), strict=True):
            assert (our_links.rate_bps == their_links.rate_bps).all()
            for mine, other in zip(ours.captures, theirs.captures, strict=True):
                assert (mine.test == other.test).all()
                assert (mine.increment == other.increment).all()
    assert not (first[0][1].rate_bps == world("proposed", 1)[0][1].rate_bps).any()


def test_schemes_do_what_they_are_named_for(ran: Run) -> None:
    frames = {scheme: pd.read_csv(ran(scheme) / "frames.csv") for scheme in SCHEMES}
    slots = {scheme: pd.read_csv(ran(scheme) / "slots.csv") for scheme in SCHEMES}
    assert frames["never_retrain"].retrain.sum() == 0
    assert slots["never_retrain"].retrain_flop.sum() == 0
    for scheme in ("proposed", "single_timescale", "oracle"):
        retrained = frames[scheme][frames[scheme].retrain > 0]
        # Nothing is generated in a region from which nobody has uploaded yet; elsewhere the set is filled up.
        filled = retrained[retrained.samples_generated > 0]
        assert len(filled)
        if scheme != "single_timescale":  # whose frame may hold updates of both kinds
            assert (filled.samples_real + filled.samples_generated == 60).all()
        assert retrained.kl.notna().equals(retrained.samples_generated > 0)
    for scheme in ("without_dt", "without_il"):
        retrained = frames[scheme][frames[scheme].retrain > 0]
        assert len(retrained)
        assert (retrained.samples_generated == 0).all()
    # Once a frame: shares are held. Every slot: they follow what was captured.
    held = slots["without_dt"].assign(share=lambda t: t.compute_flops / t.station_flops)
    assert (held.groupby(["frame", "user"])["share"].std() < 1e-9).all()
    free = slots["proposed"].assign(share=lambda t: t.compute_flops / t.station_flops)
    assert (free.groupby(["frame", "user"])["share"].std() > 1e-6).any()
    for scheme, in_a_frame in (("proposed", 1), ("single_timescale", 2)):  # decided anew in every slot, or once
        assert slots[scheme].groupby(["frame", "user"])["retrain"].nunique().max() == in_a_frame
    assert (frames["proposed"].query("frame == 0").retrain == 0).all()  # nothing was uploaded before


def test_the_charged_work_is_the_measured_one(ran: Run) -> None:
    frames = pd.read_csv(ran("proposed") / "frames.csv")
    result = json.loads((ran("proposed") / "result.json").read_text())
    retrained = frames[frames.retrain > 0]
    samples = retrained.samples_real + retrained.samples_generated
    per_sample = retrained.retrain_flop / samples / result["config"]["retraining"]["epochs"]
    assert per_sample.to_numpy() == pytest.approx(result["model"]["training_flop"])
    slots = pd.read_csv(ran("proposed") / "slots.csv")
    assert slots.flop_per_byte.iloc[0] == pytest.approx(result["model"]["forward_flop"] / 784)


@pytest.mark.parametrize("charge", ["real", "none"])
def test_what_is_charged_is_a_choice(ran: Run, charge: str) -> None:
    frames = pd.read_csv(ran("proposed", f"retraining.charge={charge}") / "frames.csv")
    work = frames[frames.retrain > 0].retrain_flop
    full = pd.read_csv(ran("proposed") / "frames.csv")
    assert (work == 0).all() if charge == "none" else work.sum() < full.retrain_flop.sum()


def test_objective_sum_adds_the_stations(ran: Run) -> None:
    folder = ran("proposed", "objective=sum")
    slots, run = pd.read_csv(folder / "slots.csv"), pd.read_csv(folder / "run.csv").iloc[0]
    total = slots.groupby(["slot", "station"])["delay_s"].max().groupby("slot").sum()
    assert run.system_delay_mean_s == pytest.approx(total.mean())
    assert run.allocator_gap_mean >= -1e-9


def test_an_mu_without_images_has_no_accuracy_and_breaks_nothing(ran: Run) -> None:
    folder = ran("proposed", "traffic.min_images=0", "traffic.max_images=1")
    slots = pd.read_csv(folder / "slots.csv")
    idle = slots[slots.images == 0]
    assert len(idle)
    assert idle.accuracy.isna().all()
    assert (idle.breakout == 0).all()
    assert slots[slots.images > 0].accuracy.notna().all()


def test_the_same_run_twice_gives_the_same_bytes(ran: Run, tiny: list[str], tmp_path: Path) -> None:
    wall = {"run.csv": "wall_time_s", "learning_curve.csv": "seconds", "associations.csv": "solve_time_s"}
    config = jobs.plan([*tiny, f"outputs={tmp_path}", "accuracy_threshold=0.97"]).jobs[0].config
    again = experiment.run(config)
    for file in SCHEMAS:
        first, second = (pd.read_csv(folder / file, dtype=str) for folder in (ran("proposed"), again))
        if file in wall:
            one, two = (table.filter(regex=f"(?<!{wall[file]})$") for table in (first, second))
            pd.testing.assert_frame_equal(one, two)
        else:
            assert (ran("proposed") / file).read_bytes() == (again / file).read_bytes()


def shadowed(ran: Run, *overrides: str) -> Path:
    return ran("proposed", "twin/predictor=shadow", "frames=3", "twin.predictor.holdout_share=0.3", *overrides)


def test_a_shadows_inference_is_charged_to_the_mu_it_was_for(ran: Run) -> None:
    folder = shadowed(ran)
    frames, slots = (pd.read_csv(folder / file) for file in ("frames.csv", "slots.csv"))
    forward_flop = json.loads((folder / "result.json").read_text())["model"]["forward_flop"]
    samples = frames["prediction_flop"] / forward_flop
    assert (samples == samples.round()).all()
    assert (samples[frames["frame"] == 0] == 0).all()  # nothing was held out yet
    assert samples.sum() > 0
    kept = frames[frames["retrain"] == 0]
    pd.testing.assert_series_equal(kept["retrain_flop"], kept["prediction_flop"], check_names=False)
    charged = slots.groupby(["frame", "user"])["retrain_flop"].sum().to_numpy()
    np.testing.assert_allclose(charged, frames["retrain_flop"])
    free = pd.read_csv(shadowed(ran, "retraining.charge=none") / "frames.csv")
    assert (free["retrain_flop"] == 0).all()
    assert free["prediction_flop"].sum() > 0


def test_the_bound_predicts_what_an_untouched_model_does(ran: Run) -> None:
    frames = pd.read_csv(ran("proposed", "twin/predictor=oracle") / "frames.csv")
    np.testing.assert_allclose(frames["predicted_accuracy"], frames["accuracy_without_update"])
    run = pd.read_csv(ran("proposed", "twin/predictor=oracle") / "run.csv").iloc[0]
    assert run.prediction_calibration_error == pytest.approx(0, abs=1e-12)
    assert run.false_retrain_rate == 0


def test_accuracy_without_the_update_is_the_old_models(ran: Run) -> None:
    frames = pd.read_csv(ran("proposed") / "frames.csv")
    kept = frames["retrain"] == 0
    assert not kept.all()
    pd.testing.assert_series_equal(frames["accuracy_without_update"][kept], frames["accuracy"][kept], check_names=False)
    # Frame 0 serves with the base model where nothing was updated, so the same world without updates tells the rest.
    never = pd.read_csv(ran("never_retrain") / "frames.csv")
    base = frames.groupby("user")["retrain"].cumsum() - frames["retrain"] == 0  # no update before this frame
    assert (base & ~kept).any()
    np.testing.assert_allclose(frames["accuracy_without_update"][base], never["accuracy"][base])
    assert pd.read_csv(ran("single_timescale") / "frames.csv")["accuracy_without_update"].isna().all()


def test_calibration_and_retraining_errors_by_hand() -> None:
    predicted, actual = np.array([0.91, 0.95, 0.42, 1.0]), np.array([0.89, 0.93, 0.62, 1.0])
    assert calibration_error(predicted, actual) == pytest.approx((0.02 + 0.02 + 0.2) / 4)
    assert np.isnan(calibration_error(np.array([]), np.array([])))
    updated, without = np.array([1, 0, 0, 1, 0]), np.array([0.9, 0.9, 0.85, 0.5, 0.6])
    assert retrain_errors(updated, without, 0.85) == pytest.approx((1 / 3, 1 / 2))
    assert np.isnan(retrain_errors(np.array([1]), np.array([0.5]), 0.85)[0])


def test_a_generators_own_work_is_charged(ran: Run) -> None:
    keys = ("generator=cvae", "generator.fit_steps=3", "generator.fit_batch=8")
    frames = pd.read_csv(ran("proposed", *keys) / "frames.csv")
    replayed = pd.read_csv(ran("proposed") / "frames.csv")
    assert (replayed["generator_flop"] == 0).all()
    made = frames["generator_flop"] > 0
    assert made.any()
    assert (frames["samples_generated"][made] > 0).all()
    folder = ran("proposed", *keys)
    cost = json.loads((folder / "result.json").read_text())
    training = cost["model"]["training_flop"] * cost["config"]["retraining"]["epochs"]
    samples = frames["samples_real"] + frames["samples_generated"]
    np.testing.assert_allclose(frames["retrain_flop"], training * samples + frames["generator_flop"])


def test_prior_correction_costs_no_work_and_trains_on_nothing(ran: Run) -> None:
    frames = pd.read_csv(ran("prior_correction") / "frames.csv")
    corrected = frames[frames.retrain > 0]
    assert len(corrected) and (frames.query("frame == 0").retrain == 0).all()  # nothing is believed of any region yet
    assert (corrected[["samples_real", "samples_generated", "retrain_flop"]] == 0).all(axis=None)
    assert (pd.read_csv(ran("prior_correction") / "slots.csv").retrain_delay_s == 0).all()
    assert not (corrected.accuracy == corrected.accuracy_without_update).all()
    curve = pd.read_csv(ran("prior_correction") / "learning_curve.csv")
    assert set(curve.phase) == {"pretrain"}


def test_scratch_with_twin_adds_to_all_collected_what_an_incremental_update_would_get(ran: Run) -> None:
    frames = pd.read_csv(ran("scratch_with_twin", "frames=3") / "frames.csv")
    late = frames[(frames.retrain > 0) & (frames.samples_generated > 0) & (frames.frame == 2)]
    assert len(late)
    assert (late.samples_real + late.samples_generated > 60).any()  # 60 of the last window and its generated data
    alone = pd.read_csv(ran("without_il", "frames=3") / "frames.csv")
    assert (alone.samples_generated == 0).all()


HEADS = ("retraining.trainable=head", "retraining.learning_rate=0.005", "drift.rotation_deg=10")


@pytest.mark.parametrize("scheme", ["proposed", "without_il", "single_timescale"])
def test_heads_alone_are_retrained_at_their_own_work(ran: Run, scheme: str) -> None:
    folder = ran(scheme, *HEADS)
    frames, run = pd.read_csv(folder / "frames.csv"), pd.read_csv(folder / "run.csv").iloc[0]
    result = json.loads((folder / "result.json").read_text())
    whole = json.loads((ran(scheme) / "result.json").read_text())
    assert result["model"]["training_flop"] == 4 * 576 * 10
    assert result["model"]["forward_flop"] == whole["model"]["forward_flop"]
    retrained = frames[frames.retrain > 0]
    epochs = result["config"]["retraining"]["scratch_epochs" if scheme == "without_il" else "epochs"]
    samples = retrained.samples_real + retrained.samples_generated
    assert len(retrained)
    assert retrained.retrain_flop.to_numpy() == pytest.approx((4 * 576 * 10 * epochs * samples).to_numpy())
    slots, other = (pd.read_csv(place / "slots.csv") for place in (folder, ran(scheme, *HEADS[2:])))
    pd.testing.assert_frame_equal(slots[WORLD], other[WORLD], check_exact=True)
    assert (slots.flop_per_byte == other.flop_per_byte).all()
    # Until something is retrained the same models infer the same images, here from their features.
    fresh = slots.user.map(slots[slots.retrain == 1].groupby("user")["slot"].min()).fillna(99) > slots.slot
    unlike = other.user.map(other[other.retrain == 1].groupby("user")["slot"].min()).fillna(99) > other.slot
    assert (fresh & unlike).any()
    assert (slots.correct == other.correct)[fresh & unlike].all()
    assert run.diverged_updates == 0


def test_updates_that_diverge_are_counted_and_charged_and_the_old_models_serve(ran: Run) -> None:
    folder = ran("proposed", "retraining.learning_rate=1e6")
    frames, run = pd.read_csv(folder / "frames.csv"), pd.read_csv(folder / "run.csv").iloc[0]
    assert run.retrains == 0
    assert run.diverged_updates == frames.diverged.sum() > 0
    assert (frames.retrain_flop[frames.diverged > 0] > 0).all()
    never = pd.read_csv(ran("never_retrain") / "slots.csv")
    assert (pd.read_csv(folder / "slots.csv").correct == never.correct).all()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("trainable", ["all", "head"])
def test_a_whole_run_on_a_gpu_sees_the_same_work_and_retrains(ran: Run, trainable: str) -> None:
    keys = (f"retraining.trainable={trainable}", "retraining.learning_rate=0.005")
    here, there = ran("proposed", *keys), ran("proposed", *keys, "device=cuda")
    ours, theirs = (pd.read_csv(folder / "slots.csv") for folder in (here, there))
    assert ours.images.sum() == pytest.approx(theirs.images.sum(), rel=0.2)  # another generator's draws
    frames = pd.read_csv(there / "frames.csv")
    assert frames.retrain.sum() > 0 and pd.read_csv(there / "run.csv").diverged_updates.item() == 0
    assert theirs.accuracy.mean() == pytest.approx(ours.accuracy.mean(), abs=0.15)


def test_colour_images_of_any_size_and_number_of_classes_run_the_whole_loop(tiny: list[str], tmp_path: Path) -> None:
    write_image_folder(tmp_path / "mine", classes=7, images=20)
    keys = [key for key in tiny if not key.startswith("dataset.root")]
    asked = [
        *keys,
        "dataset=image_folder",
        f"dataset.root={tmp_path / 'mine'}",
        "dataset.size=24",
        f"outputs={tmp_path}",
    ]
    folder = experiment.run(jobs.plan([*asked, "accuracy_threshold=0.99"]).jobs[0].config)
    slots = pd.read_csv(folder / "slots.csv")
    result = json.loads((folder / "result.json").read_text())
    assert result["model"]["sample_bytes"] == 3 * 24 * 24
    assert (slots.captured_bytes == 3 * 24 * 24 * slots.images).all()
    assert pd.read_csv(folder / "frames.csv").retrain.sum() > 0
    assert set(pd.read_csv(folder / "regions.csv")["class"]) == set(range(7))
