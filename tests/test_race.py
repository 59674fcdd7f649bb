"""The race for compute: its table from runs, and the page that shows the kept one."""

from pathlib import Path

import pandas as pd
import pytest

from dtsim.reporting.statistics import mean_interval
from scripts import race, sweeps

ROOT = Path(__file__).parents[1]


def test_what_is_planned(tmp_path: Path) -> None:
    works = sweeps.plan(race.SWEEPS, tmp_path, 2, [])
    assert [len(work.tasks) for work in works] == [15, 9, 3, 3]
    configs = [task.job.config for work in works for task in work.tasks]
    assert all(config.time["mode"] == "contiguous" and config.mu == 20 for config in configs)
    assert len({config.folder for config in configs}) == 30


def test_a_small_race_is_recomputed_from_its_runs(tiny: list[str], tmp_path: Path) -> None:
    keys = [key for key in tiny if not key.startswith(("mu=", "slots_per_frame", "allocator"))]
    own = ["mu=3", "slots_per_frame=4", "seed=0,1,2", "scheme=proposed", "topology.station_flops=1.5e9"]
    works = sweeps.plan([race.SWEEPS[3]], tmp_path, 1, [*keys, *own])
    sweeps.run(works, None)
    found, failures = sweeps.collect(works)
    assert not failures and len(found) == 3
    table = race.summarised(found)
    runs = [pd.read_csv(path).iloc[0] for path in tmp_path.rglob("run.csv")]
    for measure in race.MEASURED:
        row = table[table["measure"] == measure].iloc[0]
        values = [float(run[measure]) for run in runs if run[measure] == run[measure]]
        assert row["n"] == len(values)
        assert [row["mean"], row["low"], row["high"]] == pytest.approx(list(mean_interval(values)), nan_ok=True)
    assert race.markdown(table).count("\n") == 3


def test_choices_are_compared_seed_by_seed() -> None:
    keys = [("proposed", "drift_plus_penalty"), ("proposed", "optimal")]
    found = pd.DataFrame(
        {"setting": "allocators", "config.scheme.name": scheme, "choice.allocator": allocator, "seed": seed}
        | dict.fromkeys(race.PAIRED, 0.1 * (seed + 1))
        | {"user_delay_mean_s": 10.0**seed * (2 if allocator == "optimal" else 1)}
        for scheme, allocator in keys
        for seed in (2, 0, 1)
    )
    table = race.compared(found)
    delay = table[table["measure"] == "user_delay_mean_s"].iloc[0]
    assert [delay["mean"], delay["low"], delay["high"], delay["n"]] == pytest.approx([2.0, 2.0, 2.0, 3])
    assert (table[table["measure"] != "user_delay_mean_s"]["mean"].abs() < 1e-12).all()
    assert race.compared(found[found["choice.allocator"] == "optimal"]).empty


def test_the_page_shows_the_kept_tables() -> None:
    page, kept = (ROOT / "docs" / "race.md").read_text(), ROOT / "reproduce"
    assert race.markdown(pd.read_csv(kept / "race.csv")) in page
    assert race.paired(pd.read_csv(kept / "race_paired.csv")) in page
