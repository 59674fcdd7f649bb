"""Map where the proposed scheme wins: against two baselines that decide every slot, over all that the verdict hangs on.

    make map        # or: python scripts/map.py

The map has cells for the amount of generated data, the images of an MU in a slot, the drift, whose work is charged and
when an update serves, at K = 5 and 20, five seeds each. Every cell trains heads, which is quick: once at their own
price, and once at that of whole models. The anchor cells train whole models too. The same command resumes an
interrupted map; `hydra/launcher=slurm` and the like spread it over machines. All output is below --outputs: the runs,
map.csv, map.md and figures/. Exit code 1: a run failed.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from dtsim.reporting import tiles
from dtsim.reporting.figures.tiles import tiles as drawn
from dtsim.reporting.style import save

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.sweeps import Sweep, carried_out, keep, parser_of, shown_on

SHOWN = ("map.csv", "figures/map-head-single_timescale.png", "figures/map-head_at_model_price-single_timescale.png")
"""Files kept beside the expected results, for README and documentation."""

IMAGES = {
    "10-30": (),
    "100-300": ("traffic.min_images=100", "traffic.max_images=300"),
    "1000": ("traffic.min_images=1000", "traffic.max_images=1000"),
}
AXES = tiles.AXES
USUAL = {axis: values[0] for axis, values in AXES.items()}
ANCHORS: tuple[dict[str, str], ...] = ({}, {"images": "100-300"}, {"amount": "kl"}, {"drift": "regions_differ"})
"""Where whole models are trained too: the usual cell, and one other choice each."""
RUNS = ("hydra.mode=MULTIRUN", f"scheme={','.join((*tiles.BASELINES, 'proposed'))}", "mu=20,5", "seed=0,1,2,3,4")


KEYS = {
    "head": ("retraining.trainable=head",),
    "head_at_model_price": ("retraining.trainable=head", "retraining.priced_as=model"),
    "all": ("retraining.trainable=all",),
}
"""What updates train, and what they are charged."""


def cells() -> Iterator[dict[str, str]]:
    """Every cell, by the names in `tiles.CELL`."""
    for trainable in ("head", "head_at_model_price"):
        for amount in AXES["amount"]:
            for images in AXES["images"]:
                for drift in AXES["drift"]:
                    yield {**USUAL, "trainable": trainable, "amount": amount, "images": images, "drift": drift}
            for charge in AXES["charge"]:
                for effect in AXES["effect"]:
                    if (charge, effect) != (USUAL["charge"], USUAL["effect"]):
                        yield {**USUAL, "trainable": trainable, "amount": amount, "charge": charge, "effect": effect}
    for other in ANCHORS:
        yield {**USUAL, "trainable": "all", **other}


def sweep(cell: dict[str, str]) -> Sweep:
    """The runs of a cell."""
    keys = (
        *KEYS[cell["trainable"]],
        f"generator.amount={cell['amount']}",
        *IMAGES[cell["images"]],
        f"drift={cell['drift']}",
        f"retraining.charge={cell['charge']}",
        f"retraining.effect={cell['effect']}",
    )
    return Sweep(" ".join(f"{name}={cell[name]}" for name in tiles.CELL), (*RUNS, *keys))


def with_cells(found: pd.DataFrame) -> pd.DataFrame:
    """`found` with the columns `tiles.CELL`, read from its column `setting`."""
    cells = [dict(pair.split("=", 1) for pair in setting.split(" ")) for setting in found["setting"]]
    return found.assign(**{name: [cell[name] for cell in cells] for name in tiles.CELL})


def conclude(found: pd.DataFrame, outputs: Path, console: Console) -> None:
    """Write the map as CSV, Markdown and figures, and print what it says."""
    table = tiles.compare(with_cells(found))
    table.to_csv(outputs / "map.csv", index=False)
    (outputs / "map.md").write_text(f"{tiles.overview(table)}\n{tiles.markdown(table)}")
    save(drawn(table), outputs / "figures")
    for title, said in (
        ("Who is faster: cells in which the 95 % interval decides", tiles.counts(table)),
        ("What flips it: pairs of cells that differ in one choice", tiles.flips(table).round({"factor": 2})),
    ):
        shown = Table(title=title)
        for name in said:
            shown.add_column(str(name))
        for row in said.itertuples(index=False):
            shown.add_row(*map(str, row))
        console.print(shown)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the whole map; returns the exit code."""
    parser = parser_of(__doc__, "outputs/map", "map.csv and map.json")
    parser.add_argument("--report", action="store_true", help="only report the runs that are done")
    asked = parser.parse_args(arguments)
    console = shown_on()
    started = time.monotonic()
    sweeps = [sweep(cell) for cell in cells()]
    done = carried_out(sweeps, asked, "map.json", console, missing=not asked.report)
    if done is None:
        return 2
    found, failures = done
    if found.empty:
        return 1
    conclude(found, asked.outputs, console)
    if asked.accept and not failures:  # an incomplete map is none
        keep(found, asked.outputs, SHOWN, asked.expected / "map.json", asked.workers)
    took = f"{(time.monotonic() - started) / 60:.1f} min"
    console.print(f"{took}; see {asked.outputs}: map.csv, map.md, figures", highlight=False, soft_wrap=True)
    return 0 if not failures else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted: the same command resumes the map", file=sys.stderr)
        sys.exit(130)
