"""A sweep of four jobs that takes seconds, on its own images, for the scripts that kill and damage sweeps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from dtsim.results.schema import SCHEMAS

SWEEP = [
    "run", "-m", "scheme=proposed,single_timescale", "mu=2,3", "frames=2", "slots_per_frame=2",
    "allocator=apg", "allocator.environment_steps=2000", "allocator.save_every=500", "allocator.evaluate_every=1000",
    "allocator.held_out_slots=20", "solver=greedy", "dataset=image_folder", "dataset.size=12",
    "dataset.pretrain_images=60", "dataset.increment_images=40", "dataset.validation_images=10",
    "dataset.test_images=32", "pretraining.epochs=1", "retraining.samples=20", "drift=label_shift", "device=cpu",
]  # fmt: skip


def write_images(folder: Path) -> None:
    """Four classes of noisy stripes, as PNG files."""
    rng = np.random.default_rng(0)
    for label in range(4):
        (folder / f"kind_{label}").mkdir(parents=True)
        for number in range(40):
            image = rng.integers(0, 90, (12, 12), dtype=np.uint8)
            image[3 * label : 3 * label + 3] += 120
            Image.fromarray(image).save(folder / f"kind_{label}" / f"{number:03}.png")


def content(folder: Path) -> dict[str, str]:
    """Every table of a run as text, without wall times."""
    texts = {}
    for name in SCHEMAS:
        table = pd.read_csv(folder / name, dtype=str)
        walls = [c for c in table.columns.astype(str) if c.endswith(("wall_time_s", "solve_time_s")) or c == "seconds"]
        texts[name] = table.drop(columns=walls).to_csv()
    return texts
