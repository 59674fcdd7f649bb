"""The typed top level of a configuration, its validation, and the digest that names a run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from dtsim.core.errors import DatasetError
from dtsim.core.folders import cache_folder
from dtsim.core.parts import part, validated
from dtsim.learning.data.regular import read
from dtsim.runner.threshold import Relative

# Keys that affect where or when a run happens, but not its result.
_NOT_IN_DIGEST = ("outputs", "cache", "fresh", "format")

_CLOCKS = ("slot_s", "frame_spacing_s")
"""The keys of `time` that snapshots have."""

FILES = (
    *(("drift", "schedule"), ("drift", "distributions"), ("allocator", "checkpoint"), ("allocator", "file")),
    *((group, "path") for group in ("topology", "mobility", "channel", "traffic")),
)
"""Keys that name a file: the digest depends on the file's content, not on its path."""


@part
class Time:
    """The two clocks, and whether time passes between slots."""

    mode: Literal["snapshots", "contiguous"]
    """`snapshots`: every slot is priced by itself, as in the paper; `contiguous`: slots tile time, what is not done in
    one waits, and an update serves when its work is done."""
    slot_s: float = Field(gt=0, le=1e6)
    """Slot length Δ [s]."""
    frame_spacing_s: float = Field(gt=0, le=1e9)
    """Time between two frames [s]: drives mobility, and with it drift; in contiguous time a frame takes as long as its
    slots, and MUs move every slot."""
    deadline_s: float = Field(gt=0, le=1e6)
    """A task that takes longer misses its deadline [s] (contiguous)."""
    drop_after_s: float | None = Field(gt=0, le=1e9)
    """Age at which what is left of a task is given up [s] (contiguous); null: never."""
    backhaul_bps: float = Field(gt=0, le=1e15)
    """Rate between two base stations [bit/s], over which queues and models follow an MU (contiguous)."""
    while_training: Literal["keep", "replace"]
    """An MU whose last job is still under way when it is to be retrained: `keep` that job and start none, or `replace`
    it, and charge for what it did (contiguous)."""
    train_when_idle: bool
    """Whether training jobs also get what inference leaves of a base station's slot; else only what is allocated to
    them (contiguous)."""
    tasks: bool
    """Whether every task is written to tasks.csv (contiguous)."""

    @property
    def passes(self) -> bool:
        """Whether time passes between slots."""
        return self.mode == "contiguous"


@part
class Config:
    """All inputs of a run: `conf/config.yaml`, typed."""

    mu: int = Field(ge=1)
    """Number of mobile users K."""
    seed: int = Field(ge=0)
    """Random seed of the world."""
    frames: int = Field(ge=1)
    """Number of large-timescale steps N."""
    slots_per_frame: int = Field(ge=1)
    """Number of small-timescale steps in a frame, τ."""
    objective: Literal["makespan", "sum"]
    """System delay: the slowest user's (`makespan`), or the sum over BSs of their slowest user's (`sum`)."""
    accuracy_threshold: Annotated[float, Field(gt=0, lt=1)] | Relative
    """A_th: an accuracy below it is a break-out; `base-0.05`: that much below the base model's validation accuracy."""
    probe_images: int = Field(ge=0)
    """Images held out of each region, for learning curves and forgetting; 0: neither is measured."""
    scored_images: int | None = Field(ge=1)
    """Most images of an MU in a slot that are inferred and scored; null: all. The work of all is charged either way."""
    device: Literal["auto", "cpu", "cuda"]
    """Where models and physics run; `auto`: on a GPU where there is one."""
    format: Literal["csv", "parquet"]
    """File format of slots and frames; `parquet` needs pyarrow, is smaller, and read faster."""
    outputs: str = Field(min_length=1)
    """Where results go [path]."""
    cache: str | None
    """Where data, base models and policies are kept [path]; null: $DTSIM_CACHE, else the user's cache folder."""
    fresh: bool
    """Whether a run that is already done is done again."""
    time: dict[str, Any]
    energy: dict[str, Any]
    topology: dict[str, Any]
    mobility: dict[str, Any]
    channel: dict[str, Any]
    traffic: dict[str, Any]
    dataset: dict[str, Any]
    drift: dict[str, Any]
    model: dict[str, Any]
    pretraining: dict[str, Any]
    retraining: dict[str, Any]
    twin: dict[str, Any]
    generator: dict[str, Any]
    solver: dict[str, Any]
    allocator: dict[str, Any]
    scheme: dict[str, Any]
    choices: dict[str, str] = Field(default_factory=dict)
    """The choice made in each group, by the name that was typed. No key: it is told, and changes nothing."""

    @property
    def settings(self) -> dict[str, Any]:
        """Every key and its value, in plain containers."""
        return {key: value for key, value in asdict(self).items() if key != "choices"}

    @cached_property
    def digest(self) -> str:
        """Eight hexadecimal digits of a hash over every key that can change the results."""
        # Imported late: what they import takes longer than finding a typo.
        from dtsim.core.cache import digest_of
        from dtsim.learning.data.contents import contents

        content = {key: value for key, value in self.settings.items() if key not in _NOT_IN_DIGEST}
        for group in dict.fromkeys(group for group, _ in FILES):
            content[group] = self.content(group)
        content["dataset"] = contents(content["dataset"])
        if self.time["mode"] == "snapshots":  # other keys of time, and energy, change nothing there
            content["time"] = {key: self.time[key] for key in _CLOCKS}
            del content["energy"]
        return digest_of(content, 8)

    def content(self, group: str) -> dict[str, Any]:
        """The keys of a group, with the digest of a file in place of its path: what its results depend on."""
        keys = dict(getattr(self, group))
        for key in (key for owner, key in FILES if owner == group):
            if keys.get(key) is not None:
                keys[key] = _file_digest(str(keys[key]))
        return keys

    @property
    def folder(self) -> Path:
        """Folder of this run's results."""
        return (
            Path(self.outputs).expanduser()
            / str(self.scheme["name"])
            / f"mu={self.mu}"
            / f"seed={self.seed}-{self.digest}"
        )

    @property
    def cache_folder(self) -> Path:
        """Where things made once are kept: `cache`, else $DTSIM_CACHE, else the user's cache folder."""
        return cache_folder(self.cache)


def _file_digest(path: str) -> str:
    """SHA-256 of the file's bytes; if it is unreadable, the path itself, since the part reports the error."""
    try:
        return hashlib.sha256(read(Path(path).expanduser())).hexdigest()
    except DatasetError:
        return path


def typed(values: Mapping[str, Any]) -> Config:
    """Convert a resolved configuration in plain containers, without the `hydra` node, into a `Config`.

    Raises:
        ConfigError: with a line for every invalid value of the top level.
    """
    return validated(Config, values)
