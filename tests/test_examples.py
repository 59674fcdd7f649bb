"""The notebooks of examples/, executed from top to bottom on tiny data: their code here, slow ones in a real kernel."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest

EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.ipynb"))
NAMES = [path.stem for path in EXAMPLES]


def notebook(path: Path, tiny: list[str], seeds: str) -> Any:
    """A notebook with parameters for tiny runs in place of its own."""
    found = nbformat.read(path, as_version=4)
    (cell,) = (cell for cell in found.cells if "parameters" in cell.metadata.get("tags", []))
    trained = "USERS = 3\nSTEPS = 128\n" if "USERS" in cell.source else ""
    world = [key for key in tiny if not (trained and key.startswith("mu="))]
    parameters = f"WORLD = {world!r}\nOUTPUTS = 'outputs'\nSEEDS = {seeds}\n{trained}"
    assert set(re.findall(r"^(\w+) =", parameters, re.M)) == set(re.findall(r"^(\w+) =", cell.source, re.M))
    cell.source = parameters
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_the_code_of_a_notebook_runs(
    path: Path, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    for module in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        monkeypatch.delitem(sys.modules, module)  # another test's
    names: dict[str, Any] = {}
    try:
        for cell in notebook(path, tiny, "[0]").cells:
            if cell.cell_type == "code":
                exec(compile(cell.source, path.name, "exec"), names)
    finally:
        for module in ("mylab.parts", "mylab"):
            sys.modules.pop(module, None)
    compared: Any = names.get("by_solver", names.get("by_allocator"))
    assert len(compared.choices) > 2 and compared.table(["accuracy_mean"])["n"].eq(1).all()


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=NAMES)
def test_a_notebook_runs_in_a_kernel_and_shows_what_it_says(path: Path, tiny: list[str], tmp_path: Path) -> None:
    found = notebook(path, tiny, "range(2)")
    nbclient.NotebookClient(found, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in found.cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"image/png", "text/html"} <= kinds
    said = "".join(str(output.get("data", {}).get("text/html", output.get("text", ""))) for output in outputs)
    assert re.search(r"<progress[^>]*></progress> \d+ of \d+ done", said)  # in its place
    assert "sweep:" not in said and "frames: started" not in said  # and not as lines
    wanted = {"1": ["greedy"], "2": ["round_robin", "must be", "by_root, power=0.8"], "3": ["external", "PPO"]}
    assert all(word in said for word in wanted[path.stem[0]])


def test_notebooks_are_kept_without_outputs() -> None:
    assert len(EXAMPLES) == 3
    for path in EXAMPLES:
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs") and cell.get("execution_count") is None, path.name
