"""The two-timescale loop where time passes: work waits in queues, and an update serves when its work is done."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from dtsim.allocation.allocator import Allocator
from dtsim.allocation.queues.queue_problem import (
    QueueAllocation,
    QueueProblem,
    QueueShares,
    held_shares,
    serve_queues,
    with_shares,
)
from dtsim.association.problem import Association, AssociationProblem, Solver
from dtsim.core.progress import Progress
from dtsim.learning.learners import Learners
from dtsim.learning.probe import Probe
from dtsim.physical import delay
from dtsim.physical.queues import Served, TaskQueues
from dtsim.results.records import Records
from dtsim.simulation.decision import Decider, Decision
from dtsim.simulation.handover import Backhaul
from dtsim.simulation.ledger import Ledger
from dtsim.simulation.loop import teller
from dtsim.simulation.power import Power
from dtsim.simulation.recorder import Recorder
from dtsim.simulation.retrainer import Retrainer, Tell
from dtsim.simulation.scheme import Scheme, due
from dtsim.simulation.scoring import share_correct
from dtsim.simulation.training_jobs import Job, TrainingJobs, Waiting
from dtsim.simulation.updates import Updates
from dtsim.simulation.versions import Versions
from dtsim.simulation.world import Frame, Slot, Uplinks, World
from dtsim.twin.twin import Twin


@dataclass
class ContiguousSimulation:
    """One run in which time passes: a world, the parts that decide in it, and the recorder."""

    world: World
    learners: Learners
    twin: Twin
    decider: Decider
    retrainer: Retrainer
    solver: Solver
    allocator: Allocator
    min_upload: float
    """`allocator.min_upload`."""
    scheme: Scheme
    recorder: Recorder
    ledger: Ledger
    progress: Progress
    probe: Probe
    power: Power
    backhaul: Backhaul
    trains_when_idle: bool
    """Whether training also gets what inference leaves of a slot."""
    replaces: bool
    """Whether a new update stops one that is under way."""
    drop_after_s: float | None

    def __post_init__(self) -> None:
        """Begin at time 0 with empty queues and the base models."""
        world = self.world
        self.slot_s = world.network.slot_s
        self.queues = TaskQueues((world.users,), self.slot_s, world.network.device)
        self.jobs = TrainingJobs(
            world.users, world.station_flops.cpu().numpy(), self.slot_s, uses_idle=self.trains_when_idle
        )
        self.versions = Versions(self.learners.base, world.users)
        self._station: np.ndarray | None = None
        self._ahead: dict[int, tuple[Slot, np.ndarray]] = {}  # slots with tasks under way, and images uploaded [K]
        self._coming: list[Job] = []  # done, and not yet in effect at the base station
        self._shares: QueueShares | None = None

    @property
    def records(self) -> Records:
        """The rows so far."""
        return self.recorder.records

    def run(self, frames: int) -> None:
        """Simulate `frames` frames."""
        self.recorder.regions()
        with self.progress.phase("frames", frames * self.world.slots_per_frame) as phase:
            for frame in self.world.frames(frames):
                tell = teller(phase, frame)
                epochs: list[Updates] = []
                right, inferred = np.zeros((2, self.world.users), dtype=np.int64)
                trained_flop = np.zeros(self.world.users)
                for slot, links in zip(frame.slots, frame.links, strict=True):
                    now = replace(frame, region=slot.region)
                    self._take_effect()
                    asked = np.zeros(self.world.users)
                    stopped = np.zeros(self.world.users)
                    if due(self.scheme.retrain, slot.in_frame):
                        decision, stopped = self._decide(now, slot)
                        epochs.append(self._retrain(decision, now, slot, tell))
                    moved_bits = np.zeros(self.world.users)
                    if due(self.scheme.associate, slot.in_frame):
                        tell("solving the association")
                        association = self._associate(now, slot, links, epochs[-1])
                        moved_bits = self._hand_over(association)
                    if due(self.scheme.retrain, slot.in_frame):
                        asked = self._ask(epochs[-1], now, slot)
                    correct, served = self._pass(now, slot, links, epochs[-1], asked, stopped, moved_bits, trained_flop)
                    right += correct
                    inferred += served
                    phase.advance()
                    tell(f"accuracy {correct.sum() / max(1, served.sum()):.2f}")
                self.decider.end_of_frame(frame, right, inferred)
                self.recorder.frame(frame, association, epochs, right, inferred, trained_flop)
        self.ledger.ended(self.queues.retire(everything=True))
        self.ledger.close([*self.jobs.ended, *(job for jobs in self.jobs.underway for job in jobs)])

    def _take_effect(self) -> None:
        """Let the models serve that have arrived at the base stations by the start of the slot."""
        here = [job for job in self._coming if job.station_from_s <= self.queues.now_s]
        for job in here:
            assert job.trained is not None
            self.learners.serve(job.user, job.trained)
        self._coming = [job for job in self._coming if job not in here]

    def _decide(self, frame: Frame, slot: Slot) -> tuple[Decision, np.ndarray]:
        """Decide (15); what an update under way means for it; and the work of the updates that are stopped [K]."""
        decision = self.decider.decide(frame, slot)
        updating = self.jobs.updating
        stopped = np.zeros(self.world.users)
        if not self.replaces:
            return replace(decision, retrain=decision.retrain & ~updating), stopped
        for user in np.flatnonzero(decision.retrain & updating).tolist():
            stopped[user] = self.jobs.stop(user, self.queues.now_s)
        return decision, stopped

    def _retrain(self, decision: Decision, frame: Frame, slot: Slot, tell: Tell) -> Updates:
        """Train what `decision` names: the result is held until its work is done."""
        before = list(self.learners.models)
        updates = self.retrainer.execute(decision, frame, slot, tell)
        now = self.queues.now_s
        for user, (old, new) in enumerate(zip(before, self.learners.models, strict=True)):
            if new is not old:  # an update without work
                self.versions.add(user, new, now, now + self.backhaul.download_s)
        return updates

    def _ask(self, updates: Updates, frame: Frame, slot: Slot) -> np.ndarray:
        """Make the jobs of a decision, at the base stations that serve the MUs; their work, FLOP [K]."""
        assert self._station is not None
        trained = self.learners.take_waiting()
        for user in np.flatnonzero((updates.charged_flop > 0) | np.isin(np.arange(self.world.users), [*trained])):
            job = Job(
                user=int(user),
                station=int(self._station[user]),
                flop=float(updates.charged_flop[user]),
                slots=updates.decision.window_slots,
                slot=slot.index,
                asked_s=self.queues.now_s,
                trained=trained.get(int(user)),
                real=int(updates.real[user]),
                generated=int(updates.generated[user]),
            )
            if job.trained is not None:
                region = int(frame.region[user])
                job.accuracy_before = self.probe.accuracy(self.learners.models[user], region)
                job.accuracy_after = self.probe.accuracy(job.trained.model, region)
            if job.flop > 0:
                self.jobs.ask(job)
            else:  # nothing of it is charged
                job.started_s = job.done_s = self.queues.now_s
                self.jobs.ended.append(job)
                self._send(job)
                self._take_effect()
        return updates.charged_flop.copy()

    def _send(self, job: Job) -> None:
        """Send the model that a job led to to whoever infers with it."""
        if job.trained is None:
            return
        assert self._station is not None
        away = job.station != self._station[job.user]
        job.station_from_s = job.done_s + (self.backhaul.model_s if away else 0.0)
        job.mu_from_s = job.station_from_s + self.backhaul.download_s
        job.version = self.versions.add(job.user, job.trained.model, job.station_from_s, job.mu_from_s)
        self._coming.append(job)

    def _associate(self, frame: Frame, slot: Slot, links: Uplinks, updates: Updates) -> Association:
        """Solve P2 on the twin's forecast of the frame, or on the current slot if it is solved every slot."""
        whole_frame = self.scheme.associate == "frame"
        captured = self.twin.forecast_bytes() if whole_frame else self._captured_bytes(slot)
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

    def _captured_bytes(self, slot: Slot) -> np.ndarray:
        return slot.images * float(self.learners.cost.sample_bytes)

    def _hand_over(self, association: Association) -> np.ndarray:
        """Move queues and models of the MUs whose base station changed; the bits that follow each, [K]."""
        before, self._station = self._station, association.station
        bits = np.zeros(self.world.users)
        if before is not None:
            changed = association.station != before
            version = self.versions.numbers(self.queues.now_s, at_mu=False)
            bits = self.backhaul.bits(self.queues, self.learners.cost.flop_per_byte, version) * changed
            self.backhaul.block(self.queues, bits)
        return bits

    def _pass(
        self,
        frame: Frame,
        slot: Slot,
        links: Uplinks,
        updates: Updates,
        asked: np.ndarray,
        stopped: np.ndarray,
        moved_bits: np.ndarray,
        trained_flop: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pass one slot; images inferred correctly, and images inferred, of every MU; int64 [K] each."""
        assert self._station is not None
        queues, now_s = self.queues, self.queues.now_s
        before = queues.waiting
        waiting_flop = self.jobs.waiting_flop - asked
        if self.drop_after_s is not None:
            queues.drop(self.drop_after_s)
        training = self.jobs.waiting(slot.index, self._station)
        problem = self._problem(slot, links, training)
        allocation = self._allocate(problem, slot)
        capacity = self.learners.cost.flop_per_byte
        upload = allocation.upload_bytes
        queues.arrive(capacity * (problem.captured_bytes - upload), 8 * upload, capacity * upload)
        passed = queues.advance(problem.mu_flops, problem.rate_bps, allocation.inference_flops)
        inferred = passed.station.done.cpu().numpy()
        done, over = self.jobs.advance(slot.index, self._station, allocation.training_flops.cpu().numpy(), inferred)
        trained_flop += done
        # The small offset makes an upload of n images up to rounding count as n.
        uploaded = (upload.cpu().numpy() / self.learners.cost.sample_bytes + 1e-6).astype(np.int64)
        self._ahead[slot.index] = slot, uploaded
        columns = self._columns(frame, slot, links, problem, allocation, before, passed)
        columns |= {
            "training_start_flop": waiting_flop + stopped,
            "training_asked_flop": asked,
            "training_done_flop": done,
            "training_stopped_flop": stopped,
            "training_end_flop": self.jobs.waiting_flop,
            "retrain_flop": done,
            "station_j": self.power.station_j(inferred + done),
            "handover": (moved_bits > 0).astype(np.int64),
            "backhaul_bits": moved_bits,
            "retrain": updates.updated.astype(np.int64) if due(self.scheme.retrain, slot.in_frame) else 0,
            "station_version": self.versions.numbers(now_s, at_mu=False),
            "mu_version": self.versions.numbers(now_s, at_mu=True),
        }
        for job in over:
            self._send(job)
        correct, served = self._infer(passed, slot, columns)
        self._show_twin(passed, slot, correct, served)
        finished = queues.retire()
        self.ledger.ended(finished)
        for one in finished:
            del self._ahead[one.slot]
        self.versions.forget(queues.first * self.slot_s)
        return correct, served

    def _problem(self, slot: Slot, links: Uplinks, training: Waiting) -> QueueProblem:
        """The decision of this slot."""
        like = links.rate_bps
        local, uplink, station_flop = self.queues.waiting

        def tensor(values: np.ndarray) -> Tensor:
            return torch.as_tensor(values, dtype=like.dtype, device=like.device)

        station = torch.as_tensor(self._station, device=like.device)
        least = np.ceil(self.min_upload * slot.images) * self.jobs.updating * float(self.learners.cost.sample_bytes)
        rate_bps = delay.at_station(like, station)
        return QueueProblem(
            captured_bytes=tensor(self._captured_bytes(slot)),
            rate_bps=rate_bps,
            local_flop=local,
            uplink_bits=uplink,
            station_flop=station_flop,
            training_flop=tensor(training.left_flop),
            due_flop=tensor(training.due_flop),
            station=station,
            station_flops=self.world.station_flops - tensor(training.elsewhere_flops),
            mu_flops=torch.full_like(rate_bps, self.world.mu_flops),
            flop_per_byte=self.learners.cost.flop_per_byte,
            downlink_s=self.world.downlink_s,
            slot_s=self.slot_s,
            least_upload_bytes=torch.where(rate_bps > 0, tensor(least), 0.0),
            **self.power.prices,
        )

    def _allocate(self, problem: QueueProblem, slot: Slot) -> QueueAllocation:
        """The allocator's answer, or the shares that are held since the last time that it was asked."""
        if self._shares is not None and not due(self.scheme.allocate, slot.in_frame):
            return with_shares(self._shares, problem)
        allocation = serve_queues(self.allocator, problem)
        self._shares = held_shares(problem, allocation)
        return allocation

    def _infer(self, passed: Served, slot: Slot, columns: dict[str, object]) -> tuple[np.ndarray, np.ndarray]:
        """Infer the parts of tasks whose inference ended in the slot, each by the version that began it."""
        where = [torch.nonzero(over).cpu().numpy() for over in (passed.station_over, passed.local_over)]
        start_s = [
            times[over].cpu().numpy()
            for times, over in (
                (self.queues.station_start, passed.station_over),
                (self.queues.local_start, passed.local_over),
            )
        ]
        user = np.concatenate([places[:, 0] for places in where])
        index = np.concatenate([places[:, 1] for places in where]) + self.queues.first
        at_mu = np.repeat([False, True], [len(places) for places in where])
        slots = [self._ahead[one][0] for one in index.tolist()]
        cut = np.array([self._ahead[one][1][who] for one, who in zip(index.tolist(), user.tolist(), strict=True)])
        images = np.array([one.images[who] for one, who in zip(slots, user.tolist(), strict=True)])
        first, last = np.where(at_mu, cut, 0), np.where(at_mu, images, cut)
        models, which, version = self.versions.serving(user.tolist(), np.concatenate(start_s).tolist(), at_mu.tolist())
        view = self.world.served(slots, user, first, last)
        sizes = np.array(
            [
                max(0, min(end, one.scored[who]) - start)
                for one, who, start, end in zip(slots, user, first, last, strict=True)
            ],
            dtype=np.int64,
        )
        part = np.repeat(np.arange(len(user)), sizes)
        hit = self.learners.right(view, models, which[part]) if len(view) else np.zeros(0, dtype=bool)
        right = np.bincount(part[hit], minlength=len(user))
        correct = np.bincount(user, weights=right, minlength=self.world.users).astype(np.int64)
        served = np.bincount(user, weights=sizes, minlength=self.world.users).astype(np.int64)
        accuracy = share_correct(correct, served)
        breakout = (accuracy < self.recorder.accuracy_threshold).astype(np.int64)
        self.ledger.slot(
            slot.index, {**columns, "correct": correct, "served": served, "accuracy": accuracy, "breakout": breakout}
        )
        for place in range(len(user)):
            self.ledger.inferred(
                int(index[place]),
                int(user[place]),
                at_mu=bool(at_mu[place]),
                correct=int(right[place]),
                version=int(version[place]),
            )
        return correct, served

    def _show_twin(self, passed: Served, slot: Slot, correct: np.ndarray, served: np.ndarray) -> None:
        """Pass the images that arrived in the slot to the twin, whole ones only, and what was measured."""
        arrived = torch.nonzero(passed.uplink_over).cpu().numpy()
        for column in np.unique(arrived[:, 1]).tolist():
            captured, uploaded = self._ahead[column + self.queues.first]
            counts = np.zeros_like(uploaded)
            users = arrived[arrived[:, 1] == column, 0]
            counts[users] = uploaded[users]
            for user, images, places in self.world.collected(captured, counts):
                self.twin.store.upload(user, captured.region[user], images, places)
        self.twin.see_traffic(self._captured_bytes(slot))
        self.decider.measured(correct, served)

    def _columns(
        self,
        frame: Frame,
        slot: Slot,
        links: Uplinks,
        problem: QueueProblem,
        allocation: QueueAllocation,
        before: tuple[Tensor, Tensor, Tensor],
        passed: Served,
    ) -> dict[str, object]:
        """The columns of slots.csv that are known at the end of the slot; [K] each."""
        queues: dict[str, Tensor] = {}
        for name, unit, start, what in zip(
            ("local", "uplink", "station"),
            ("flop", "bits", "flop"),
            before,
            (passed.local, passed.uplink, passed.station),
            strict=True,
        ):
            steps = {
                "start": start,
                "asked": what.asked,
                "done": what.done,
                "dropped": what.dropped,
                "end": what.waiting,
            }
            queues |= {f"{name}_{step}_{unit}": values for step, values in steps.items()}
        tensors = {
            "x_m": links.position_m[:, 0],
            "y_m": links.position_m[:, 1],
            "snr_db": delay.at_station(links.snr_db, problem.station),
            "rate_bps": problem.rate_bps,
            "captured_bytes": problem.captured_bytes,
            "upload_bytes": allocation.upload_bytes,
            "local_flops": problem.mu_flops,
            "compute_flops": allocation.inference_flops + allocation.training_flops,
            "inference_flops": allocation.inference_flops,
            "training_flops": allocation.training_flops,
            "station_flops": self.world.station_flops[problem.station],
            "tx_j": self.power.tx_j(passed.transmitting_s),
            "local_j": self.power.local_j(passed.local.done),
            **queues,
        }
        together = torch.stack(list(tensors.values())).cpu().numpy()  # one transfer
        return {
            "frame": frame.index,
            "slot": slot.index,
            "user": np.arange(self.world.users),
            "station": self._station,
            "region": slot.region,
            **dict(zip(tensors, together, strict=True)),
            "flop_per_byte": problem.flop_per_byte,
            "downlink_delay_s": np.where(together[list(tensors).index("upload_bytes")] > 0, self.world.downlink_s, 0.0),
            "images": slot.images,
            "scored": slot.scored,
            "model_age_frames": frame.index - self.learners.updated_frame,
        }
