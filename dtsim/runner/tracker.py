"""Copies of finished runs for a tracker: configuration, run.csv, means over frames and slots, and learning curves.

A run is on the disk before its tracker hears of it. Whatever fails here is one warning.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import OmegaConf

from dtsim.results.folders import is_done
from dtsim.runner.composition import config_of
from dtsim.runner.tracked import SENDERS, Tracked


class Tracker(Callback):  # type: ignore[misc]
    """Hydra's callback of `tracker=...`, called in the process of each job."""

    def __init__(self, to: str) -> None:
        self._to = to
        self._was_done = False

    def on_job_start(self, config: Any, **_: Any) -> None:
        """See whether the run is done already: it is not logged again."""
        own = config_of(config)
        self._was_done = not own.fresh and is_done(own.folder)

    def on_job_end(self, config: Any, job_return: Any, **_: Any) -> None:
        """Log the run if it is done now and was not."""
        if getattr(job_return._return_value, "state", None) == "done" and not self._was_done:
            track(self._to, OmegaConf.to_container(config.tracker, resolve=True), config_of(config).folder)


def track(to: str, keys: Any, folder: Path) -> None:
    """Log the run of `folder` with the tracker `to`; where that fails, say so in one line.

    Args:
        to: a key of `SENDERS`.
        keys: those of the group `tracker`.
        folder: of a finished run.
    """
    try:
        SENDERS[to](keys, Tracked(folder))
    except Exception as error:  # any, of any tracker: the run counts
        line = " ".join(str(error).split())[:300]
        print(f"warning: tracker={to}: {folder} was not logged ({type(error).__name__}: {line})", file=sys.stderr)
