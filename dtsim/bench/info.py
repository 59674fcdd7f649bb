"""The cost of a model: the table of `dtsim info`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch import nn

from dtsim.bench.output import show, tell
from dtsim.core.parts import ConfigError
from dtsim.learning.models import ModelPart, Trainable, measure
from dtsim.runner.config import Config
from dtsim.runner.defaults import choices
from dtsim.runner.jobs import plan
from dtsim.runner.parts import Parts, layout_of


def info(overrides: Sequence[str]) -> None:
    """Print the cost of every model of conf/model, or of the one that `overrides` select, on the chosen data set.

    Nothing is downloaded, and nothing is trained.

    Raises:
        ConfigError: if a value is invalid.
        DatasetError: if the shape of the images is unknown without the data set, and it cannot be read.
    """
    chosen = any(override.lstrip("+").split("=")[0].split(".")[0] == "model" for override in overrides)
    config = plan(overrides, runs=False).jobs[0].config
    names = [_name(config, overrides)] if chosen else choices("model")
    rows = []
    for name in names:
        own = config if chosen else plan([*overrides, f"model={name}"], runs=False).jobs[0].config
        rows.append(_row(name, Parts(own), own.cache_folder))
    parts = Parts(config)
    shape, classes = layout_of(parts.dataset, config.cache_folder)
    keys = parts.retraining
    show(
        f"One sample: {'×'.join(map(str, shape))} = {math.prod(shape):,} bytes, {classes} classes",
        [row[0] for row in rows],
    )
    show(f"One update: {keys.samples:,} samples, {keys.epochs} epochs", [row[1] for row in rows])
    tell(
        [
            "forward, training: MFLOP of a sample as counted by torch, a multiply-add is 2; kappa: training / forward.",
            "c: FLOP/byte to infer. head: only the last linear layer is trained (retraining.trainable=head).",
            "GFLOP: work of an update; s: its duration with all the compute of the topology's first BS.",
        ]
    )


def built(part: ModelPart, shape: tuple[int, int, int], classes: int) -> nn.Module:
    """The network of `part` with random weights.

    Raises:
        ConfigError: if it cannot be built for images of this shape.
    """
    try:
        return part.build(shape, classes, 0)
    except ValueError as error:
        raise ConfigError([f"model.{error}"]) from None


def _name(config: Config, overrides: Sequence[str]) -> str:
    given = [override.split("=")[1] for override in overrides if override.split("=")[0] == "model"]
    return given[-1] if given else str(config.model["_target_"]).rpartition(".")[2]


def _row(name: str, parts: Parts, cache: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Costs of one sample and of one update."""
    shape, classes = layout_of(parts.dataset, cache)
    model = built(parts.model, shape, classes)
    whole = measure(model, shape)
    sample = {
        "model": name,
        "parameters": f"{whole.parameters:,}",
        "forward": _mega(whole.forward_flop),
        "c": f"{whole.flop_per_byte:,.0f}",
        "kappa": f"{whole.kappa:.2f}",
    }
    station_flops = float(parts.topology.build().station_flops[0])
    update = {"model": name}
    wanted: tuple[Trainable, ...] = ("all", "head")
    for trainable in wanted:
        try:
            cost = measure(model, shape, trainable)
        except ValueError:  # a user-defined model without a head
            update |= {"head GFLOP": "–", "head s": "–"}
            sample["head training"] = "–"
            continue
        keys = replace(parts.retraining, trainable=trainable, charge="all")
        flop = keys.update_flop(cost, keys.samples, 0, from_scratch=False)
        before = "head " if trainable == "head" else ""
        update |= {f"{before}GFLOP": f"{flop / 1e9:,.4g}", f"{before}s": f"{flop / station_flops:,.3g}"}
        sample[f"{before}training"] = _mega(cost.training_flop)
    return sample, update


def _mega(flop: float) -> str:
    return f"{flop / 1e6:,.4f}"
