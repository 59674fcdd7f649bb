"""How much memory and time the keys of a run ask for, as sums of terms that each name the keys they grow with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from dtsim.runner.config import Config

_MOST = 10**40  # a larger number is as wrong, and its square would overflow
_PARAMETER_BYTES = 4.0
_TRAINING_FLOPS = 50e9  # of one core, measured with the small CNN; 59 with ResNet-18, 50 with ResNet-8
_INFERENCE_FLOPS = 30e9  # 85 with ResNet-18, 43 with ResNet-8
_UPLOAD_BYTES = 40.0  # a reference to an image, its user, and copies while a window is sorted
_TOGETHER_BYTES = 2.0**28  # training sets that are held at once, and their copy
_ROW_BYTES = 1000.0  # a row of slots.csv, three times over while it is written
_ROW_S = 5e-5

PRETRAINING, ALLOCATOR = "pre-training", "the allocator's training"
"""Terms of time that are spent once for many runs: their results are cached."""


@dataclass(frozen=True)
class Term:
    """One of the things that take memory [byte] or time [s of one core]."""

    what: str
    amount: float
    keys: tuple[str, ...]
    """Which of the configuration it grows with."""


class Workload:
    """The numbers of a configuration, and what they ask for; keys that are none of dtsim's classes' are left out."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.users = self._number("mu")
        self.frames = self._number("frames")
        self.slots = self._number("slots_per_frame")
        self.stations = self._stations()
        self.regions = self._number("drift.rows", 1) * self._number("drift.columns", 1)
        self.images = self._number("traffic.max_images", 1)
        self.scored = min(self.images, self._number("scored_images") or self.images)
        self.pixels, self.side, self.classes, self.data_images = self._data()
        epochs = self.frames * (self.slots if config.scheme.get("retrain") == "slot" else 1)
        self.updates = 0.0 if config.scheme.get("decision") == "never" else self.users * epochs
        self.from_scratch = config.scheme.get("training") == "from_scratch"
        self.model = self._model()

    def memory(self) -> Iterator[Term]:
        """What has to be held at once, in byte."""
        run = ("mu", "frames", "slots_per_frame")
        yield Term("the rows of slots.csv", self.users * self.frames * self.slots * _ROW_BYTES, run)
        yield Term("the links of a slot", 600 * self.users * self.stations, ("mu", "topology.stations"))
        captured = self.slots * self.users * (16 * self.images + 600)
        yield Term("the images of a frame", captured, ("mu", "slots_per_frame", "traffic.max_images"))
        region = 200 * self.classes + self._number("probe_images") * self.pixels
        yield Term("the regions", self.regions * region, ("drift.rows", "drift.columns", "probe_images"))
        # The images stay in the data set; only updates from scratch read more than the last window.
        kept = (1 + (self._number("twin.windows", 1) if self.from_scratch else 1)) * self._window()
        yield Term("the uploads that are kept", self.users * min(kept, self._captured()) * _UPLOAD_BYTES, run)
        yield Term("the replay store", self._number("twin.capacity") * self.pixels, ("twin.capacity",))
        one = self._set() * (self.pixels + 8)
        sets = min(min(self.users, max(1.0, self.updates)) * one, one + _TOGETHER_BYTES)
        yield Term("the training sets", sets, self._set_keys())
        parameters, activations = self.model.parameters * _PARAMETER_BYTES, self.model.activations * _PARAMETER_BYTES
        yield Term("the model", 4 * parameters, self._model_keys())
        if self.updates:
            yield Term("the users' models", self.users * parameters, ("mu", *self._model_keys()))
        for group, size in (("pretraining", self._pretrained()), ("retraining", self._set())):
            batch = min(self._number(f"{group}.batch_size"), size)
            yield Term("a batch", 3 * batch * activations, (f"{group}.batch_size", *self._model_keys()))
        yield from self._allocator_memory()
        channels, latent = self._number("generator.channels"), self._number("generator.latent")
        if channels:
            weights = 36 * channels**2 + channels * self.side**2 / 4 * latent
            batch = 3 * self._number("generator.fit_batch") * channels * self.side**2
            keys = ("generator.channels", "generator.latent", "generator.fit_batch")
            yield Term("the generator", (12 * weights + batch) * _PARAMETER_BYTES, keys)

    def _allocator_memory(self) -> Iterator[Term]:
        steps = self._number("allocator.environment_steps")
        if not steps or self.config.allocator.get("checkpoint") is not None:
            return
        users, hidden = self._number("allocator.train_users", 1), self._number("allocator.hidden", 1)
        width = users if self.config.allocator.get("policy") == "flat" else 1.0
        yield Term(
            "the policy", 64 * (4 * hidden**2 + 20 * width * hidden), ("allocator.hidden", "allocator.train_users")
        )
        held_out = self._number("allocator.held_out_slots") * users * (200 + 40 * self.stations)
        yield Term("the held-out slots", held_out, ("allocator.held_out_slots", "allocator.train_users"))
        most = max(users, self._number("allocator.most_users"))
        batch = self._number("allocator.batch_size") * most / width * hidden * 80
        yield Term("a batch of slots", batch, ("allocator.batch_size", "allocator.hidden"))
        buffer = self._number("allocator.buffer_slots") * users * 150
        yield Term("the replay buffer", buffer, ("allocator.buffer_slots", "allocator.train_users"))
        environments = self._number("allocator.environments") * users * (600 + 8 * self.slots)
        yield Term("the training environments", environments, ("allocator.environments", "allocator.train_users"))

    def time(self) -> Iterator[Term]:
        """What takes time, in seconds of one core."""
        run = ("mu", "frames", "slots_per_frame")
        heads = self.config.retraining.get("trainable") == "head"
        flop = self.model.head_flop(self.classes) if heads else self.model.flop
        inferred = self.users * self.frames * self.slots * (self.scored * flop / _INFERENCE_FLOPS + _ROW_S)
        yield Term("inference", inferred, (*run, "traffic.max_images", "scored_images"))
        if heads:
            computed = self._number("dataset.increment_images") + self._number("dataset.test_images")
            looks = self.regions if self._looks() else 1
            amount = looks * computed * self.model.flop / _INFERENCE_FLOPS
            yield Term("the features", amount, ("dataset.test_images", "drift.rows", "drift.columns"))
        yield Term("the slots", 3e-3 * self.frames * self.slots, run)
        solved = self.frames * (self.slots if self.config.scheme.get("associate") == "slot" else 1)
        yield Term("association", 3e-5 * solved * self.users * self.stations, ("mu", "frames", "topology.stations"))
        epochs = self._number("retraining.scratch_epochs" if self.from_scratch else "retraining.epochs")
        trained = self.updates * (self._set() * epochs * 3 * flop / _TRAINING_FLOPS)
        key = "retraining.scratch_epochs" if self.from_scratch else "retraining.epochs"
        if self.config.scheme.get("training") != "prior_correction":
            yield Term("retraining", trained, (key, *self._set_keys(), "frames"))
        least = self._number("pretraining.min_steps") * self._number("pretraining.batch_size")
        passed = max(self._pretrained() * self._number("pretraining.epochs"), least)
        pretraining = ("pretraining.epochs", "pretraining.min_steps", "dataset.pretrain_images")
        yield Term(PRETRAINING, passed * 3 * self.model.flop / _TRAINING_FLOPS, pretraining)
        yield Term(
            "mobility", self.frames * self._steps_of_a_frame() * 1e-4, ("time.frame_spacing_s", *self._pace_keys())
        )
        yield Term("the regions", self.regions * 1e-3, ("drift.rows", "drift.columns"))
        yield from self._allocator_time()
        fits = self._number("generator.fit_steps") * self._number("generator.fit_batch")
        if fits:
            work = self._number("generator.channels") ** 2 * self.side**2 * 30
            refits = min(self.updates, self._captured() * self.users / self._number("generator.refit_samples", 1) + 4)
            keys = ("generator.fit_steps", "generator.fit_batch", "generator.channels")
            yield Term("the generator's fits", refits * fits * work / _TRAINING_FLOPS, keys)

    def _allocator_time(self) -> Iterator[Term]:
        steps = self._number("allocator.environment_steps")
        if not steps or self.config.allocator.get("checkpoint") is not None:
            return
        batch = self._number("allocator.batch_size", 1)
        updates = self._number("allocator.update_ratio", 1 / batch)  # of a training slot
        work = batch * self._number("allocator.train_users", 1) * self._number("allocator.hidden", 1) ** 2 * 100
        each_s = 1e-4 + updates * (3e-3 + work / _TRAINING_FLOPS)
        keys = ("allocator.environment_steps", "allocator.update_ratio", "allocator.batch_size", "allocator.hidden")
        yield Term(ALLOCATOR, steps * each_s, keys)

    def _number(self, key: str, least: float = 0.0) -> float:
        """The value of a key as a float, `least` or more."""
        value = value_of(self.config, key)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return least
        return max(least, float(min(value, _MOST)))  # what is no number, .nan, is for its class to refuse

    def _stations(self) -> float:
        given = self.config.topology.get("stations_m")
        return float(len(given)) if isinstance(given, list) else self._number("topology.stations", 1)

    def _data(self) -> tuple[float, float, float, float]:
        """Bytes of an image, its height, the number of classes and of images to train with."""
        target = str(self.config.dataset.get("_target_")).rpartition(".")[2]
        known = {"FashionMnist": (784.0, 28.0, 10.0, 60_000.0), "Cifar10": (3072.0, 32.0, 10.0, 50_000.0)}
        size = self._number("dataset.size", 32)
        return known.get(target, (3 * size**2, size, 10.0, math.inf))

    def _model(self) -> Model:
        colours = max(1.0, self.pixels / self.side**2)
        channels, blocks = _counts(self.config.model.get("channels")), _counts(self.config.model.get("blocks"))
        if channels:
            return small_cnn(channels, colours, self.side, self.classes)
        side = self.side / (4 if self.config.model.get("stem") == "imagenet" else 1)
        return resnet(blocks[:30], self._number("model.width", 1), side)

    def _looks(self) -> bool:
        """Whether images look different from region to region."""
        keys = ("rotation_deg", "brightness", "blur_sigma", "noise_sigma")
        return any(self._number(f"drift.{key}") for key in keys)

    def _window(self) -> float:
        """Images that a user uploads between two decisions."""
        return self.images * (1 if self.config.scheme.get("retrain") == "slot" else self.slots)

    def _captured(self) -> float:
        """Images that a user captures in a run."""
        return self.images * self.slots * self.frames

    def _set(self) -> float:
        """Images that an update trains on, at most."""
        if self.from_scratch:
            real = min(self._captured(), self._number("twin.windows", 1) * self._window())
        else:
            real = self._window()
        if not self.config.scheme.get("generated"):
            return real
        if self.config.generator.get("amount") == "kl":
            ratio = max(self._number("generator.min_ratio"), self._number("generator.max_ratio"))
            return real * (1 + ratio)
        return self._number("retraining.samples")  # of more real samples, so many are drawn

    def _set_keys(self) -> tuple[str, ...]:
        if self.config.scheme.get("generated") and self.config.generator.get("amount") == "kl":
            return ("generator.max_ratio", "traffic.max_images", "slots_per_frame", "mu")
        return ("retraining.samples", "mu")

    def _pretrained(self) -> float:
        return min(self._number("dataset.pretrain_images"), self.data_images)

    def _model_keys(self) -> tuple[str, ...]:
        return tuple(f"model.{name}" for name in ("channels", "blocks", "width") if name in self.config.model)

    def _steps_of_a_frame(self) -> float:
        """Steps or legs of a walk from one frame to the next."""
        spacing_s = self._number("time.frame_spacing_s")
        if self._number("mobility.step_s"):
            return spacing_s / self._number("mobility.step_s")
        leg_m = max(1e-3, (self._number("topology.inter_site_m") + 2 * self._number("topology.margin_m")) / 2)
        leg_s = leg_m / max(1e-9, self._number("mobility.speed_max_mps")) + self._number("mobility.pause_max_s") / 2
        return 3 * spacing_s / leg_s if self._number("mobility.speed_max_mps") else 0.0

    def _pace_keys(self) -> tuple[str, ...]:
        return ("mobility.step_s",) if "step_s" in self.config.mobility else ("mobility.speed_max_mps",)


