"""The whole loop on tiny data: what every scheme must satisfy, recomputed from the CSVs alone."""

import json

import numpy as np
import pandas as pd
import pytest

from dtsim import experiment, jobs
from dtsim.results import SCHEMAS

SCHEMES = ["proposed", "without_dt", "without_il", "single_timescale", "oracle", "never_retrain"]
WORLD = ["frame", "slot", "user", "region", "x_m", "y_m", "captured_bytes", "images"]


@pytest.fixture(scope="session")
def ran(tiny, tmp_path_factory):
    """Folder of a run by (scheme, further overrides); each is run once."""
    outputs = tmp_path_factory.mktemp("outputs")
    done = {}

    def run(scheme, *overrides):
        key = (scheme, *overrides)
        if key not in done:
            asked = jobs.plan([*tiny, f"scheme={scheme}", f"outputs={outputs}", "accuracy_threshold=0.97", *overrides])
            done[key] = experiment.run(asked.jobs[0].config)
        return done[key]

    return run


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_file_has_its_columns_and_rows(ran, scheme):
    folder = ran(scheme)
    tables = {file: pd.read_csv(folder / file) for file in SCHEMAS}
    for file, columns in SCHEMAS.items():
        assert list(tables[file].columns) == list(columns)
        assert (tables[file]["scheme"] == scheme).all()
    assert len(tables["slots.csv"]) == 2 * 2 * 4
    assert len(tables["frames.csv"]) == 2 * 4
    assert len(tables["run.csv"]) == 1
    assert len(tables["associations.csv"]) == (4 if scheme == "single_timescale" else 2)
    result = json.loads((folder / "result.json").read_text())
    assert result["config"]["scheme"]["name"] == scheme
    assert folder.name == f"seed=0-{result['digest']}"
    assert result["versions"]["torch"]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stranger_can_recompute_every_delay_from_slots_csv(ran, scheme):
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
def test_frames_csv_agrees_with_slots_csv(ran, scheme):
    slots, frames = (pd.read_csv(ran(scheme) / file) for file in ("slots.csv", "frames.csv"))
    by_frame = slots.groupby(["frame", "user"])
    assert frames.accuracy.to_numpy() == pytest.approx(
        (by_frame["correct"].sum() / by_frame["images"].sum()).to_numpy()
    )
    assert frames.retrain_flop.to_numpy() == pytest.approx(by_frame["retrain_flop"].sum().to_numpy())
    assert (frames.breakout == (frames.accuracy < 0.97)).all()
    assert (frames.loc[frames.retrain == 0, ["samples_real", "samples_generated"]] == 0).all(axis=None)


@pytest.mark.parametrize("scheme", SCHEMES[1:])
def test_same_seed_same_world_under_every_scheme(ran, scheme):
    ours, theirs = (pd.read_csv(ran(name) / "slots.csv") for name in ("proposed", scheme))
    pd.testing.assert_frame_equal(ours[WORLD], theirs[WORLD], check_exact=True)
    same_link = ours.station == theirs.station
    assert same_link.any()
    for column in ("snr_db", "rate_bps"):
        assert (ours.loc[same_link, column] == theirs.loc[same_link, column]).all()


def test_same_seed_same_gains_and_images_slot_by_slot(tiny):
    """The links to all BSs and the very images, before any scheme chooses among them."""

    def world(scheme, seed):
        config = jobs.plan([*tiny, f"scheme={scheme}", f"seed={seed}"]).jobs[0].config
        simulation = experiment.assemble(config)
        return [slot for frame in simulation.world.frames(2) for slot in frame.slots]

    first = world("proposed", 0)
    for scheme in SCHEMES[1:]:
        for ours, theirs in zip(first, world(scheme, 0), strict=True):
            assert (ours.rate_bps == theirs.rate_bps).all()
            for mine, other in zip(ours.captures, theirs.captures, strict=True):
                assert (mine.test == other.test).all()
                assert (mine.increment == other.increment).all()
    assert not (first[0].rate_bps == world("proposed", 1)[0].rate_bps).any()


def test_schemes_do_what_they_are_named_for(ran):
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
    assert slots["single_timescale"].groupby(["frame", "user"])["retrain"].nunique().max() >= 1
    assert (frames["proposed"].query("frame == 0").retrain == 0).all()  # nothing was uploaded before


def test_the_charged_work_is_the_measured_one(ran):
    frames = pd.read_csv(ran("proposed") / "frames.csv")
    result = json.loads((ran("proposed") / "result.json").read_text())
    retrained = frames[frames.retrain > 0]
    samples = retrained.samples_real + retrained.samples_generated
    per_sample = retrained.retrain_flop / samples / result["config"]["retraining"]["epochs"]
    assert per_sample.to_numpy() == pytest.approx(result["model"]["training_flop"])
    slots = pd.read_csv(ran("proposed") / "slots.csv")
    assert slots.flop_per_byte.iloc[0] == pytest.approx(result["model"]["forward_flop"] / 784)


@pytest.mark.parametrize("charge", ["real", "none"])
def test_what_is_charged_is_a_choice(ran, charge):
    frames = pd.read_csv(ran("proposed", f"retraining.charge={charge}") / "frames.csv")
    work = frames[frames.retrain > 0].retrain_flop
    full = pd.read_csv(ran("proposed") / "frames.csv")
    assert (work == 0).all() if charge == "none" else work.sum() < full.retrain_flop.sum()


def test_objective_sum_adds_the_stations(ran):
    folder = ran("proposed", "objective=sum")
    slots, run = pd.read_csv(folder / "slots.csv"), pd.read_csv(folder / "run.csv").iloc[0]
    total = slots.groupby(["slot", "station"])["delay_s"].max().groupby("slot").sum()
    assert run.system_delay_mean_s == pytest.approx(total.mean())
    assert run.allocator_gap_mean >= -1e-9


def test_an_mu_without_images_has_no_accuracy_and_breaks_nothing(ran):
    folder = ran("proposed", "traffic.min_images=0", "traffic.max_images=1")
    slots = pd.read_csv(folder / "slots.csv")
    idle = slots[slots.images == 0]
    assert len(idle)
    assert idle.accuracy.isna().all()
    assert (idle.breakout == 0).all()
    assert slots[slots.images > 0].accuracy.notna().all()


def test_the_same_run_twice_gives_the_same_bytes(ran, tiny, tmp_path):
    wall = {"run.csv": "wall_time_s", "learning_curve.csv": "seconds", "associations.csv": "solve_time_s"}
    config = jobs.plan([*tiny, f"outputs={tmp_path}", "accuracy_threshold=0.97"]).jobs[0].config
    again = experiment.run(config)
    for file in SCHEMAS:
        first, second = (pd.read_csv(folder / file, dtype=str) for folder in (ran("proposed"), again))
        if file in wall:
            first, second = (
                table[[c for c in table if not c.endswith(wall[file])]].to_csv() for table in (first, second)
            )
            assert first == second
        else:
            assert (ran("proposed") / file).read_bytes() == (again / file).read_bytes()
