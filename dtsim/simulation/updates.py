"""The updates of one decision epoch and their cost, eq. (10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtsim.simulation.decision import Decision


@dataclass(frozen=True)
class Updates:
    """The execution of one `Decision`, for every MU; arrays are [K] and are filled during execution."""

    decision: Decision
    accuracy_without: np.ndarray
    """Accuracy of the model in the frame without its update; NaN if there was no update, or if updates are decided
    every slot."""
    updated: np.ndarray
    """Whether the model was updated; bool."""
    diverged: np.ndarray
    """Whether an update failed and the old model was kept; the work is charged all the same. Bool."""
    charged_flop: np.ndarray
    """Work charged to the retraining window, in FLOP."""
    real: np.ndarray
    """Uploaded samples trained on."""
    generated: np.ndarray
    """Generated samples trained on."""
    kl_nat: np.ndarray
    """KL(P ‖ Q) of the generated samples, in nat; NaN if there are none."""
    generator_flop: np.ndarray
    """Work of the generator itself for the update, in FLOP; charged if `retraining.charge` is all."""

    @classmethod
    def none_yet(cls, decision: Decision) -> Updates:
        """Without any update or charge."""
        users = len(decision.retrain)
        return cls(
            decision=decision,
            accuracy_without=np.full(users, np.nan),
            updated=np.zeros(users, dtype=bool),
            diverged=np.zeros(users, dtype=bool),
            charged_flop=np.zeros(users),
            real=np.zeros(users, dtype=np.int64),
            generated=np.zeros(users, dtype=np.int64),
            kl_nat=np.full(users, np.nan),
            generator_flop=np.zeros(users),
        )

    @property
    def slot_flop(self) -> np.ndarray:
        """W_k: work charged to each slot of the retraining window, in FLOP; [K]."""
        return self.charged_flop / self.decision.window_slots
