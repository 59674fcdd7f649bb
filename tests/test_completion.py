"""Completion: what is offered, and what real shells make of it. bash splits words at =, zsh and fish do not."""

import os
import pty
import re
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dtsim.runner.completion import completions, offers

WAIT_S = 60.0
SOLVERS = ("annealing", "branch_and_bound", "cpsat", "greedy", "milp", "strongest")


@pytest.mark.parametrize(
    ("typed", "before", "offered"),
    [
        ("sch", [], ["scheme=", "scheme."]),
        ("scheme=pro", [], ["scheme=proposed"]),
        ("scheme=oracle,pro", ["-m"], ["scheme=oracle,proposed"]),
        ("solver=", [], [f"solver={name}" for name in SOLVERS]),
        ("twin/predictor=re", [], ["twin/predictor=region_age"]),
        ("accuracy_t", [], ["accuracy_threshold=0.85"]),
        ("fresh=", [], ["fresh=true", "fresh=false"]),
        ("channel.band", [], ["channel.bandwidth_hz=20000000.0"]),
        ("channel.los_sh", [], []),
        ("channel.los_sh", ["mu=3", "channel=umi"], ["channel.los_shadowing_db=4.0"]),
        (
            "channel.los_sh",
            ["channel=umi", "mu=[1"],
            ["channel.los_shadowing_db=4.0"],
        ),  # what cannot be read is left out
        ("+scheme=ora", [], ["+scheme=oracle"]),
        ("hydra/lau", [], None),
        ("nothing", [], []),
    ],
)
def test_what_is_offered(typed: str, before: list[str], offered: list[str] | None) -> None:
    found = completions(typed, before)
    assert found == offered if offered is not None else "hydra/launcher=laptop" in found


def test_choices_of_the_users_folder_are_offered(tmp_path: Path) -> None:
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "mine.yaml").write_text("_target_: mine.Solver\n")
    assert completions("solver=min", [f"--config-dir={tmp_path}"]) == ["solver=mine"]


@pytest.mark.parametrize(
    ("words", "incomplete", "offered"),
    [
        (["dtsim", "run", "scheme", "=", "pro"], "pro", ["proposed"]),
        (["dtsim", "run", "-m", "mu", "=", "3,4", "solver", "=", "gr"], "gr", ["greedy"]),
        (["dtsim", "run", "solver", "="], "", list(SOLVERS)),
        (["dtsim", "run", "solver=gr"], "solver=gr", ["solver=greedy"]),  # a bash told not to split at =
    ],
)
def test_bash_replaces_what_stands_behind_the_sign(
    words: list[str], incomplete: str, offered: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMP_WORDS", "\n".join(words))
    monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
    assert offers(incomplete) == offered


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """With this environment's dtsim on the path, in a home of its own."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "bin"
    folder.mkdir()
    (folder / "dtsim").write_text(f"#!{sys.executable}\nfrom dtsim.cli.app import main\nmain()\n")
    (folder / "dtsim").chmod(0o755)
    return {"PATH": f"{folder}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb", "PS1": "$ "}


def script(shell: str, environment: dict[str, str]) -> str:
    """What `dtsim --show-completion` prints for a shell."""
    told = {**environment, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    done = subprocess.run(["dtsim", "--show-completion", shell], capture_output=True, text=True, env=told, check=True)
    return done.stdout


class Terminal:
    """An interactive shell, as a person has it."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        pid, self._fd = pty.fork()
        if pid == 0:
            os.execvpe(command[0], command, environment)
        self._pid = pid

    def type(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def until(self, pattern: str) -> str:
        """What is shown up to `pattern`; what it matched."""
        shown, end = "", time.monotonic() + WAIT_S
        while time.monotonic() < end:
            if select.select([self._fd], [], [], 0.2)[0]:
                shown += os.read(self._fd, 65536).decode(errors="replace")
            if found := re.search(pattern, shown):
                return found[0]
        raise AssertionError(f"{pattern!r} was never shown, but {shown!r}")

    def close(self) -> None:
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)
        os.close(self._fd)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_tab_in_a_real_bash(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(
        script("bash", environment)
        + "bind 'set enable-bracketed-paste off'; bind 'set show-all-if-ambiguous on'\n"
        + "show() { printf '<%s>' \"$@\"; }\n"
    )
    terminal = Terminal(["bash", "--norc", "--noprofile", "-i"], environment)
    try:
        terminal.type(f"source {tmp_path / 'script'}; echo rea''dy\n")
        terminal.until("ready")
        for typed, whole in (
            ("dtsim run scheme=prop", "<dtsim><run><scheme=proposed>"),
            ("dtsim run -m mu=3 solver=bran", "<dtsim><run><-m><mu=3><solver=branch_and_bound>"),
            ("dtsim run channel=umi channel.los_sh", "<dtsim><run><channel=umi><channel.los_shadowing_db=4.0>"),
        ):
            terminal.type(typed + "\t")
            terminal.until(re.escape(whole.rpartition("<")[2].rstrip(">").removeprefix(typed.rpartition(" ")[2])) + " ")
            terminal.type("\x01show \n")  # the line as an argument each
            assert terminal.until(r"<dtsim>.*?>\S*(?=\$ )").startswith(whole)
        terminal.type("dtsim run solver=\t")
        shown = terminal.until(r"(?s)annealing.*strongest")
        assert "cpsat" in shown
    finally:
        terminal.close()


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_tab_in_a_real_zsh(environment: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "script").write_text(
        "autoload -Uz compinit; compinit -u -D\n" + script("zsh", environment) + "show() { printf '<%s>' \"$@\"; }\n"
    )
    terminal = Terminal(["zsh", "-f", "-i"], environment)
    try:
        terminal.type(f"source {tmp_path / 'script'}; echo rea''dy\n")
        terminal.until("ready")
        terminal.type("dtsim run scheme=prop\t")
        terminal.until("osed")
        terminal.type("\x01show \n")
        terminal.until("<dtsim><run><scheme=proposed>")
    finally:
        terminal.close()


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dtsim run scheme=prop", ["scheme=proposed"]),
        ("dtsim run mu=3 solver=", [f"solver={name}" for name in SOLVERS]),
    ],
)
def test_tab_in_a_real_fish(typed: str, offered: list[str], environment: dict[str, str]) -> None:
    code = f"{script('fish', environment)}\ncomplete --do-complete '{typed}'"
    done = subprocess.run(["fish", "-c", code], capture_output=True, text=True, env=environment)
    assert [line.split("\t")[0] for line in done.stdout.splitlines()] == offered, done.stderr
