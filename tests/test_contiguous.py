"""Time that passes, on tiny data: what must hold of every run, recomputed from its files alone."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pandas as pd
import pytest

from dtsim.core.parts import ConfigError
from dtsim.results.formats import read_table
from dtsim.results.queue_columns import schemas
from dtsim.results.summary import QUEUES
from dtsim.runner import experiment, jobs
from tests.commands import dtsim

Run: TypeAlias = Callable[..., Path]

BUSY = ("topology.station_flops=1.5e9", "topology.mu_flops=5e7")
"""Base stations that training keeps busy for longer than a frame."""
WALKING = ("mobility.speed_min_mps=200", "mobility.speed_max_mps=300", "mobility.pause_max_s=0")
WORLDS: dict[str, tuple[str, ...]] = {
    "light": (),
    "busy": BUSY,
    "handover": (*BUSY, *WALKING),
    "stopped": (*BUSY, "time.while_training=replace", "scheme.retrain=slot", "scheme.decision=measured_before"),
    "dropped": ("topology.station_flops=1.5e8", "topology.mu_flops=1e7", "time.drop_after_s=0.3"),
    "far": ("channel.tx_dbm=-90", "topology.mu_flops=1e7"),
    "slow": ("channel.bandwidth_hz=1e4", "topology.mu_flops=5e7"),
    "without images": ("traffic.min_images=0", "traffic.max_images=1"),
    "held": ("scheme=without_dt", *BUSY),
    "anew": ("scheme=without_il", *BUSY),
    "corrected": ("scheme=prior_correction",),
    "free": ("retraining.charge=none",),
    "idle unused": (*BUSY, "time.train_when_idle=false"),
}


@pytest.fixture(scope="module")
def ran(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Folder of a run of contiguous time by its further overrides; each is run once."""
    outputs = tmp_path_factory.mktemp("outputs")
    done: dict[tuple[str, ...], Path] = {}

    def run(*overrides: str) -> Path:
        if overrides not in done:
            keys = {
                key.split("=")[0]: key
                for key in (*tiny, "time=contiguous", "slots_per_frame=8", "frames=3", "accuracy_threshold=0.97")
            }
            keys |= {key.split("=")[0]: key for key in ("time.tasks=true", *overrides)}
            done[overrides] = experiment.run(jobs.plan([*keys.values(), f"outputs={outputs}"]).jobs[0].config)
        return done[overrides]

    return run


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}


@pytest.mark.parametrize("world", WORLDS)
def test_work_is_conserved_in_every_queue(ran: Run, world: str) -> None:
    """What waits at a slot's end waits at the start of the next; asked = done + waiting + given up, over the run."""
    slots = tables(ran(*WORLDS[world]))["slots"]
    for name, unit, lost in (*QUEUES, ("training", "flop", "stopped")):
        by = {
            step: slots.pivot(index="slot", columns="user", values=f"{name}_{step}_{unit}").to_numpy()
            for step in ("start", "asked", "done", lost, "end")
        }
        scale = max(1.0, by["asked"].sum())
        assert np.abs(by["start"][1:] - by["end"][:-1]).max() <= 1e-9 * scale, name
        assert (by["start"][0] == 0).all()
        off = by["asked"].sum(0) - by["done"].sum(0) - by["end"][-1] - by[lost].sum(0)
        assert np.abs(off).max() <= 1e-9 * scale, name
        assert (by["done"] >= 0).all() and (by["end"] >= 0).all()
    assert tables(ran(*WORLDS[world]))["run"]["conservation_error"][0] <= 1e-9


@pytest.mark.parametrize("world", WORLDS)
def test_no_server_does_more_than_it_can(ran: Run, world: str) -> None:
    slots = tables(ran(*WORLDS[world]))["slots"]
    most = 1 + 1e-9
    assert (slots["local_done_flop"] <= 0.1 * slots["local_flops"] * most).all()
    assert (slots["uplink_done_bits"] <= 0.1 * slots["rate_bps"] * most).all()
    assert (slots["station_done_flop"] <= 0.1 * slots["inference_flops"] * most).all()
    given = slots.groupby(["slot", "station"])[["inference_flops", "training_flops"]].sum().sum(axis=1)
    there = slots.groupby(["slot", "station"])["station_flops"].first()
    assert (given <= there * most).all()
    work = slots.groupby("slot")[["station_done_flop", "training_done_flop"]].sum().sum(axis=1)
    assert (work <= 0.1 * 3 * slots["station_flops"].max() * most).all()


