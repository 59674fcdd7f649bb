"""Run on a machine with a CUDA GPU what only such a machine can show, and write one report.

    make gpu-check                                   # or: python -m scripts.gpu_check
    python -m scripts.gpu_check --device cpu --small # the script itself, without a GPU

The marked tests, whole runs with 20 and 200 MUs beside the same on the CPU, ResNet-18 on images of CIFAR-10's shape,
and the benchmarks of retraining and of the environment. The report names the card; report.md, a figure and the output
of every step are below --outputs. Exit code 1: a step failed; 2: there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import pandas as pd
import torch
from rich.console import Console

matplotlib.use("Agg")
from matplotlib import pyplot

ROOT = Path(__file__).resolve().parents[1]
_MEASURED = ("wall_time_s", "system_delay_mean_s", "accuracy_mean", "retrains")


@dataclass(frozen=True)
class Step:
    """One command of the check."""

    name: str
    arguments: tuple[str, ...]
    tests: bool = False
    """Whether it is pytest's command line instead of dtsim's."""

    @property
    def command(self) -> list[str]:
        """The command line."""
        if self.tests:
            return [sys.executable, "-m", "pytest", *self.arguments]
        return [sys.executable, "-c", "from dtsim.cli.app import main; main()", *self.arguments]

    @property
    def shown(self) -> str:
        """What a person types."""
        return " ".join(["pytest" if self.tests else "dtsim", *self.arguments])


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: Step
    code: int
    seconds: float
    gpu_bytes: float
    """Most memory of the GPU that was in use; NaN without nvidia-smi."""


def steps(device: str, small: bool) -> list[Step]:
    """All steps, in order; `small` ones show only that they work."""
    sizes = ["frames=1", "slots_per_frame=2", "allocator=proportional", "retraining.samples=100"] if small else []
    many = ["topology=hexagonal", "topology.stations=12", "solver=annealing"]
    few, lots = ("3", "6") if small else ("20", "200")

    def run(name: str, mu: str, *more: str) -> tuple[str, ...]:
        where = f"device={'cpu' if name == 'reference' else device}"
        return ("run", "scheme=proposed", f"mu={mu}", *more, *sizes, where, f"outputs=runs/{name}", "--fresh")

    bench = ["--repeats=1"] if small else []
    training = ["--users=2", "--samples=8"] if small else []
    environment = ["--batches=8", "--steps=20", "--training-steps=0", "--users=3"] if small else []
    cifar = ["dataset=cifar10", "model=resnet18_cifar", "--users=2", f"--samples={4 if small else 256}"]
    on = f"device={device}"
    return [
        Step("marked tests", ("-m", "cuda", "tests"), tests=True),
        Step(f"run, {few} MUs", run(device, few)),
        Step(f"run, {few} MUs, on the CPU", run("reference", few)),
        Step(f"run, {lots} MUs", run(device, lots, *many)),
        Step(f"run, {lots} MUs, on the CPU", run("reference", lots, *many)),
        Step(f"run where time passes, {few} MUs", run(f"{device}-passing", few, "time=contiguous")),
        Step("ResNet-18, images as CIFAR-10's", ("bench", "retraining", *cifar, on, "outputs=resnet18", *bench)),
        Step("retraining", ("bench", "retraining", on, "outputs=retraining", *training, *bench)),
        Step("environment", ("bench", "environment", on, "outputs=environment", *environment, *bench)),
    ]


@contextmanager
def gpu_memory() -> Iterator[list[float]]:
    """A list that holds, when the block has ended, how much memory of the GPU was in use, every half second [byte]."""
    seen: list[float] = []
    ended = threading.Event()
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]

    def watch() -> None:
        while not ended.wait(0.5):
            done = subprocess.run(query, capture_output=True, text=True, check=False)
            seen.extend(2**20 * float(line) for line in done.stdout.split() if line.isdecimal())

    thread = threading.Thread(target=watch, daemon=True)
    if shutil.which(query[0]):
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        if thread.is_alive():
            thread.join()


def done(step: Step, log: Path) -> Outcome:
    """Do `step` in the folder of `log`, which takes its output; tests run in the project."""
    started = time.monotonic()
    # One torch thread as everywhere; a GPU's work does not depend on it.
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "COLUMNS": "120"}
    with log.open("w") as text, gpu_memory() as used:
        where = ROOT if step.tests else log.parent
        code = subprocess.run(
            step.command, stdout=text, stderr=subprocess.STDOUT, env=environment, cwd=where, check=False
        ).returncode
    return Outcome(step, code, time.monotonic() - started, max(used, default=float("nan")))


def machine(device: str) -> list[str]:
    """Lines about the card, or the CPU, and the versions."""
    lines = []
    if device == "cuda":
        card = torch.cuda.get_device_properties(0)
        lines.append(f"card: {card.name}, {card.total_memory / 2**30:.0f} GiB, {card.multi_processor_count} SMs")
        lines.append(f"CUDA {torch.version.cuda}, compute capability {card.major}.{card.minor}")
    lines.append(f"CPU: {platform.processor() or platform.machine()}, {os.cpu_count()} cores, one thread used")
    lines.append(f"Python {platform.python_version()}, torch {torch.__version__}")
    return lines


def throughput(outputs: Path) -> pd.DataFrame:
    """Samples per second of each way to retrain, median of the repeats; columns bench, contender, samples_per_s."""
    tables = []
    for name in ("retraining", "resnet18"):
        path = outputs / name / "bench" / "retraining.csv"
        if path.is_file():
            table = pd.read_csv(path)
            rate = (table["samples"] / table["seconds"]).groupby(table["contender"], sort=False).median()
            tables.append(pd.DataFrame({"bench": name, "contender": rate.index, "samples_per_s": rate.to_numpy()}))
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()


def figure(rates: pd.DataFrame, path: Path, title: str) -> None:
    """Bars of samples per second."""
    names = list(dict.fromkeys(rates["bench"]))
    drawn, axes = pyplot.subplots(1, len(names), figsize=(5 * len(names), 3), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        own = rates[rates["bench"] == name]
        bars = axis.barh(own["contender"], own["samples_per_s"])
        axis.bar_label(bars, fmt="{:,.0f}", padding=3)
        axis.set(xlabel="samples trained per second", xscale="log", title=name)
        axis.margins(x=0.2)
        axis.invert_yaxis()
    drawn.suptitle(title)
    drawn.savefig(path, dpi=150)
    pyplot.close(drawn)


def report(outcomes: Sequence[Outcome], outputs: Path, device: str) -> str:
    """The report, as Markdown."""
    text = ["# GPU check", "", *(f"- {line}" for line in machine(device)), "", "## Steps", ""]
    text += ["| step | result | wall time, s | GPU memory, GB | command |", "| --- | --- | --- | --- | --- |"]
    for one in outcomes:
        result = "passed" if one.code == 0 else f"**failed, exit code {one.code}**"
        memory = "–" if one.gpu_bytes != one.gpu_bytes else f"{one.gpu_bytes / 1e9:.1f}"
        text.append(f"| {one.step.name} | {result} | {one.seconds:.0f} | {memory} | `{one.step.shown}` |")
    rows = []
    for path in sorted((outputs / "runs").rglob("run.csv")):
        run = pd.read_csv(path).iloc[0]
        where = "CPU" if "reference" in path.parts else device.upper()
        rows.append(f"| {where} | {run['mu']:.0f} | " + " | ".join(f"{run[name]:.4g}" for name in _MEASURED) + " |")
    if rows:
        text += ["", "## Runs", "", "| on | MUs | " + " | ".join(_MEASURED) + " |", "| --- " * 6 + "|", *rows]
    rates = throughput(outputs)
    if len(rates):
        figure(rates, outputs / "throughput.png", machine(device)[0])
        text += ["", "## Retraining", "", "| bench | way | samples per second |", "| --- | --- | --- |"]
        text += [f"| {row.bench} | {row.contender} | {row.samples_per_s:,.0f} |" for row in rates.itertuples()]
        text += ["", "![Samples trained per second](throughput.png)"]
    for path in sorted((outputs / "environment").rglob("environment.csv")):
        table = pd.read_csv(path)
        text += ["", "## Environment", "", "```", table.to_string(index=False), "```"]
    return "\n".join(text) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """Do the whole check; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="where models and physics run")
    parser.add_argument("--small", action="store_true", help="sizes that only show that every step works")
    parser.add_argument("--outputs", type=Path, default=Path("outputs/gpu-check"), help="folder for all output")
    asked = parser.parse_args(arguments)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("error: --device=cuda: there is no CUDA GPU here; --device=cpu --small tries the script", file=sys.stderr)
        return 2
    outputs: Path = asked.outputs.resolve()
    outputs.mkdir(parents=True, exist_ok=True)
    console = Console(soft_wrap=True, highlight=False)
    outcomes = []
    for number, step in enumerate(steps(asked.device, asked.small), start=1):
        console.print(f"{step.name}: {step.shown}", markup=False)
        outcomes.append(done(step, outputs / f"step-{number}.log"))
        said = "passed" if outcomes[-1].code == 0 else f"failed, see {outputs / f'step-{number}.log'}"
        console.print(f"  {said}, {outcomes[-1].seconds:.0f} s", markup=False)
        (outputs / "report.md").write_text(report(outcomes, outputs, asked.device))  # kept if a later step is stopped
    console.print(f"written: {outputs / 'report.md'}", markup=False)
    return int(any(one.code for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
