"""Verbs and options that are mistyped: one line that says what was typed and what is allowed."""

import pytest
from typer.testing import CliRunner

from dtsim.cli.app import app


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (
            "rnu",
            "rnu: there is no such command, must be one of run, check, report, watch, info, bench; did you mean run?",
        ),
        (
            "bench nothing",
            "nothing: there is no such command, must be one of allocation, association, retraining, environment, twin",
        ),
        ("--nope", "--nope: there is no such option of dtsim, must be one of --version, --install-completion, "),
        ("report --nope", "--nope: there is no such option of dtsim report, must be one of --by, --where, "),
        ("report --basline=x", "--basline: there is no such option of dtsim report; did you mean --baseline?"),
        ("info --nope", "--nope: there is no such option of dtsim info, must be one of --help"),
        ("bench -x", "-x: there is no such option of dtsim bench, must be one of --help"),
        ("bench allocation --user=3", "--user: there is no such option of dtsim bench allocation; did you mean --u"),
        ("report --csv", "--csv: needs a value"),
        ("watch a b", "Got unexpected extra argument(s) (b) (--help says what the command takes)"),
        ("bench allocation --slots=abc", "--slots: must be a whole number"),
        ("report --runs=3", "--runs: takes no value"),
        ("bench association --time-limit=x", "--time-limit: must be a number"),
        ("bench association --time-limit=0", "time-limit=0.0: must be > 0 and <= 1e6"),
        ("bench association --exact-links=-1", "exact-links=-1: must be >= 0"),
        ("bench environment --training-steps=-1", "training-steps=-1: must be >= 0"),
        ("check --cfg=job", "--cfg=job: is a flag of dtsim run: write dtsim run --cfg=job"),
        ("bench twin --first-seed=-1", "first-seed=-1: must be >= 0"),
    ],
)
def test_a_mistyped_verb_or_option_is_answered_in_a_line(typed: str, said: str) -> None:
    done = CliRunner().invoke(app, typed.split(), prog_name="dtsim")
    assert done.exit_code == 2
    assert done.output.startswith(f"error: {said}")
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("typed", ["", "bench"])
def test_a_group_alone_shows_its_help(typed: str) -> None:
    done = CliRunner().invoke(app, typed.split())
    assert "Commands" in done.output
    assert "error:" not in done.output