def test_the_worlds_are_what_they_are_named_after(ran: Run) -> None:
    run = {name: tables(ran(*keys))["run"].iloc[0] for name, keys in WORLDS.items()}
    assert run["light"]["tasks_waiting"] == 0 and run["light"]["jobs_done"] > 0
    assert run["busy"]["jobs"] > run["busy"]["jobs_done"] and run["busy"]["deadline_miss_rate"] > 0
    assert run["handover"]["handovers"] > 0
    assert run["stopped"]["jobs_stopped"] > 0
    assert run["dropped"]["tasks_dropped"] > 0
    assert run["far"]["user_delay_mean_s"] > run["light"]["user_delay_mean_s"]
    assert run["without images"]["tasks"] < 4 * 24
    assert run["anew"]["retrains"] > 0 and run["corrected"]["retrains"] > 0 and run["corrected"]["jobs"] == 0
    assert run["free"]["jobs_done"] > 0 and run["free"]["retrain_flop"] == run["free"]["stale_mean_s"] == 0
    assert run["idle unused"]["stale_mean_s"] != run["busy"]["stale_mean_s"]


@pytest.mark.parametrize("world", ["light", "busy", "stopped"])
def test_files_have_their_columns(ran: Run, world: str) -> None:
    folder = ran(*WORLDS[world])
    for file, columns in schemas(tasks=True).items():
        assert list(pd.read_csv(folder / file).columns) == list(columns), file


def test_parquet_holds_what_csv_holds(ran: Run) -> None:
    pytest.importorskip("pyarrow")
    csv, parquet = ran(*BUSY), ran(*BUSY, "format=parquet", "fresh=true")
    assert csv == parquet and not (parquet / "slots.csv").exists()  # the same digest: written anew
    slots = read_table(parquet / "slots.csv")
    assert set(slots["outcome"]) <= {"served", "waiting"}
    ran_again = ran(*BUSY, "fresh=true")
    pd.testing.assert_frame_equal(slots, read_table(ran_again / "slots.csv"))


def test_tasks_are_a_row_each_only_on_request(ran: Run) -> None:
    found = tables(ran())
    slots, tasks = found["slots"], found["tasks"]
    there = slots[slots["images"] > 0].reset_index(drop=True)
    assert len(tasks) == len(there)
    for name in ("slot", "user", "images", "upload_bytes", "delay_s", "outcome", "missed"):
        assert tasks[name].tolist() == there[name].tolist()
    assert not (ran("time.tasks=false") / "tasks.csv").exists()


def test_a_tasks_delay_is_that_of_its_slower_part(ran: Run) -> None:
    slots = tables(ran(*BUSY))["slots"]
    served = slots[slots["outcome"] == "served"]
    remote = served["upload_delay_s"] + served["compute_delay_s"]
    assert served["delay_s"].to_numpy() == pytest.approx(np.maximum(remote, served["local_delay_s"]), abs=1e-12)
    assert (served["missed"] == (served["delay_s"] > 0.1)).all()
    waiting = slots[slots["outcome"] == "waiting"]
    assert len(waiting) and waiting["delay_s"].to_numpy() == pytest.approx((24 - waiting["slot"]) * 0.1)
    late = waiting["slot"] < 23  # what was captured in the last slot may still be in time
    assert late.any() and (waiting["missed"][late] == 1).all() and waiting["missed"][~late].isna().all()


def test_light_load_takes_as_long_as_snapshots_say(tiny: list[str], tmp_path: Path) -> None:
    """Same MUs at rest, same links and traffic, no training: inference delay within 1 %."""
    keys = [
        *(key for key in tiny if not key.startswith(("frames", "slots_per_frame"))),
        *("scheme=never_retrain", "mobility=static", "channel.fading=none", "frames=1", "slots_per_frame=30"),
        *("time.slot_s=0.1", f"outputs={tmp_path}"),
    ]
    apart, passing = (
        pd.read_csv(experiment.run(jobs.plan([*keys, f"time.mode={mode}"]).jobs[0].config) / "slots.csv")
        for mode in ("snapshots", "contiguous")
    )
    assert passing["captured_bytes"].equals(apart["captured_bytes"])
    assert passing["delay_s"].to_numpy() == pytest.approx(apart["delay_s"].to_numpy(), rel=0.01)
    assert passing["delay_s"].mean() == pytest.approx(apart["delay_s"].mean(), rel=0.01)


