"""What one decision epoch decided, eq. (15), and did, eq. (10)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Retrainings:
    """What one decision epoch decided and did, for every MU; [K] each, filled in as it is done."""

    predicted_accuracy: np.ndarray
    """The accuracy that (15) compared with the threshold; NaN where the scheme had none."""
    prediction_flop: np.ndarray
    """Work of predicting, in FLOP; charged where `retraining.charge` is all."""
    accuracy_without: np.ndarray
    """Accuracy that the model would have had in the frame without its update; NaN where there was none, or where
    updates are decided every slot."""
    updated: np.ndarray
    """b_k: whether the model was updated."""
    diverged: np.ndarray
    """Whether an update failed and left the old model; its work was done and is charged."""
    charged_flop: np.ndarray
    """Work charged to the decision window, in FLOP."""
    real: np.ndarray
    """Uploaded samples trained on."""
    generated: np.ndarray
    """Generated samples trained on."""
    kl_nat: np.ndarray
    """KL(P ‖ Q) of the generated samples, in nat; NaN where there are none."""
    generator_flop: np.ndarray
    """Work of the rng itself for the update, in FLOP; charged where `retraining.charge` is all."""
    window_slots: int
    """Slots of the decision window."""

    @classmethod
    def none_yet(cls, predicted_accuracy: np.ndarray, prediction_flop: np.ndarray, window_slots: int) -> Retrainings:
        """Predictions, and no update; nothing is charged."""
        users = len(predicted_accuracy)
        return cls(
            predicted_accuracy=predicted_accuracy,
            prediction_flop=prediction_flop,
            accuracy_without=np.full(users, np.nan),
            updated=np.zeros(users, dtype=bool),
            diverged=np.zeros(users, dtype=bool),
            charged_flop=np.zeros(users),
            real=np.zeros(users, dtype=np.int64),
            generated=np.zeros(users, dtype=np.int64),
            kl_nat=np.full(users, np.nan),
            generator_flop=np.zeros(users),
            window_slots=window_slots,
        )

    @property
    def slot_flop(self) -> np.ndarray:
        """W_k: work charged to each slot of the decision window, in FLOP."""
        return self.charged_flop / self.window_slots
