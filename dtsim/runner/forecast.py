"""How long the jobs of a command will take on a CPU: said before the first starts."""

from __future__ import annotations

import json
from collections.abc import Iterable

from dtsim.core.progress import duration
from dtsim.results.folders import is_done
from dtsim.runner.config import Config
from dtsim.runner.parts import device_of
from dtsim.runner.workload import ALLOCATOR, PRETRAINING, Workload

_WORTH_SAYING_S = 600.0
_MADE_OF = {
    PRETRAINING: ("dataset", "drift", "model", "pretraining"),
    ALLOCATOR: ("allocator", "topology", "mobility", "channel", "traffic", "model", "retraining", "slots_per_frame"),
}
"""Groups that two runs must have in common to share what is made once."""


def forecast(jobs: Iterable[Config]) -> list[str]:
    """A line on the time of those of `jobs` that are not done and have no GPU; none where it is short.

    It is their work divided by measured speeds: an upper bound if fewer models are retrained, rough within a factor of
    two or three. What is trained once for several runs counts once.
    """
    own, count = 0.0, 0
    shared: dict[str, float] = {}
    for config in jobs:
        if device_of(config.device).type != "cpu" or (not config.fresh and is_done(config.folder)):
            continue
        count += 1
        for term in Workload(config).time():
            if (groups := _MADE_OF.get(term.what)) is None:
                own += term.amount
            else:
                key = json.dumps([term.what, *(getattr(config, group) for group in groups)], sort_keys=True)
                shared[key] = term.amount
    once = sum(shared.values())
    if own + once < _WORTH_SAYING_S:
        return []
    jobs_said = "this run takes" if count == 1 else f"these {count:,} runs take"
    kept = f"; {duration(once)} of it go into base models and policies, unless the cache has them" if once >= 1 else ""
    return [f"without a GPU {jobs_said} up to about {duration(own + once)} of one core{kept}"]