@dataclass(frozen=True)
class Model:
    """The size of a network."""

    parameters: float
    activations: float
    """Numbers that a pass leaves for the next, of one image."""
    flop: float
    """Work of one forward pass of an image."""
    features: float
    """Inputs of the last layer."""

    def head_flop(self, classes: float) -> float:
        """Work of the last layer alone."""
        return 2 * self.features * classes


def _counts(given: object) -> list[float]:
    """A list of whole numbers; an empty one where it holds something else."""
    whole = isinstance(given, list) and all(isinstance(count, int) for count in given)
    return [float(min(count, _MOST)) for count in given] if isinstance(given, list) and whole else []


def small_cnn(channels: list[float], colours: float, side: float, classes: float) -> Model:
    """3×3 convolutions that each halve the image, and a linear layer."""
    parameters = activations = flop = 0.0
    for width in channels:
        weights = 9 * colours * width
        parameters += weights
        activations += 3 * width * side**2
        flop += 2 * weights * side**2
        colours, side = width, side / 2
    return Model(parameters + colours * side**2 * classes, activations, flop, colours * side**2)


def resnet(blocks: list[float], width: float, side: float) -> Model:
    """Stages of blocks of two 3×3 convolutions, each of twice the width and half the size of the one before."""
    parameters = activations = flop = 0.0
    for count in blocks:
        weights = 18 * width**2 * count
        parameters += weights
        activations += 6 * width * side**2 * count
        flop += 2 * weights * side**2
        width, side = 2 * width, max(1.0, side / 2)
    return Model(parameters, activations, flop, width / 2)


def value_of(config: Config, key: str) -> object:
    """The value of a dotted key; None where there is none."""
    node: Any = vars(config)
    for step in key.split("."):
        node = node.get(step) if isinstance(node, dict) else None
    return node