@pytest.mark.parametrize("world", ["light", "busy", "handover"])
def test_an_update_serves_from_when_it_is_done_and_sent(ran: Run, world: str) -> None:
    found = tables(ran(*WORLDS[world]))
    slots, done = found["slots"], found["jobs"][lambda jobs: (jobs["kind"] == "update") & (jobs["outcome"] == "done")]
    bits = 32.0 * 3000  # fewer than any model here has
    for _, job in done.iterrows():
        assert job.asked_s <= job.started_s < job.done_s <= job.station_from_s
        assert job.mu_from_s - job.station_from_s >= bits / 1e8
        assert job.done_flop == pytest.approx(job.flop, rel=1e-9)
        own = slots[slots["user"] == job.user]
        before = own[own["slot"] * 0.1 < job.station_from_s]
        after = own[own["slot"] * 0.1 >= job.station_from_s]
        assert (before["station_version"] < job.version).all()
        assert (after["station_version"] >= job.version).all()
        assert (own[own["slot"] * 0.1 >= job.mu_from_s]["mu_version"] >= job.version).all()
    assert len(done)
    assert found["run"]["stale_mean_s"][0] == pytest.approx((done["station_from_s"] - done["asked_s"]).mean())


def test_a_busy_base_station_takes_as_long_as_its_work(ran: Run) -> None:
    """All jobs of a station together: no faster than its compute, and idle time is used."""
    found = tables(ran(*BUSY))
    for station, jobs_there in found["jobs"].groupby("station"):
        first, last = jobs_there["asked_s"].min(), jobs_there["done_s"].max()
        work = jobs_there[jobs_there["done_s"].notna()]["flop"].sum()
        if work:
            assert last - first >= work / 1.5e9 * (1 - 1e-9), station


def test_what_a_scheme_measures_is_what_was_served(ran: Run) -> None:
    found = tables(ran(*BUSY))
    slots, frames, tasks = found["slots"], found["frames"], found["tasks"]
    served = slots.groupby(["frame", "user"])[["correct", "served"]].sum().reset_index()
    share = (served["correct"] / served["served"].where(served["served"] > 0)).to_numpy()
    assert frames["accuracy"].to_numpy() == pytest.approx(share, nan_ok=True)
    assert slots["correct"].sum() == tasks["correct"].sum() > 0
    assert slots["served"].sum() < slots["scored"].sum()  # some wait at the end
    light = tables(ran())
    assert light["slots"]["served"].sum() == light["slots"]["scored"].sum()


def test_a_stopped_job_is_charged_for_what_it_did(ran: Run) -> None:
    found = tables(ran(*WORLDS["stopped"]))
    stopped = found["jobs"][found["jobs"]["outcome"] == "stopped"]
    assert stopped["done_s"].isna().all() and stopped["version"].isna().all()
    assert (stopped["done_flop"] < stopped["flop"]).all()
    assert found["jobs"]["done_flop"].sum() == pytest.approx(found["slots"]["training_done_flop"].sum())
    left = (stopped["flop"] - stopped["done_flop"]).sum()
    assert found["slots"]["training_stopped_flop"].sum() == pytest.approx(left)
    kept = tables(ran(*BUSY))["jobs"]
    for _, own in kept[kept["kind"] == "update"].groupby("user"):
        ends = own["done_s"].fillna(np.inf).to_numpy()
        assert (own["asked_s"].to_numpy()[1:] >= ends[:-1]).all()  # one at a time


def test_energy_is_power_times_time_and_work(ran: Run) -> None:
    found = tables(ran("energy.weight_s_per_j=2"))
    slots, run = found["slots"], found["run"].iloc[0]
    sending_s = slots["uplink_done_bits"] / slots["rate_bps"]
    assert slots["tx_j"].to_numpy() == pytest.approx(1e-4 * sending_s)  # -10 dBm
    assert slots["local_j"].to_numpy() == pytest.approx(1e-28 * 1e9**2 * slots["local_done_flop"])
    work = slots["station_done_flop"] + slots["training_done_flop"]
    assert slots["station_j"].to_numpy() == pytest.approx(2e-11 * work)
    total = slots[["tx_j", "local_j", "station_j"]].to_numpy().sum()
    assert run["energy_j"] == pytest.approx(total)
    assert run["cost_s"] == pytest.approx(run["user_delay_mean_s"] + 2 * total / run["tasks"])


