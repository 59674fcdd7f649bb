import os

# Before torch is imported: the number of threads changes results, and two on a busy machine are slower than one.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = "1"

import signal
from pathlib import Path

import hypothesis
import pytest
import torch

from dtsim.runner import experiment, jobs
from scripts.make_runs import make
from tests.tiny_data import write_fashion_mnist

# The same examples every time, however long each takes.
hypothesis.settings.register_profile("dtsim", deadline=None, derandomize=True, database=None)
hypothesis.settings.load_profile("dtsim")

# A job in the background is started with Ctrl-C ignored, and would start its own processes so.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fashion-MNIST's files with a few images that a small model learns in a second."""
    folder = tmp_path_factory.mktemp("data")
    write_fashion_mnist(folder)
    return folder


@pytest.fixture(scope="session")
def cache_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for the whole session: base models and policies are made once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny(data_folder: Path, cache_folder: Path) -> list[str]:
    """Overrides that make any run take about a second."""
    return [
        "mu=4",
        "frames=2",
        "slots_per_frame=2",
        f"dataset.root={data_folder}",
        f"cache={cache_folder}",
        "dataset.pretrain_images=400",
        "dataset.increment_images=200",
        "dataset.validation_images=100",
        "dataset.test_images=200",
        "probe_images=20",
        "traffic.min_images=5",
        "traffic.max_images=8",
        "pretraining.epochs=2",
        "retraining.samples=60",
        "retraining.scratch_epochs=1",
        "allocator=proportional",
        "device=cpu",
    ]


@pytest.fixture(scope="session")
def real_runs(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folders that real runs left: three schemes under makespan, and the same under sum. Only to be read."""
    root = tmp_path_factory.mktemp("runs")
    for objective in ("makespan", "sum"):
        keys = [*tiny, f"objective={objective}", "accuracy_threshold=0.98", f"outputs={root / objective}"]
        for job in jobs.plan(["-m", *keys, "scheme=proposed,without_il,single_timescale"]).jobs:
            experiment.run(job.config, in_sweep=True)
    return root


@pytest.fixture(scope="session")
def many_runs(real_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies of them as five seeds. Only to be read, or left as they were."""
    root = tmp_path_factory.mktemp("many")
    make(real_runs / "makespan", root, 15)
    return root
