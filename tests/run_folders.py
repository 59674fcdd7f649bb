"""Folders of runs as `dtsim run` leaves them, with numbers of the test's own."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dtsim.results.seal import seal


def write_run(
    root: Path,
    scheme: str = "proposed",
    mu: int = 2,
    seed: int = 0,
    config: Mapping[str, object] | None = None,
    choices: Mapping[str, str] | None = None,
    **measured: object,
) -> Path:
    """Write run.csv and result.json of one run; `config` maps dotted keys to values beside a small default.

    `choices` are those that the run notes; None: it notes none, as older versions did.
    """
    settings = {
        "mu": mu,
        "seed": seed,
        "frames": 2,
        "slots_per_frame": 5,
        "accuracy_threshold": 0.85,
        "outputs": str(root),
        "generator.amount": "fill",
        "channel._target_": "dtsim.physical.channel.FreeSpace",
        "channel.fading": "rayleigh",
        "topology.station_flops": [1.0, 2.0],
        "dataset.root": None,
        "scheme.name": scheme,
        "scheme.associate": "frame",
        **(config or {}),
    }
    own = {key: value for key, value in settings.items() if key not in ("mu", "seed", "outputs")}
    digest = f"{abs(hash((mu, seed, json.dumps(own)))):x}"[:8]
    row = {
        "scheme": scheme,
        "mu": mu,
        "seed": seed,
        "objective": "makespan",
        "system_delay_mean_s": 0.1 + 0.01 * seed,
        "system_delay_p95_s": 0.2,
        "accuracy_mean": 0.9,
        "breakout_rate": 0.25,
        "frame_breakout_rate": 0.5,
        "retrains": 3,
        "retrain_flop": 2e9,
        "prediction_mae": "",
        "allocator": "ddpg",
        "allocator_gap_mean": 0.01,
        "association_gap_mean": 0.0,
        "wall_time_s": 4.0,
        **measured,
    }
    folder = root / scheme / f"mu={mu}" / f"seed={seed}-{digest}"
    folder.mkdir(parents=True)
    (folder / "run.csv").write_text(",".join(row) + "\n" + ",".join(map(str, row.values())) + "\n")
    result = {"config": nested(settings), "digest": digest, "versions": {"python": "3.11.7", "torch": "2.13.0"}}
    seal(folder, result if choices is None else {**result, "choices": dict(choices)})
    return folder


def nested(dotted: Mapping[str, object]) -> dict[str, Any]:
    """Dotted keys as nested dictionaries."""
    tree: dict[str, Any] = {}
    for key, value in dotted.items():
        *groups, last = key.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return tree
