"""Reports of runs where time passes, against what their files say; the runs are real and tiny."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import dtsim
from dtsim.reporting import figures, plots
from dtsim.reporting.along import along
from dtsim.reporting.command import remarks
from dtsim.reporting.figures.stale import under_way
from dtsim.reporting.finished import RunResult
from dtsim.reporting.labels import labelled
from dtsim.reporting.lengths import PAGE_IN
from dtsim.reporting.passing import jobs_of, passing, served_accuracy, tasks_of, time_passes, unserved, waiting_s
from dtsim.reporting.run_table import measured
from dtsim.reporting.runs import ReportError, load
from dtsim.reporting.settings import HALVES, Setting, settings
from dtsim.reporting.style import Drawing, look
from dtsim.reporting.tables import measures
from dtsim.reporting.watch.movie import pictures
from dtsim.reporting.watch.scene import Scene, scene
from dtsim.results.seal import read_result, seal
from dtsim.results.summary import percentile_95
from dtsim.runner import experiment, jobs
from tests.test_reporting_command import dtsim as command

BUSY = ("topology.station_flops=1.5e9", "topology.mu_flops=5e7")
KEYS = ("time=contiguous", "slots_per_frame=8", "frames=3", "accuracy_threshold=0.97")
STOPPED = ("time.while_training=replace", "scheme.retrain=slot", "scheme.decision=measured_before")
SPARSE = ("traffic.min_images=0", "traffic.max_images=1")
DROPPED = ("topology.station_flops=1.5e8", "topology.mu_flops=1e7", "time.drop_after_s=0.3")
FAR = ("channel.tx_dbm=-90", "topology.mu_flops=5e7", "topology.station_flops=1.5e9")
SLOT_S = 0.1


@pytest.fixture(scope="module")
def root(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs by folder, only to be read; `busy` is of three schemes, and in `apart` no time passes."""
    folder = tmp_path_factory.mktemp("passing")
    base = {key.split("=")[0]: key for key in tiny}

    def run(name: str, *overrides: str) -> None:
        keys = base | {key.split("=")[0]: key for key in overrides}
        for job in jobs.plan(["-m", *keys.values(), f"outputs={folder / name}"]).jobs:
            experiment.run(job.config, in_sweep=True)

    # With a longer deadline, whether some tasks that wait at the end missed it is unknown.
    run("busy", *KEYS, *BUSY, "time.deadline_s=0.25", "scheme=proposed,single_timescale,never_retrain")
    run("dropped", *KEYS, *DROPPED)
    run("stopped", *KEYS, *BUSY, *STOPPED)
    run("far", *KEYS, *FAR)
    run("sparse", *KEYS, *SPARSE)
    run("apart", "slots_per_frame=8", "frames=3", "accuracy_threshold=0.97", *BUSY)
    return folder


def one(root: Path, name: str, scheme: str = "proposed") -> tuple[pd.Series, pd.DataFrame]:
    """A run as a row, and its slots."""
    runs = load(root / name)
    run = runs[runs["config.scheme.name"] == scheme].iloc[0]
    return run, pd.read_csv(run["folder"] / "slots.csv")


def draw(root: Path, name: str, figure: Any) -> Drawing | None:
    with look():
        drawing: Drawing | None = figure(Setting(load(root / name)), None, PAGE_IN)
        if drawing is not None:
            drawing.figure.draw_without_rendering()
    return drawing


@pytest.mark.parametrize(("name", "scheme"), [("busy", "single_timescale"), ("far", "proposed")])
def test_what_waits_is_the_time_that_its_server_needs(root: Path, name: str, scheme: str) -> None:
    run, slots = one(root, name, scheme)
    found = waiting_s(run)
    assert found["time_s"].to_numpy() == pytest.approx(SLOT_S * np.arange(1, 25))
    by_hand: dict[str, list[float]] = {"local_s": [], "uplink_s": [], "station_s": [], "training_s": []}
    rate = {user: own["rate_bps"].mean() for user, own in slots.groupby("user")}
    for _, rows in slots.groupby("slot"):
        by_hand["local_s"].append((rows["local_end_flop"] / 5e7).mean())
        bits = dict(zip(rows["user"], rows["uplink_end_bits"], strict=True))
        by_hand["uplink_s"].append(sum(bits[user] / rate[user] for user in bits) / 4)
        by_hand["station_s"].append(rows["station_end_flop"].sum() / (3 * 1.5e9))
        by_hand["training_s"].append(rows["training_end_flop"].sum() / (3 * 1.5e9))
    for what, values in by_hand.items():
        assert found[what].tolist() == pytest.approx(values), what
    assert found["local_s"].max() > 0
    assert found["training_s" if name == "busy" else "uplink_s"].max() > 0.1


