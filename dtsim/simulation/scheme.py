"""A scheme: the times of association, retraining and allocation, the basis of retraining decisions, and their data.

The loop of `dtsim.simulation.loop` reads these keys and does not depend on the scheme's name.
"""

from __future__ import annotations

import re
from typing import Literal

from dtsim.core.parts import part

_NAME = re.compile(r"[^\W_](?:[^/\\\x00-\x1f\x7f]{0,98}[^/\\\s\x00-\x1f\x7f])?")

Clock = Literal["frame", "slot"]


@part
class Scheme:
    """The keys of `conf/scheme`."""

    name: str
    """Name in the results."""
    associate: Clock
    """How often P2 is solved."""
    retrain: Clock
    """How often (15) is decided: the decision window."""
    allocate: Clock
    """How often P3 is solved; in between, shares of compute and upload are kept."""
    decision: Literal["twin", "measured_before", "measured_window", "measured_now", "truth", "never"]
    """The accuracy that (15) compares with the threshold: predicted by the `twin`; measured since the last decision
    (`measured_before`), in the last τ slots (`measured_window`), or in this slot (`measured_now`); the `truth` of the
    window to come; `never`: no retraining."""
    training: Literal["incremental", "from_scratch", "prior_correction"]
    """What an update is: `incremental` goes on from the present weights, `from_scratch` starts anew on all data
    collected, `prior_correction` re-weights the base model's logits for the class distribution Q_k, without
    training."""
    generated: bool
    """Whether the training set includes the twin's generated data."""
    belief: Literal["twin", "truth"]
    """Where the class distribution Q_k comes from."""

    def __post_init__(self) -> None:
        """Check the name and keys that depend on each other."""
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"name={self.name!r}: must be a folder's name: 1 to 100 characters, the first a letter or a digit, "
                "without / and \\"
            )
        if self.training == "prior_correction" and self.generated:
            raise ValueError("generated=True: must be false if training=prior_correction, which trains on nothing")
        if self.associate == "slot" and self.allocate == "frame":
            raise ValueError("allocate=frame: must be slot if associate=slot, or BSs would be overloaded")


def due(clock: Clock, slot_in_frame: int) -> bool:
    """Whether something on `clock` happens in this slot."""
    return clock == "slot" or slot_in_frame == 0
