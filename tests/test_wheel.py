"""The wheel, not the source tree: everything that a run needs is in it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the built wheel unpacked, as pip would lay it out."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: what an earlier build left in the tree must not get in
    for name in ("dtsim", "conf"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    # In the present environment: an environment of its own for the build would need the package index.
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed: Path, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); from dtsim.cli.app import main; main()"
    # -P and another folder: the source tree must not be what is imported.
    return subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, cwd=cwd)


def test_the_wheel_holds_every_module_and_yaml(installed: Path) -> None:
    for source in [*(ROOT / "dtsim").rglob("*.py"), *(ROOT / "dtsim").rglob("*.html")]:
        assert (installed / source.relative_to(ROOT)).is_file(), source
    for source in (ROOT / "conf").rglob("*.yaml"):
        assert (installed / "dtsim" / "conf" / source.relative_to(ROOT / "conf")).is_file(), source


def test_a_run_from_the_wheel(installed: Path, tiny: list[str], tmp_path: Path) -> None:
    code = f"import sys; sys.path.insert(0, {str(installed)!r}); import dtsim.conf as c; print(c.__file__, *c.__path__)"
    where = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert all(path.startswith(str(installed)) for path in where.stdout.split()), where.stdout + where.stderr
    done = run(installed, "run", *tiny, f"outputs={tmp_path / 'outputs'}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "outputs").rglob("result.json"))