def test_queues_are_drawn_of_every_scheme_with_the_borders_of_frames(root: Path) -> None:
    drawing = draw(root, "busy", figures.queues)
    assert drawing is not None
    panels = drawing.figure.axes
    assert [panel.get_title(loc="left") for panel in panels] == [
        "inference at the MU", "uplink", "inference at the BSs", "training at the BSs"
    ]  # fmt: skip
    for panel, name in zip(panels, ("local_s", "uplink_s", "station_s", "training_s"), strict=True):
        curves = [mark for mark in panel.lines if len(np.asarray(mark.get_xdata())) == 24]
        assert len(curves) == 3
        for scheme, curve in zip(("proposed", "single_timescale", "never_retrain"), curves, strict=True):
            assert np.asarray(curve.get_ydata()) == pytest.approx(waiting_s(one(root, "busy", scheme)[0])[name])
        borders = [np.asarray(mark.get_xdata())[0] for mark in panel.lines if mark.get_linewidth() == 0.6]
        assert borders == pytest.approx([0.8, 1.6])
        assert panel.get_ylim()[1] > waiting_s(one(root, "busy", "single_timescale")[0])[name].max()


def test_an_update_is_a_bar_from_asking_to_serving(root: Path) -> None:
    run, slots = one(root, "busy")
    updates = pd.read_csv(run["folder"] / "jobs.csv").query("kind == 'update'")
    drawing = draw(root, "busy", figures.stale)
    assert drawing is not None
    lives: Any = drawing.figure.axes[1]
    whole, trained = lives.containers
    ends = updates["station_from_s"].fillna(24 * SLOT_S)
    assert updates["station_from_s"].isna().any() and updates["station_from_s"].notna().any()
    for bar, job, end in zip(whole, updates.itertuples(), ends, strict=True):
        assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((job.asked_s, end))
        assert bar.get_y() + bar.get_height() / 2 == pytest.approx(job.user)
    for bar, job in zip(trained, updates.itertuples(), strict=True):
        if job.outcome == "done":
            assert (bar.get_x(), bar.get_x() + bar.get_width()) == pytest.approx((job.started_s, job.done_s))
    (served,) = [mark for mark in lives.lines if mark.get_marker() == "|"]
    assert np.asarray(served.get_xdata()).tolist() == updates["station_from_s"].dropna().tolist()
    found = under_way(jobs_of(run)[jobs_of(run)["kind"] == "update"], 4)
    for time in np.linspace(0.05, 2.35, 24):
        count = ((updates["asked_s"] <= time) & (time < ends)).sum()
        before = found[found.index <= time]
        assert (before.iloc[-1] if len(before) else 0) == pytest.approx(count / 4)
    name = f"{len(updates)} updates, {run['jobs_done']:.0f} done, 0 stopped, {run['stale_mean_s']:.3g} s from asking"
    assert name in drawing.figure.get_suptitle()
    assert served_accuracy(run).shape == (4, 24)
    tall = slots.pivot(index="user", columns="slot", values="accuracy")
    assert served_accuracy(run).to_numpy() == pytest.approx(tall.to_numpy(), nan_ok=True)