def test_what_follows_an_mu_takes_the_backhaul(ran: Run) -> None:
    slots = tables(ran(*WORLDS["handover"]))["slots"]
    moved = slots[slots["handover"] == 1]
    before = slots.set_index(["user", "slot"])["station"]
    for user, slot, station in moved[["user", "slot", "station"]].to_numpy().tolist():
        assert before[user, slot - 1] != station
    assert (moved["backhaul_bits"] > 0).any()
    assert (slots[slots["handover"] == 0]["backhaul_bits"] == 0).all()


def test_mus_move_every_slot(ran: Run) -> None:
    slots = tables(ran(*WALKING))["slots"]
    for _, own in slots.groupby("user"):
        steps = np.hypot(own["x_m"].diff()[1:], own["y_m"].diff()[1:])
        assert (steps > 0).all() and (steps <= 30 * (1 + 1e-9)).all()  # 0.1 s at most 300 m/s
    inside = slots.groupby(["frame", "user"])["region"].nunique()
    assert (inside > 1).any()


def test_what_needs_the_other_mode_is_refused(tiny: list[str]) -> None:
    with pytest.raises(ConfigError, match="allocator: QueueDdpg decides among queues, and needs time=contiguous"):
        jobs.plan([*tiny, "allocator=queue_ddpg"])
    with pytest.raises(ConfigError, match=r"channel\.fading=rician: must be rayleigh or none with an allocator that"):
        jobs.plan([*tiny, "allocator=queue_ddpg", "time=contiguous", "channel=umi"])


def test_gains_of_frames_are_refused(tiny: list[str], tmp_path: Path) -> None:
    gains = tmp_path / "gains.npz"
    np.savez(gains, gain=np.full((3, 3, 4), 1e-9))
    with pytest.raises(ConfigError, match="needs time=snapshots"):
        jobs.plan([*tiny, "time=contiguous", "channel=table", f"channel.path={gains}"])


@pytest.mark.parametrize("world", ["light", "slow"])
def test_updates_train_on_what_has_arrived(ran: Run, world: str) -> None:
    found = tables(ran(*WORLDS[world]))
    slots = found["slots"]
    image_bytes = (slots["captured_bytes"] / slots["images"]).max()
    arrived = slots["station_asked_flop"] / slots["flop_per_byte"] / image_bytes
    by_frame = arrived.groupby([slots["user"], slots["frame"]]).sum()
    for user, slot, real in found["jobs"][["user", "slot", "samples_real"]].to_numpy().tolist():
        assert real <= by_frame[user, slot // 8 - 1] + 1e-6
    assert arrived.sum() < slots["images"].sum()


@pytest.mark.slow
def test_the_same_keys_give_the_same_bytes_on_one_and_two_workers(tiny: list[str], tmp_path: Path) -> None:
    keys = [*(key for key in tiny if not key.startswith("slots_per_frame")), "time=contiguous", "slots_per_frame=6"]
    written = []
    for name, launcher in (("one", []), ("two", ["hydra/launcher=laptop", "hydra.launcher.n_jobs=2"])):
        asked = ["-m", *keys, *BUSY, "time.tasks=true", "seed=0,1", *launcher, f"outputs={tmp_path / name}"]
        done = dtsim("run", *asked)
        assert done.returncode == 0, done.stderr
        written.append({path.parent.name + path.name: path for path in (tmp_path / name).rglob("*.csv")})
    assert written[0].keys() == written[1].keys() and len(written[0]) == 18
    for name, path in written[0].items():
        if not name.endswith(("associations.csv", "run.csv", "learning_curve.csv")):  # these hold wall times
            assert path.read_bytes() == written[1][name].read_bytes(), name


def test_one_mu_with_constant_traffic_takes_what_the_equations_say(tiny: list[str], tmp_path: Path) -> None:
    keys = [key for key in tiny if not key.startswith(("mu", "traffic"))]
    keys += ["mu=1", "scheme=never_retrain", "mobility=static", "channel.fading=none", "time=contiguous"]
    keys += ["traffic.min_images=7", "traffic.max_images=7", f"outputs={tmp_path}"]
    slots = pd.read_csv(experiment.run(jobs.plan(keys).jobs[0].config) / "slots.csv")
    sent, c = slots["upload_bytes"], slots["flop_per_byte"]
    remote = 8 * sent / slots["rate_bps"] + slots["downlink_delay_s"] + c * sent / slots["inference_flops"]
    local = c * (slots["captured_bytes"] - sent) / slots["local_flops"]
    assert slots["delay_s"].to_numpy() == pytest.approx(np.asarray(np.maximum(remote, local)), abs=1e-9)
    assert slots["delay_s"].max() < 0.1 and slots["delay_s"].std() < 1e-9
