"""The list of faults fits the tree, and the script tells faults that tests notice from those that they do not."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import Fault

SOURCE = '"""A module."""\n\n\ndef double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n'
TESTS = "from dtsim.sums import double\n\n\ndef test_double():\n    assert double(3) == 6\n"


def fault(was: str, now: str, *, must: bool = False) -> Fault:
    return Fault("dtsim/sums.py", was, now, "something is wrong", ("tests/test_sums.py",), must)


def tree(folder: Path, tests: str = TESTS) -> Path:
    """A tree of one module, half of which is tested."""
    for name, text in {
        "dtsim/__init__.py": "",
        "dtsim/sums.py": SOURCE,
        "tests/__init__.py": "",
        "tests/test_sums.py": tests,
        "pyproject.toml": '[tool.pytest.ini_options]\nmarkers = ["slow: takes long"]\n',
    }.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_every_fault_applies_to_the_tree() -> None:
    """Where a line was rewritten, its fault is to be rewritten, too."""
    faults = mutants.load()
    assert mutants.misfits(faults, mutants.ROOT) == []
    assert len(faults) >= 60
    assert sum(one.must for one in faults) == 12
    assert len({(one.file, one.was, one.now) for one in faults}) == len(faults)


def test_a_fault_that_does_not_apply_is_named(tmp_path: Path) -> None:
    root = tree(tmp_path)
    lost = Fault("dtsim/lost.py", "a", "b", "gone", ("tests/test_lost.py",))
    lines = mutants.misfits([fault("3 * x", "x"), fault("return", "x ="), fault("2 * x", "2 x"), lost], root)
    assert [line.split(" (")[0] for line in lines] == [
        "dtsim/sums.py: '3 * x' must be found once, is found 0 times",
        "dtsim/sums.py: 'return' must be found once, is found 2 times",
        "dtsim/sums.py: '2 x' is no Python there, invalid syntax",
        "dtsim/lost.py: is missing",
        "tests/test_lost.py: is missing",
    ]


def test_noticed_faults_are_killed_and_others_survive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(tmp_path)
    faults = [fault("2 * x", "3 * x"), fault("x / 2", "x / 3"), fault("2 * x", "missing * x")]
    outcomes = mutants.examine(faults, root, processes=2, preloaded=())
    assert [outcome.verdict for _, outcome in outcomes] == ["killed", "survived", "killed"]
    assert outcomes[0][1].by == "tests/test_sums.py::test_double"
    assert (root / "dtsim/sums.py").read_text() == SOURCE
    assert mutants.report(outcomes) == 1
    assert "(66.7%)" in capsys.readouterr().out
    noticed = outcomes[:1] * 39
    assert mutants.report([*noticed, outcomes[1]]) == 0  # one of 40 may go unnoticed
    assert mutants.report([*noticed, (fault("x / 2", "x / 3", must=True), outcomes[1][1])]) == 1


def test_tests_that_fail_anyway_notice_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"tests/test_sums\.py fails without any fault"):
        mutants.examine([fault("2 * x", "x")], tree(tmp_path, TESTS.replace("6", "7")), processes=1, preloaded=())


@pytest.mark.slow
def test_a_tree_that_cannot_be_imported_is_no_noticed_fault(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = mutants.examine([fault('"""A module."""', "import missing")], tree(tmp_path), processes=1, preloaded=())
    assert [outcome.verdict for _, outcome in outcomes] == ["broken"]
    assert mutants.report(outcomes) == 2
    capsys.readouterr()


@pytest.mark.slow
def test_a_fault_that_hangs_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = fault("return 2 * x", "while True:\n        pass")
    monkeypatch.setattr(mutants, "CPU_LIMIT_S", 5)
    ((_, outcome),) = mutants.examine([endless], tree(tmp_path), processes=1, preloaded=())
    assert (outcome.verdict, outcome.by) == ("killed", "out of time")
