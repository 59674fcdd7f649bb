"""Figures from files that real runs wrote."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from dtsim.reporting import figures
from dtsim.reporting.figures import cell
from dtsim.reporting.figures.cell import cell_map
from dtsim.reporting.figures.decomposition import decomposition
from dtsim.reporting.labels import SCHEMES
from dtsim.reporting.lengths import PAGE_IN
from dtsim.reporting.runs import load
from dtsim.reporting.settings import HALVES, Setting, settings
from dtsim.reporting.style import COLOURS, LINES, MARKERS, Drawing, bars, canvas, line, look, marked_below, save
from dtsim.results.folders import find
from dtsim.results.seal import read_result, seal
from dtsim.results.summary import system_delays_s
from tests.test_reporting_command import dtsim

NAMES = {"fig2a", "fig2b", "fig2c", "delay_accuracy", "decomposition", "cell", "timeline"}


@pytest.fixture(scope="module")
def drawings(many_runs: Path) -> list[Drawing]:
    return figures.draw(settings(load(many_runs), "t", 4), "single_timescale")


def test_slots_of_a_run_give_its_system_delay_under_both_objectives(real_runs: Path) -> None:
    for objective in ("makespan", "sum"):
        runs = load(real_runs / objective)
        setting = Setting(runs)
        of_run = setting.slots[setting.slots["scheme"] == "single_timescale"].set_index("slot")
        run = runs[runs["scheme"] == "single_timescale"].iloc[0]
        slots = pd.read_csv(run["folder"] / "slots.csv")
        assert of_run["system_delay_s"].tolist() == pytest.approx(system_delays_s(slots)[objective].tolist(), rel=1e-12)
        assert of_run["system_delay_s"].mean() == pytest.approx(run["system_delay_mean_s"], rel=1e-12)
        assert of_run["accuracy"].mean() == pytest.approx(run["accuracy_mean"], rel=1e-12)


def test_the_longer_half_of_the_slowest_user_is_the_system_delay(real_runs: Path) -> None:
    slots = Setting(load(real_runs / "makespan")).slots
    at_the_station = slots[HALVES[:3]].sum(axis=1)
    longer = np.maximum(at_the_station.to_numpy(), slots["local_delay_s"].to_numpy())
    assert longer == pytest.approx(slots["system_delay_s"].to_numpy(), rel=1e-9)


def test_epochs_are_the_mean_over_updates(real_runs: Path) -> None:
    setting = Setting(load(real_runs / "makespan"))
    run = setting.runs[setting.runs["scheme"] == "without_il"].iloc[0]
    curve = pd.read_csv(run["folder"] / "learning_curve.csv")
    last = curve[(curve["phase"] == "from_scratch") & (curve["metric"] == "accuracy") & (curve["epoch"] == 1)]
    row = setting.epochs[(setting.epochs["scheme"] == "without_il") & (setting.epochs["epoch"] == 1)].iloc[0]
    assert len(last) == row["updates"] > 1
    assert last["value"].mean() == pytest.approx(row["accuracy"])
    assert last["flop"].mean() == pytest.approx(row["flop"])


def test_every_figure_is_drawn_with_units_and_says_how_many_seeds(drawings: list[Drawing]) -> None:
    assert {drawing.name for drawing in drawings} == NAMES
    for drawing in drawings:
        assert "n = " in drawing.figure.get_suptitle()
        assert drawing.caption.endswith(".")
        for axes in drawing.figure.axes:
            for said in (axes.get_xlabel(), axes.get_ylabel()):
                bare = ("slot", "frame", "MU", "mobile users K", "epoch of an update", "")
                assert said in bare or said.endswith(("(ms)", "(%)", "(m)", "(GFLOP)", "'s")), (drawing.name, said)


def test_intervals_of_shares_end_at_0_and_100_percent_and_slots_are_whole(drawings: list[Drawing]) -> None:
    (drawing,) = (drawing for drawing in drawings if drawing.name == "fig2b")
    bars: list[Any] = [container for axes in drawing.figure.axes for container in axes.containers]
    ends = [y for bar in bars for lines in bar.lines[2] for part in lines.get_segments() for y in part[:, 1]]
    assert len(ends) > 20 and min(ends) >= 0 and max(ends) <= 100
    assert not any(axes.collections for axes in drawing.figure.axes if not axes.containers)  # no bands
    with look():
        drawing.figure.draw_without_rendering()
    for axes in drawing.figure.axes:
        if axes.get_xlabel() in ("slot", "frame"):
            assert all(place == round(place) for place in axes.get_xticks())


def test_an_interval_is_cut_where_a_share_ends() -> None:
    with look():
        _, (axes,) = canvas(PAGE_IN, 3)
        bars(axes, [0, 1], [95.0, 3.0], [80.0, -9.0], [110.0, 15.0], within=(0, 100))
    drawn: Any = axes.containers[0]
    assert [part[:, 1].tolist() for part in drawn.lines[2][0].get_segments()] == [[80.0, 100.0], [0.0, 15.0]]


def test_schemes_at_one_place_stand_side_by_side_and_are_named_once(drawings: list[Drawing]) -> None:
    for name in ("fig2a", "fig2b"):
        (figure,) = (drawing.figure for drawing in drawings if drawing.name == name)
        first: Any = figure.axes[2 if name == "fig2b" else 0]
        at_zero = [bar.lines[0].get_xdata()[0] for bar in first.containers]
        assert len(set(at_zero)) == len(at_zero) == 3
        names = [text.get_text() for axes in figure.axes for text in axes.get_xticklabels()]
        assert not {"proposed", "without_il", "single_timescale"} & set(names)
        assert [text.get_text() for text in figure.legends[0].get_texts()][:3] == [
            "proposed", "without_il", "single_timescale"
        ]  # fmt: skip


def test_an_interval_that_leaves_a_logarithmic_axis_has_an_arrowhead() -> None:
    with look():
        _, (axes,) = canvas(PAGE_IN, 3)
        bars(axes, [1, 2], [10.0, 10.0], [-5.0, 5.0], [25.0, 15.0], color="C0")
        axes.set_yscale("log")
        axes.set_ylim(2, None)
        assert marked_below(axes)
        (head,) = [mark for mark in axes.lines if mark.get_marker() == "v"]
        assert (head.get_xdata()[0], head.get_ydata()[0]) == (1, 2)
        _, (axes,) = canvas(PAGE_IN, 3)
        bars(axes, [1], [10.0], [-5.0], [25.0])
        assert not marked_below(axes)  # a linear axis shows it


def test_the_map_tells_twelve_stations_apart_and_cuts_no_user(real_runs: Path, tmp_path: Path) -> None:
    looks = [str(cell._look(station)) for station in range(12)]
    assert len(set(looks)) == 12
    assert [mark.get_label() for mark in cell._handles(3)][:3] == ["MU of BS 0", "MU of BS 1", "MU of BS 2"]
    many = [mark.get_label() for mark in cell._handles(12)]
    assert many == ["MU, with colour and marker of its BS (0 to 11)", "base station", "retrained"]
    with look():
        panel = cell_map(Setting(load(real_runs / "makespan")), None, PAGE_IN).figure.axes[0]
    frame: Any = panel.patches[-1]
    frame = frame.get_bbox()
    x, y = panel.get_xlim(), panel.get_ylim()
    assert x[0] < frame.x0 and frame.x1 < x[1] and y[0] < frame.y0 and frame.y1 < y[1]


def test_the_timeline_shows_the_borders_of_frames_and_its_legend_all_marks(drawings: list[Drawing]) -> None:
    (figure,) = (drawing.figure for drawing in drawings if drawing.name == "timeline")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["system delay", "its optimum", "median MU", "the MU's model is retrained", "a frame begins"]
    for axes in figure.axes[:2]:
        assert [1.5, 1.5] in [np.asarray(one.get_xdata()).tolist() for one in axes.lines]  # two frames of two slots


def test_a_figure_has_the_width_of_a_column_and_its_fonts_embedded(many_runs: Path, tmp_path: Path) -> None:
    done = dtsim("report", many_runs, "--figures", tmp_path, "--width", "252pt")
    assert done.exit_code == 0, done.output
    for file in tmp_path.glob("*.pdf"):
        text = file.read_bytes()
        assert b"/FontFile2" in text and b"/Type3" not in text, file.name  # TrueType, whole
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", text)
        assert box and float(box[1]) == pytest.approx(252 / 72.27 * 72, abs=0.5), file.name
    with look():
        stacked = figures.draw(settings(load(many_runs), "t", 4), None, 3.5)[0].figure
    assert len({axes.get_position().x0 for axes in stacked.axes}) < len(stacked.axes)


def test_files_are_the_same_every_time(drawings: list[Drawing], many_runs: Path, tmp_path: Path) -> None:
    with look():
        drawn = [draw(Setting(load(many_runs)), None, PAGE_IN) for draw in (cell_map, decomposition)]
    again = [drawing for drawing in drawn if drawing]
    first = [drawing for drawing in drawings if drawing.name in ("cell", "decomposition")]
    for one, two in zip(sorted(save(first, tmp_path / "1")), sorted(save(again, tmp_path / "2")), strict=True):
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()


def test_schemes_differ_by_more_than_colour() -> None:
    for table in (COLOURS, MARKERS, LINES):
        assert len(set(map(str, table))) == len(table) >= 6
    assert line("proposed", ["mine", "proposed"]) == line("proposed", ["proposed"])
    many = [*SCHEMES, *map(str, range(20))]
    assert len({str({**line(scheme, many), "color": None}) for scheme in many[:8]}) == 8  # on grey paper
    assert len({str(line(scheme, many)) for scheme in many}) == len(many)


def test_no_global_setting_is_left_behind() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    with look():
        assert dict(mpl.rcParams) != before
    assert dict(mpl.rcParams) == before


def test_settings_are_drawn_apart(real_runs: Path) -> None:
    runs = load(real_runs)  # two objectives
    both = figures.draw(settings(runs, "t", 4), None)
    names = [drawing.name for drawing in both]
    assert len(names) == len(set(names)) == 2 * len(NAMES)
    assert "fig2c-objective-sum" in names
    assert {drawing.name for drawing in figures.draw(settings(runs, "t", 1), None)} == NAMES


def test_runs_of_an_older_program_have_the_figures_that_they_can(real_runs: Path, tmp_path: Path) -> None:
    shutil.copytree(real_runs / "makespan", tmp_path / "old")
    for folder in (file.parent for file in (tmp_path / "old").rglob("result.json")):
        result = read_result(folder)
        curve = pd.read_csv(folder / "learning_curve.csv").drop(columns=["epoch", "flop"])
        curve.to_csv(folder / "learning_curve.csv", index=False)
        seal(folder, result)
    drawn = figures.draw(settings(load(tmp_path / "old"), "t", 4), None)
    assert {drawing.name for drawing in drawn} == NAMES - {"fig2a"}


def test_the_command_writes_figures_or_says_why_not(real_runs: Path, tmp_path: Path) -> None:
    (one,) = find(real_runs / "makespan" / "proposed")
    done = dtsim("report", one, "--figures", tmp_path / "figures")
    assert done.exit_code == 0, done.output
    files = {file.name: file.read_bytes() for file in (tmp_path / "figures").iterdir()}
    assert set(files) == {f"{name}.{ending}" for name in NAMES for ending in ("png", "pdf")}
    assert all(data.startswith(b"\x89PNG" if name.endswith("png") else b"%PDF") for name, data in files.items())
    assert min(map(len, files.values())) > 8000
    (tmp_path / "file").write_text("")
    refused = dtsim("report", one, "--figures", tmp_path / "file")
    assert refused.exit_code == 2
    assert refused.stderr.startswith(f"error: figures='{tmp_path / 'file'}': must be a folder that can be written")
    damaged = shutil.copytree(one, tmp_path / "damaged")
    (damaged / "slots.csv").write_text("scheme,mu\n")
    refused = dtsim("report", damaged, "--figures", tmp_path / "other")
    assert refused.exit_code == 2
    assert refused.stderr.count("\n") == 1
    assert "slots.csv" in refused.stderr