def test_stopped_updates_are_marked_and_without_updates_there_is_no_picture(root: Path) -> None:
    run, _ = one(root, "stopped")
    drawing = draw(root, "stopped", figures.stale)
    assert drawing is not None
    (crosses,) = [mark for mark in drawing.figure.axes[1].lines if mark.get_marker() == "X"]
    assert len(np.asarray(crosses.get_xdata())) == run["jobs_stopped"] > 0
    assert "it is stopped" in [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert figures.stale(Setting(load(root / "busy" / "never_retrain")), None, PAGE_IN) is None


def test_work_of_predictions_alone_is_no_update(root: Path, tmp_path: Path) -> None:
    run, _ = one(root, "busy")
    shutil.copytree(run["folder"], copy := tmp_path / "copy")
    jobs_there, result = pd.read_csv(copy / "jobs.csv"), read_result(copy)
    jobs_there.loc[0, "kind"] = "prediction"
    jobs_there.to_csv(copy / "jobs.csv", index=False)
    seal(copy, result)
    with look():
        drawing = figures.stale(Setting(load(copy)), None, PAGE_IN)
    assert drawing is not None
    bars: Any = drawing.figure.axes[1].containers[0]
    assert len(bars) == len(jobs_there) - 1
    under: Any = scene(copy).retrain
    assert under.sum() < scene(run["folder"]).retrain.sum()


def survival(tasks: pd.DataFrame, time_s: float) -> float:
    """Kaplan and Meier's product, task by task."""
    share = 1.0
    ends = tasks[(tasks["outcome"] == "served") & (tasks["delay_s"] <= time_s)]
    for end in sorted(ends["delay_s"].unique()):
        risk = ((tasks["delay_s"] >= end) | (tasks["outcome"] == "dropped")).sum()
        share *= 1 - (ends["delay_s"] == end).sum() / risk
    return share


@pytest.mark.parametrize("name", ["busy", "dropped"])
def test_the_share_of_tasks_not_served_within_a_time(root: Path, name: str) -> None:
    run, slots = one(root, name)
    tasks = tasks_of(run)
    assert len(tasks) == run["tasks"] == (slots["images"] > 0).sum()
    times, shares = unserved(tasks)
    assert (np.diff(times) > 0).all() and (np.diff(shares) <= 0).all()
    for time in np.quantile(tasks["delay_s"], [0.1, 0.5, 0.8, 0.99]):
        assert shares[np.searchsorted(times, time, side="right") - 1] == pytest.approx(survival(tasks, time))
    assert {"busy": "waiting", "dropped": "dropped"}[name] in set(tasks["outcome"])
    if name == "dropped":
        assert shares[-1] >= (tasks["outcome"] == "dropped").mean() > 0  # they are never served
    without = tasks[tasks["outcome"] == "served"]
    times, shares = unserved(without)
    middle = without["delay_s"].median()
    later = (without["delay_s"] > middle).mean()
    assert shares[np.searchsorted(times, middle, side="right") - 1] == pytest.approx(later)


@pytest.mark.parametrize("name", ["busy", "dropped"])
def test_tasks_that_wait_or_were_dropped_are_in_the_picture(root: Path, name: str) -> None:
    run, _ = one(root, name)
    drawing = draw(root, name, figures.task_delay)
    assert drawing is not None
    (panel,) = drawing.figure.axes
    said = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert said[0].startswith(f"proposed: {100 * run['deadline_miss_rate']:.3g} % late")
    markers = [mark.get_marker() for mark in panel.lines]
    if name == "dropped":
        assert f"{run['tasks_dropped']:.0f} dropped" in said[0] and ">" in markers
    else:
        assert f"{run['tasks_waiting']:.0f} wait" in said[0] and "|" in markers and ">" not in markers
    deadline_ms = 1e3 * run["deadline_s"]
    assert [deadline_ms] * 2 in [np.asarray(mark.get_xdata()).tolist() for mark in panel.lines]
    assert name == "dropped" or tasks_of(run)["missed"].isna().any()
    assert panel.get_xscale() == panel.get_yscale() == "log"
    assert panel.get_xlim()[1] > 1e3 * tasks_of(run)["delay_s"].max()


def test_figures_over_slots_bear_tasks_that_were_never_served(root: Path) -> None:
    for name in ("dropped", "stopped", "sparse"):
        _, slots = one(root, name)
        found = Setting(load(root / name)).slots.set_index("slot")
        worst = slots.groupby("slot")["delay_s"].max()
        assert found["system_delay_s"].tolist() == pytest.approx(worst.tolist(), nan_ok=True)
        for _, rows in slots.groupby("slot"):
            if rows["delay_s"].notna().any():
                slowest = rows.sort_values("delay_s", kind="stable", na_position="first").iloc[-1]
                assert found[HALVES].loc[int(slowest["slot"])].isna().all() == (slowest["outcome"] != "served")
        assert found[HALVES].isna().any().any()
        assert name != "sparse" or worst.isna().any()  # a slot without any task
    for name in ("busy", "dropped", "stopped", "sparse"):
        drawn = figures.draw(settings(load(root / name), "t", 4), None)
        kinds = {drawing.name for drawing in drawn}
        assert {"queues", "task_delay", "timeline", "fig2b", "fig2c", "cell"} <= kinds, name
        assert ("stale" in kinds) == (one(root, name)[0]["jobs"] > 0), name
        for drawing in drawn:
            texts = [text.get_text() for legend in drawing.figure.legends for text in legend.get_texts()]
            assert not {"its optimum", "retraining at the BS"} & set(texts), drawing.name


def test_the_table_of_a_run_says_what_matters_where_time_passes(root: Path) -> None:
    run, slots = one(root, "busy", "single_timescale")
    done = command("report", run["folder"])
    assert done.exit_code == 0, done.output
    tasks = slots[slots["outcome"] != "none"]
    updates = pd.read_csv(run["folder"] / "jobs.csv").query("kind == 'update'")
    served = updates[updates["outcome"] == "done"]
    energy_j = slots[["tx_j", "local_j", "station_j"]].to_numpy().sum()
    waits, counts = (tasks["outcome"] == "waiting").sum(), updates["outcome"].value_counts()
    lines = {
        "task delay, mean": f"{1e3 * tasks['delay_s'].mean():.1f} ms",
        "task delay, 95th percentile": f"{1e3 * percentile_95(tasks['delay_s']):.1f} ms",
        "tasks that missed their deadline": f"{100 * tasks['missed'].mean():.1f} %",
        "tasks waiting at the end / dropped": f"{waits} / 0",
        "updates asked for / done / stopped": f"{len(updates)} / {counts['done']} / {counts.get('stopped', 0)}",
        "time until an update serves, mean": f"{(served['station_from_s'] - served['asked_s']).mean():.1f} s",
        "energy per task": f"{1e3 * energy_j / len(tasks):,.2f} mJ",
        "handovers": str(slots["handover"].sum()),
    }
    shown = dict(
        [part.strip() for part in line.strip("│").split("│")] for line in done.stdout.splitlines() if line[0] == "│"
    )
    assert {name: shown.get(name) for name in lines} == lines
    assert waits > 0
    assert not any("optimum" in name or "lost" in name for name in shown)


def test_lost_work_is_told(root: Path) -> None:
    runs = load(root / "busy")

    def rows() -> list[Any]:
        return runs.to_dict("records")

    assert not any("lost" in column.long for column in measured(rows()))
    assert not any("lost" in line for line in remarks(along(runs)))
    runs.loc[0, "conservation_error"] = 2e-9
    (column,) = [column for column in measured(rows()) if "lost" in column.long]
    assert [column.cell(row) for row in rows()] == ["2.0e-09", "–", "–"]
    assert [line for line in remarks(along(runs)) if "work is lost" in line and str(runs["folder"][0]) in line]


def test_schemes_are_compared_by_late_tasks_too(root: Path) -> None:
    runs = load(root / "busy")
    told: Any = dtsim.compare(runs).summary.set_index("scheme")
    row = runs.set_index("scheme").loc["proposed"]
    base = runs.set_index("scheme").loc["single_timescale"]
    said = told.loc["proposed", "missed deadline, %"]
    assert float(said) == pytest.approx(100 * row["deadline_miss_rate"], rel=1e-3)
    after = list(told).index("missed deadline, %") + 1
    difference = float(told.loc["proposed"].iloc[after])
    assert difference == pytest.approx(100 * (row["deadline_miss_rate"] - base["deadline_miss_rate"]), rel=1e-3)
    assert float(told.loc["proposed", "stale s"]) == pytest.approx(row["stale_mean_s"], rel=1e-3)
    assert told.loc["never_retrain", "stale s"] == "–"
    assert float(told.loc["proposed", "energy a task, mJ"]) == pytest.approx(1e3 * row["energy_per_task_j"], abs=1e-3)
    assert "allocation gap, %" not in told


@pytest.mark.slow
def test_snapshots_and_passing_time_stand_in_one_folder(root: Path, tmp_path: Path) -> None:
    runs = load(root / "busy", root / "apart")
    assert [time_passes(run) for _, run in runs.iterrows()].count(True) == len(passing(runs)) == 3
    assert {"allocator_gap_mean", "stale_mean_s"} <= {measure.name for measure in measures(runs)}
    alone = {measure.name for measure in measures(load(root / "apart"))}
    assert "allocator_gap_mean" in alone and not {"stale_mean_s", "user_delay_mean_s", "jobs"} & alone
    options = ("--figures", tmp_path / "figures", "--html", tmp_path / "page.html", "--csv", tmp_path / "means.csv")
    folders = (root / "busy" / "proposed", root / "apart")
    for more in (options, ("--by", "time")):
        done = command("report", *folders, "--runs", *more)
        assert done.exit_code == 0, done.output
    files = {file.name for file in (tmp_path / "figures").glob("*.png")}
    drawn = [name for name in files if name.startswith(("queues", "stale", "task_delay"))]
    assert drawn and not [name for name in drawn if "snapshots" in name]
    assert all(len(name) < 120 for name in files)
    means = pd.read_csv(tmp_path / "means.csv")
    late = means[means["metric"] == "deadline_miss_rate"].set_index(["scheme", "time"])["mean"]
    own = runs[runs["config.scheme.name"] == "proposed"].set_index("choice.time")["deadline_miss_rate"]
    assert late["proposed", "contiguous"] == pytest.approx(own["contiguous"])
    assert np.isnan(late["proposed", "snapshots"])


def test_many_keys_that_differ_together_are_one_column(root: Path) -> None:
    runs = load(root / "busy", root / "apart")
    assert not any("differ as well" in line for line in remarks(along(runs)))  # time alone does
    changed = {"config.frames": (3, 4), "config.slots_per_frame": (8, 9), "config.precision": ("fp32", "bf16")}
    for column, values in changed.items():
        runs[column] = runs["choice.time"].map({"contiguous": values[0], "snapshots": values[1]})
    runs["config.probe_images"] = np.arange(4)  # says more than time
    shown = along(labelled(runs))
    assert {"frames", "slots_per_frame", "precision", "time", "probe_images"} == set(shown.others)
    assert set(shown.telling) == {"time", "probe_images"}
    assert [
        line
        for line in remarks(shown)
        if "frames" in line and line.endswith("differ as well, with probe_images and time")
    ]


def test_the_name_of_a_figure_is_no_longer_than_a_file_may_have(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "ALL", (figures.cell_map,))
    both = [Setting(load(root / name)) for name in ("busy", "apart")]
    for one_of, number in zip(both, "12", strict=True):
        one_of.variant = f"{'key=value, ' * 30}{number}"
    names = [drawing.name for drawing in figures.draw(both, None)]
    assert len(set(names)) == 2 and max(map(len, names)) < 120


def test_plots_offer_them_and_say_where_there_are_none(root: Path) -> None:
    for plot in (plots.queues, plots.task_delay):
        assert plot(root / "busy").axes
        with pytest.raises(ReportError, match="runs: are not of time=contiguous"):
            plot(root / "apart")
    assert plots.stale(one(root, "busy")[0]["folder"]).axes
    with pytest.raises(ReportError, match="or ask for no update"):
        plots.stale(root / "busy" / "never_retrain")
    for metric, said in (("energy_per_task_j", "(mJ)"), ("stale_mean_s", "(s)"), ("user_delay_mean_s", "(ms)")):
        figure = plots.comparison(dtsim.compare(root / "busy"), metric)
        assert figure.axes[0].get_ylabel().endswith(said)


def test_a_run_has_its_jobs_and_tasks(root: Path) -> None:
    run = RunResult(one(root, "busy")[0]["folder"])
    assert len(run.jobs.query("kind == 'update'")) == run.summary["jobs"]
    with pytest.raises(ReportError, match=r"no tasks\.csv, which time=contiguous writes with time\.tasks=true"):
        _ = run.tasks
    with pytest.raises(ReportError, match=r"no jobs\.csv, which time=contiguous writes"):
        _ = RunResult(one(root, "apart")[0]["folder"]).jobs


def test_watching_shows_updates_while_they_are_under_way(root: Path) -> None:
    run, slots = one(root, "busy")
    shown = scene(run["folder"])
    updates = pd.read_csv(run["folder"] / "jobs.csv").query("kind == 'update'")
    for slot in range(24):
        now = (updates["slot"] <= slot) & ~(updates["station_from_s"] <= slot * SLOT_S + 1e-12)
        assert np.flatnonzero(shown.retrain[slot]).tolist() == sorted(set(updates.loc[now, "user"])), slot
    begun = slots.pivot(index="slot", columns="user", values="retrain").to_numpy() > 0
    assert (shown.begins == begun).all() and begun.any()


def test_watching_bears_slots_without_tasks(root: Path, tmp_path: Path) -> None:
    run, slots = one(root, "sparse")
    assert slots["delay_s"].isna().any()
    shown: Scene = scene(run["folder"])
    worst = slots.groupby("slot")["delay_s"].max().fillna(0)
    assert shown.system_delay_s.tolist() == pytest.approx(worst.tolist())
    assert len(next(pictures(shown))) > 0
    done = command("watch", run["folder"], "--html", tmp_path / "watch.html")
    assert done.exit_code == 0, done.output
