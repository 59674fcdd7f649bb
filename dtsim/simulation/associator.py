"""P2 in the loop: the association of MUs with base stations, on what is known when it is due."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from dtsim.association.problem import Association, AssociationProblem, Solver
from dtsim.learning.learners import Learners
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.scheme import Scheme
from dtsim.simulation.updates import Updates
from dtsim.simulation.world import Frame, Slot, Uplinks, World
from dtsim.twin.twin import Twin


@dataclass(frozen=True)
class Associator:
    """Solves P2 in the scheme's way."""

    world: World
    learners: Learners
    twin: Twin
    solver: Solver
    scheme: Scheme
    recorder: Recorder

    def associate(self, frame: Frame, slot: Slot, links: Uplinks, updates: Updates) -> Association:
        """Solve P2 on the twin's forecast of the frame, or on the current slot if it is solved every slot."""
        whole_frame = self.scheme.associate == "frame"
        captured = self.twin.forecast_bytes() if whole_frame else self.captured_bytes(slot)
        rate_bps = (frame.forecast_rate_bps if whole_frame else links.rate_bps).cpu().numpy()
        association = self.solver.solve(
            AssociationProblem(
                work_flop=self.learners.cost.flop_per_byte * captured + updates.slot_flop,
                upload_s=8 * captured / rate_bps + self.world.downlink_s,
                station_flops=self.world.station_flops.cpu().numpy(),
                gain=frame.mean_gain.cpu().numpy(),
            )
        )
        self.recorder.association(frame, slot, association)
        return association

    def captured_bytes(self, slot: Slot) -> np.ndarray:
        """Data that every MU captures in a slot, byte; [K]."""
        return slot.images * float(self.learners.cost.sample_bytes)
