"""The Python side of the command line, and environments that Gymnasium finds by name."""

import subprocess
import sys
from pathlib import Path

import pytest

import dtsim
from dtsim.core.parts import ConfigError


def test_run_sweep_and_load_share_folders(tiny: list[str], tmp_path: Path) -> None:
    place = f"outputs={tmp_path}"
    folder = dtsim.run(*tiny, place, scheme="proposed", seed=1)
    folders = dtsim.sweep(*tiny, place, "scheme=proposed,oracle", "seed=1,2")
    assert folder in folders
    runs = dtsim.load(tmp_path)
    assert sorted(zip(runs["scheme"], runs["seed"], strict=True)) == [
        ("oracle", 1),
        ("oracle", 2),
        ("proposed", 1),
        ("proposed", 2),
    ]


def test_a_bad_value_is_an_error_that_names_it(tiny: list[str]) -> None:
    with pytest.raises(ConfigError, match="mu=0: must be >= 1"):
        dtsim.run(*[key for key in tiny if not key.startswith("mu=")], mu=0)


MADE = (
    "import gymnasium, dtsim; gymnasium.make('dtsim/ShortTimescale-v0', users=3)",
    "import dtsim, gymnasium; gymnasium.make('dtsim/ShortTimescale-v0', users=3)",
    "import gymnasium; gymnasium.make('dtsim:dtsim/ShortTimescale-v0', users=3)",
    "import gymnasium; gymnasium.make_vec('dtsim:dtsim/ShortTimescale-v0', num_envs=2, users=3, "
    "vectorization_mode='vector_entry_point')",
)


def test_gymnasium_finds_the_environments() -> None:
    """Each way in a process where neither package is imported yet."""
    code = f"""
import os, torch  # imported once, because it takes seconds
for code in {MADE}:
    if (pid := os.fork()) == 0:
        exec(code)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, code
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_importing_dtsim_imports_nothing_heavy() -> None:
    code = (
        "import sys, dtsim; print([name for name in ('torch', 'pandas', 'gymnasium', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
