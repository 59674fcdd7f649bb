"""The map of settings: recomputed from the runs' own files, and what it says of who wins."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dtsim.reporting import tiles
from dtsim.reporting.figures.tiles import tiles as drawn
from dtsim.reporting.runs import read
from dtsim.reporting.style import save
from dtsim.results.folders import is_done
from scripts import map as script
from scripts import sweeps

SCHEMES = (*tiles.BASELINES, "proposed")
Small: TypeAlias = tuple[list[sweeps.Work], pd.DataFrame, Path]
"""A small map that is done: its sweeps, its runs and its folder."""


def small(tiny: list[str], tmp_path: Path) -> tuple[list[sweeps.Work], pd.DataFrame]:
    """Two cells of a map on tiny data, with three seeds, done."""
    keys = [key for key in tiny if not key.startswith(("mu=", "frames="))]
    cells = [cell for cell in script.cells() if cell["trainable"] == "head" and cell["drift"] == "unseen_classes"]
    cells = [cell for cell in cells if cell["images"] == "10-30" and cell["effect"] == "at_once"]
    cells = [cell for cell in cells if cell["charge"] == "all"]  # fill and kl
    own = [*keys, "mu=3", "frames=3", "seed=0,1,2", f"scheme={','.join(SCHEMES)}"]
    works = sweeps.plan([script.sweep(cell) for cell in cells], tmp_path, 1, own)
    sweeps.run(works, None)
    found, failures = sweeps.collect(works)
    assert not failures and len(found) == 18
    return works, script.with_cells(found)


def by_hand(folder: Path) -> tuple[float, float, float]:
    """Mean delay, accuracy, share of broken-out MU-frames of a run, from slots.csv alone, without the first frame."""
    slots = pd.read_csv(folder / "slots.csv")
    slots = slots[slots["frame"] > 0]
    delay = slots.groupby("slot")["delay_s"].max().mean()
    frames = slots.groupby(["frame", "user"])[["correct", "scored"]].sum()
    accuracy = frames["correct"] / frames["scored"]
    return float(delay), float(accuracy.mean()), float((accuracy < 0.85).mean())


@pytest.fixture(scope="module")
def small_map(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Small:
    folder = tmp_path_factory.mktemp("map")
    return *small(tiny, folder), folder


def test_every_number_of_the_map_is_recomputed_from_the_slots(small_map: Small, tmp_path: Path) -> None:
    works, found, _ = small_map
    table = tiles.compare(found)
    assert len(table) == 4 and (table["n"] == 3).all()
    for work in works:
        cell = dict(pair.split("=") for pair in work.sweep.setting.split())
        values = {
            (str(task.job.config.scheme["name"]), task.job.config.seed): by_hand(task.job.config.folder)
            for task in work.tasks
        }
        for baseline in tiles.BASELINES:
            chosen = table["baseline"] == baseline
            for name, value in cell.items():
                chosen &= table[name] == value
            (row,) = table[chosen].to_dict("records")
            ours = np.array([values["proposed", seed] for seed in range(3)])
            theirs = np.array([values[baseline, seed] for seed in range(3)])
            logs = np.log(ours[:, 0] / theirs[:, 0])
            assert row["ratio"] == pytest.approx(math.exp(logs.mean()))
            if np.ptp(logs) > 0:
                ends = stats.t.interval(0.95, 2, loc=logs.mean(), scale=stats.sem(logs))
                assert [row["ratio_low"], row["ratio_high"]] == pytest.approx(np.exp(ends).tolist())
            assert [row["delay_s"], row["accuracy"], row["frame_breakouts"]] == pytest.approx(
                ours.mean(axis=0).tolist()
            )
            assert row["baseline_delay_s"] == pytest.approx(theirs[:, 0].mean())
            assert row["accuracy_difference"] == pytest.approx((ours - theirs)[:, 1].mean())
            assert row["frame_breakouts_difference"] == pytest.approx((ours - theirs)[:, 2].mean())
            assert row["faster"] == tiles.faster(row["ratio_low"], row["ratio_high"])
    files = save(drawn(table), tmp_path / "figures")
    assert sorted(file.name for file in files if file.suffix == ".png") == [
        "map-head-every_slot_windowed.png",
        "map-head-single_timescale.png",
    ]
    assert len(tiles.markdown(table).splitlines()) == 2 + len(table)
    assert len({line.count("|") for line in tiles.markdown(table).splitlines()}) == 1


def test_a_map_is_every_cell_once_and_whole_models_in_the_anchors() -> None:
    cells = list(script.cells())
    assert len({tuple(cell.items()) for cell in cells}) == len(cells) == 80
    heads = [cell for cell in cells if cell["trainable"] == "head"]
    usual = [cell for cell in heads if (cell["charge"], cell["effect"]) == ("all", "at_once")]
    assert len(heads) == 38 and len(usual) == 2 * 3 * 4
    assert len({(c["charge"], c["effect"], c["amount"]) for c in heads}) == 4 * 2 * 2
    anchors = [cell for cell in cells if cell["trainable"] == "all"]
    assert [sum(cell[name] != script.USUAL[name] for name in script.USUAL) for cell in anchors] == [0, 1, 1, 1]


def test_a_map_resumes_and_reports_what_is_there(
    tiny: list[str],
    small_map: Small,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works, folder = small_map[0], small_map[2]
    assert all(is_done(folder) for work in works for folder in work.folders)
    cells = [dict(pair.split("=") for pair in work.sweep.setting.split()) for work in works]
    monkeypatch.setattr(script, "cells", lambda: iter(cells))
    monkeypatch.setattr(sweeps, "run_sweep", lambda *_, **__: pytest.fail("nothing is left to run"))
    keys = [key for key in tiny if not key.startswith(("mu=", "frames="))]
    own = ["mu=3", "frames=3", "seed=0,1,2", f"scheme={','.join(SCHEMES)}"]
    kept = tmp_path / "kept"
    asked = ["--outputs", str(folder), "--expected", str(kept), "--workers", "1", "--accept", *keys, *own]
    assert script.main(asked) == 0
    said = capsys.readouterr().out
    assert "18 runs in 2 sweeps, 0 to do" in said and "What flips it" in said
    runs, _ = read([folder for work in works for folder in work.folders])
    assert len(runs) == 18
    assert (kept / "map.csv").read_bytes() == (folder / "map.csv").read_bytes()
    timing = sweeps.Timing.read(kept / "map.json")
    assert timing is not None and set(timing.seconds_per_mu) == {work.sweep.setting for work in works}


def row(ratio: float, spread: float = 1.1, **cell: Any) -> dict[str, Any]:
    usual = {**script.USUAL, "trainable": "head", "mu": 20, "baseline": "single_timescale", "claim": "not decided"}
    return {**usual, "ratio": ratio, "faster": tiles.faster(ratio / spread, ratio * spread), **cell}


def test_what_flips_the_winner() -> None:
    table = pd.DataFrame(
        [row(0.5), row(2.0, images="1000"), row(0.4, amount="kl"), row(1.05, amount="kl", images="1000")]
    )
    of = {str(found["choice"]): found for found in tiles.flips(table).to_dict("records")}
    assert set(of) == {"amount", "images"}
    images = of["images"]
    assert (images["pairs"], images["decided"], images["flipped"]) == (2, 1, 1)
    assert images["factor"] == pytest.approx(math.sqrt(4.0 * (1.05 / 0.4)))
    assert (of["amount"]["pairs"], of["amount"]["decided"], of["amount"]["flipped"]) == (2, 1, 0)
    (line,) = tiles.overview(table).splitlines()[2:]
    assert line.endswith("| 20 | `single_timescale` | 4 | 2 | 1 | 1 | 0 | -60 % … +100 % |")
    (counted,) = tiles.counts(table).to_dict("records")
    assert [counted[name] for name in ("cells", "proposed faster", "baseline faster", "neither faster")] == [4, 2, 1, 1]


@pytest.mark.parametrize(
    ("low", "high", "who"), [(0.5, 0.99, "proposed"), (1.01, 2.0, "baseline"), (0.9, 1.1, "neither")]
)
def test_who_is_faster_is_decided_by_the_interval(low: float, high: float, who: str) -> None:
    assert tiles.faster(low, high) == who
    assert tiles.faster(math.nan, math.nan) == "neither"


ROOT = Path(__file__).resolve().parents[1]


def test_what_readme_and_documentation_say_of_the_map_is_in_it() -> None:
    """Their tables, and each of their sentences about it."""
    table = pd.read_csv(ROOT / "reproduce" / "map.csv")
    assert (table["n"] >= 5).all()
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/map.md")]
    assert all(tiles.overview(table) in text for text in texts)
    priced = table[table["trainable"] == "head_at_model_price"]
    single = priced[priced["baseline"] == "single_timescale"]
    wins = single[
        (single["amount"] == "fill") & (single["images"] == "10-30") & single["charge"].isin(["all", "generated"])
    ]
    assert len(wins) == 7 and (wins["claim"] == "holds").all()
    assert [round(100 * (end - 1)) for end in (wins["ratio"].min(), wins["ratio"].max())] == [-94, -88]
    crowded = priced[priced["images"] == "1000"]
    unpaid = priced[priced["charge"].isin(["real", "none"])]
    for never in (crowded, unpaid, single[single["amount"] == "kl"]):
        assert len(never) and (never["faster"] != "proposed").all()
    between = single[(single["amount"] == "fill") & (single["images"] == "100-300")].set_index("drift")["faster"]
    assert set(between[["regions_differ", "rotation"]]) == {"proposed"} and between["unseen_classes"] == "neither"
    heads = table[table["trainable"] == "head"]
    assert (heads["faster"] == "baseline").all()
    assert [round(100 * (end - 1)) for end in (heads["ratio"].min(), heads["ratio"].max())] == [40, 78]
    usual = single[(single["charge"] == "all") & (single["drift"] == "unseen_classes") & (single["images"] == "10-30")]

    def at(amount: str, effect: str, name: str) -> float:
        (found,) = usual[(usual["amount"] == amount) & (usual["effect"] == effect)].to_dict("records")
        return float(found[name])

    more = [at("fill", effect, "frame_breakouts_difference") for effect in ("at_once", "when_done")]
    assert 100 * (more[1] - more[0]) == pytest.approx(6, abs=0.5)
    assert at("fill", "when_done", "ratio") == pytest.approx(at("fill", "at_once", "ratio"), rel=0.02)
    assert 100 * single[single["images"] != "10-30"]["accuracy_difference"].min() == pytest.approx(-6, abs=0.5)
    text = texts[1].replace("−", "-")
    for amount in ("fill", "kl"):
        value, low, high = (tiles.percent(at(amount, "at_once", name)) for name in ("ratio", "ratio_low", "ratio_high"))
        assert f"{value} ({low[:-2]}, {high[:-2]})" in text
    flips = tiles.flips(single).set_index("choice")[["flipped", "decided"]].T.to_dict("list")
    assert flips == {"amount": [4, 9], "images": [4, 10], "charge": [4, 8], "drift": [0, 17], "effect": [0, 5]}
