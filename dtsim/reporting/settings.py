"""A setting: runs that differ only in scheme, MUs and seed. Their slots are read when a figure needs them."""

from __future__ import annotations

from functools import cached_property

import pandas as pd

from dtsim.reporting.labels import rank
from dtsim.reporting.passing import passing
from dtsim.reporting.runs import columns_of
from dtsim.reporting.statistics import FEWEST_SEEDS, Interval, mean_interval
from dtsim.results.names import FRAMES, LEARNING_CURVE, SLOTS

_USUAL_MU = 20

# The two parts of the slowest MU's delay in a slot; the BS's part is the sum of the first three.
HALVES = ["upload_delay_s", "compute_delay_s", "retrain_delay_s", "local_delay_s"]


class Setting:
    """The runs of one variant (see `runs.labelled`), and the content of their files at one number of MUs."""

    def __init__(self, runs: pd.DataFrame, interval: Interval = "t") -> None:
        self.runs = runs
        self.interval = interval
        self.variant = str(runs["variant"].iloc[0])

    @cached_property
    def schemes(self) -> list[str]:
        """The schemes in display order."""
        return sorted(self.runs["scheme"].unique(), key=rank)

    @cached_property
    def mu(self) -> int:
        """The number of MUs in figures over time: 20, else the one with the most runs."""
        counts = self.runs["mu"].value_counts()
        return _USUAL_MU if _USUAL_MU in counts.index else int(max(counts.index, key=lambda mu: (counts[mu], mu)))

    @cached_property
    def at_mu(self) -> pd.DataFrame:
        """The runs with that many MUs."""
        return self.runs[self.runs["mu"] == self.mu]

    @cached_property
    def passing(self) -> pd.DataFrame:
        """Those of `at_mu` where time passes."""
        return passing(self.at_mu)

    @cached_property
    def schemes_at_mu(self) -> list[str]:
        """The schemes that were run with that many MUs."""
        return sorted(self.at_mu["scheme"].unique(), key=rank)

    @cached_property
    def run(self) -> pd.Series:
        """The run in a map or a timeline: the first seed of the first scheme."""
        return min((row for _, row in self.at_mu.iterrows()), key=lambda row: (rank(row["scheme"]), row["seed"]))

    @property
    def said(self) -> str:
        """The description of the runs in the captions of figures over time."""
        return f"K = {self.mu} MUs, {self.seeds(self.at_mu)}"

    def seeds(self, runs: pd.DataFrame) -> str:
        """The number of seeds per scheme and the kind of intervals: `n = 3 to 5 seeds, 95 % intervals (Student t)`."""
        counts = runs.groupby(["mu", "scheme"])["seed"].nunique()
        low, high = counts.min(), counts.max()
        number = f"{low}" if low == high else f"{low} to {high}"
        intervals = "95 % intervals over seeds " + ("(Student t)" if self.interval == "t" else "(BCa bootstrap)")
        if high < FEWEST_SEEDS:
            intervals = f"no intervals with fewer than {FEWEST_SEEDS}"
        return f"n = {number} seed{'' if high == 1 else 's'}, {intervals}"

    @cached_property
    def slots(self) -> pd.DataFrame:
        """One row per slot of each run of `at_mu`: `scheme, seed, slot, system_delay_s, accuracy` (mean) and `HALVES`.

        `HALVES` are those of the slowest MU, or sums over the BSs' slowest MUs if the objective is the sum; NaN where a
        task of theirs was never served. Without any task in a slot the delay is NaN too.
        """
        return self._each(_slots_of)

    @cached_property
    def frames(self) -> pd.DataFrame:
        """One row per frame of each run of `at_mu`: `scheme, seed, frame, breakout, accuracy`, means over MUs."""
        return self._each(_frames_of)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """One row per epoch of each run of `at_mu`, mean over updates: `scheme, seed, epoch` and the values."""
        return self._each(_epochs_of)

    def _each(self, reader: object) -> pd.DataFrame:
        assert callable(reader)
        parts = []
        for _, run in self.at_mu.iterrows():
            part = reader(run)
            if len(part):
                parts.append(part.assign(scheme=run["scheme"], seed=run["seed"]))
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()

    def whole_runs(self, metric: str) -> dict[str, pd.DataFrame]:
        """For each scheme of `at_mu` the mean of a metric over whole runs and its interval; one row."""
        return self.over_seeds(self.at_mu.assign(run=0), "run", metric)

    @cached_property
    def slots_per_frame(self) -> int:
        """Slots in a frame of `at_mu`; the most common number if there are several."""
        return int(self.at_mu["config.slots_per_frame"].mode().iloc[0])

    def over_frames(self, value: str) -> dict[str, pd.DataFrame]:
        """As `over_seeds` of `slots`, for means over the slots of a frame; the index is the middle of the frame."""
        size = self.slots_per_frame
        middle = self.slots["slot"] // size * size + (size - 1) / 2
        by_run = self.slots.assign(middle=middle).groupby(["scheme", "seed", "middle"], sort=False)[value].mean()
        return self.over_seeds(by_run.reset_index(), "middle", value)

    def over_seeds(self, table: pd.DataFrame, along: str, value: str) -> dict[str, pd.DataFrame]:
        """For each scheme the mean of `value` over seeds and its interval: columns `mean, low, high`, index `along`."""
        found = {}
        for scheme in self.schemes:
            own = table[table["scheme"] == scheme].dropna(subset=[value])
            if len(own):
                rows = {place: mean_interval(part, self.interval) for place, part in own.groupby(along)[value]}
                found[scheme] = pd.DataFrame.from_dict(rows, orient="index", columns=["mean", "low", "high"])
        return found


def settings(runs: pd.DataFrame, interval: Interval, most: int) -> list[Setting]:
    """A setting for each variant in `runs`, in order; at most `most`, those with the most runs."""
    largest = runs["variant"].value_counts().index[:most]
    return [Setting(part, interval) for name, part in runs.groupby("variant", sort=False) if name in set(largest)]


def _slots_of(run: pd.Series) -> pd.DataFrame:
    columns = ["slot", "station", "delay_s", "accuracy", *HALVES]
    slots = columns_of(run, SLOTS, columns)
    per = ["slot"] if run["objective"] == "makespan" else ["slot", "station"]
    slots_with_tasks = slots[slots["delay_s"].notna()]
    slowest = slots_with_tasks.loc[slots_with_tasks.groupby(per)["delay_s"].idxmax()]
    found = slowest.groupby("slot")[["delay_s", *HALVES]].sum()
    unserved = slowest[HALVES].isna().any(axis=1).groupby(slowest["slot"]).any()
    found.loc[unserved[unserved].index, HALVES] = float("nan")
    accuracy = slots.groupby("slot")["accuracy"].mean().to_frame()
    return accuracy.join(found.rename(columns={"delay_s": "system_delay_s"})).reset_index()


def _frames_of(run: pd.Series) -> pd.DataFrame:
    frames = columns_of(run, FRAMES, ["frame", "accuracy", "breakout"])
    return frames.groupby("frame").mean().reset_index()


def _epochs_of(run: pd.Series) -> pd.DataFrame:
    curve = columns_of(run, LEARNING_CURVE)
    if "epoch" not in curve:  # written by an older version
        return pd.DataFrame()
    updates = curve[curve["phase"].isin(["incremental", "from_scratch"]) & (curve["metric"] == "accuracy")]
    mean = updates.groupby("epoch").agg(accuracy=("value", "mean"), flop=("flop", "mean"), updates=("value", "size"))
    return mean.reset_index()
