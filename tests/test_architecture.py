"""The house stands: imports run down from room to room, none in a circle; modules are small and names tell apart."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "dtsim"
CONF = PACKAGE.parent / "conf"

# What each room may import beside itself and core: the rooms below it.
DOMAIN = {"association", "allocation", "learning", "physical"}
BELOW: dict[str, set[str]] = {
    "core": set(),
    "physical": set(),
    "learning": set(),
    "association": set(),
    "allocation": {"physical"},  # P3's delays are the physical ones
    "twin": DOMAIN,
    "results": set(),
    "reporting": {"results"},  # it starts from the files of a run, never from the simulator
    "simulation": DOMAIN | {"twin", "results"},
    "runner": DOMAIN | {"twin", "results", "simulation", "reporting"},
    "bench": DOMAIN | {"twin", "results", "simulation", "reporting", "runner"},
    "api": DOMAIN | {"twin", "results", "simulation", "reporting", "runner"},
    "cli": DOMAIN | {"twin", "results", "simulation", "reporting", "runner", "bench"},
}
LIBRARIES = {  # each framework lives in one place
    "gymnasium": (
        "dtsim.allocation.gym",
        "dtsim.allocation.learned.off_policy",  # for Tianshou
        "dtsim.allocation.learned.replay_learner",  # likewise
        "dtsim.allocation.learned.queue_learner",  # likewise
        "dtsim.runner.environments",
        "dtsim.bench",
    ),
    "tianshou": ("dtsim.allocation.learned", "dtsim.bench"),
    "ortools": ("dtsim.association.cpsat",),
    "typer": ("dtsim.cli",),
    "hydra": ("dtsim.runner",),
    "matplotlib": ("dtsim.reporting", "dtsim.bench.curves", "dtsim.bench.gaps", "dtsim.allocation.gym.render"),
    "numba": ("dtsim.core.compiled", "dtsim.allocation.gym.kernel", "dtsim.allocation.gym.queue_kernel"),
    "highspy": ("dtsim.association.relaxation",),
    "optuna": ("dtsim.runner.study",),
}

MOST_LINES = 300
NAMESAKES = {  # names that two rooms may both use, and why nobody takes one for the other
    "problem": "P2 and P3, each in the room of its solvers",
    "training": "of models and of policies, each in the room of what is trained",
    "environment": "bench: named by what it measures",
    "twin": "bench: named by what it measures",
    "info": "cli: named by its verb, which bench.info answers",
    "delay": "a figure, named by what it shows",
    "folders": "of images and of runs",
    "parts": "core checks and builds any part, runner those of a configuration",
}

Imports = dict[str, set[str]]


def modules() -> dict[str, Path]:
    """Every module of the package by its full name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(tree: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Module, and name in it, of every import, those in functions and under TYPE_CHECKING included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "imports are absolute"
            yield from ((node.module, alias.name) for alias in node.names)


def inner_imports(known: dict[str, Path]) -> Imports:
    """Which modules of the package each of them imports."""
    graph: Imports = {}
    for module, path in known.items():
        graph[module] = set()
        for source, name in imported(ast.parse(path.read_text(encoding="utf-8"))):
            inner = f"{source}.{name}" if f"{source}.{name}" in known else source
            if inner in known and inner != module:
                graph[module].add(inner)
    return graph


def room(module: str) -> str:
    """The sub-package of a module; "" for dtsim itself."""
    return module.partition(".")[2].partition(".")[0]


def circle(graph: Imports) -> list[str]:
    """Modules that import each other in a circle; none: []."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def upward(graph: Imports) -> list[str]:
    """Imports from a room that is not below the module's own."""
    return [
        f"{module} -> {inner}"
        for module, inners in graph.items()
        for inner in sorted(inners)
        if room(module) and room(inner) not in {room(module), "core"} | BELOW[room(module)]
    ]


def homonyms(known: dict[str, Path]) -> list[str]:
    """Names of modules and of public classes that are in more than one room."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for module, path in known.items():
        if path.name != "__init__.py" and path.stem not in NAMESAKES:
            places[path.stem].add(room(module))
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].add(room(module))
    return [f"{name}: {', '.join(sorted(where))}" for name, where in places.items() if len(where) > 1]


def test_every_room_has_its_floor() -> None:
    assert {room(module) for module in modules()} - {""} == set(BELOW)


def test_imports_run_down_and_in_no_circle() -> None:
    graph = inner_imports(modules())
    assert sum(map(len, graph.values())) > 200  # they are really read
    assert circle(graph) == []
    assert upward(graph) == []


def test_each_framework_has_its_place() -> None:
    astray = [
        f"{module} imports {source}"
        for module, path in modules().items()
        for source, _ in imported(ast.parse(path.read_text(encoding="utf-8")))
        if not module.startswith(LIBRARIES.get(source.partition(".")[0], ("dtsim",)))
    ]
    assert astray == []


def test_what_other_rooms_use_is_what_a_package_offers() -> None:
    """`__all__` of a package names its public modules: those that others import or conf/ names."""
    known = modules()
    packages = {module: set[str]() for module, path in known.items() if path.name == "__init__.py"}
    uses = [(module, inner) for module, inners in inner_imports(known).items() for inner in inners]
    named = set(re.findall(r"\bdtsim(?:\.\w+)+", "".join(path.read_text() for path in CONF.rglob("*.yaml"))))
    uses += [("conf", inner) for inner in known if any(name.startswith(f"{inner}.") for name in named)]
    for module, inner in uses:
        package, _, name = inner.rpartition(".")
        if inner not in packages and package not in (module, module.rpartition(".")[0]):
            packages[package].add(name)
    offered = {package: set(getattr(import_module(package), "__all__", [])) for package in packages}
    assert {package: offered[package] ^ names for package, names in packages.items() if package != "dtsim"} == {
        package: set() for package in packages if package != "dtsim"
    }


def test_modules_are_small() -> None:
    lines = {module: len(path.read_text(encoding="utf-8").splitlines()) for module, path in modules().items()}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}


def test_no_two_things_of_one_name() -> None:
    assert homonyms(modules()) == []
    stems = [path.stem for path in modules().values()]
    assert [name for name in NAMESAKES if stems.count(name) < 2] == []  # an exception that is no longer needed


LATE = "from __future__ import annotations\nfrom typing import TYPE_CHECKING\n"


@pytest.mark.parametrize(
    ("fault", "text", "found"),
    [
        ("circle", f"{LATE}def late() -> None:\n    import dtsim.physical.channel\n", circle),
        ("circle", f"{LATE}if TYPE_CHECKING:\n    from dtsim.physical import channel\n", circle),
        ("arrow upward", "from dtsim.twin.store import Store\n", upward),
        ("arrow upward", f"{LATE}def late() -> None:\n    from dtsim.runner import jobs\n", upward),
    ],
)
def test_a_fault_is_found(fault: str, text: str, found: Callable[[Imports], list[str]], tmp_path: Path) -> None:
    known = modules()
    assert "dtsim.physical.fading" in inner_imports(known)["dtsim.physical.channel"]
    known["dtsim.physical.fading"] = tmp_path / "fading.py"
    known["dtsim.physical.fading"].write_text(text)
    assert found(inner_imports(known)), fault
