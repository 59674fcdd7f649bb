"""What people type: answered in a line that names key, value and what is allowed, before anything slow is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from matplotlib.text import Text
from typer.testing import CliRunner

from dtsim.cli.app import app
from dtsim.core.parts import ConfigError, build
from dtsim.runner import jobs, limits
from dtsim.runner.arguments import understood
from dtsim.runner.choices import Conf
from dtsim.runner.composition import composed, config_of
from dtsim.runner.hints import meant
from dtsim.runner.overrides import count, parsed, quoted
from dtsim.runner.parts import BUILT
from dtsim.runner.values import value_faults
from dtsim.runner.workload import Workload


def refused(*arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        jobs.plan(list(arguments))
    assert all("\n" not in line for line in caught.value.lines)
    return caught.value.lines


def refusal(*arguments: str) -> str:
    (line,) = refused(*arguments)
    return line


@pytest.mark.parametrize("typo", ["scheme=propsed", "channel.bandwith_hz=1", "mu=1000000000"])
def test_a_typo_is_answered_before_torch_and_pandas_are_imported(typo: str) -> None:
    code = (
        "import sys; from dtsim.cli.app import main\ntry: main()\n"
        "finally: print(sorted({'torch', 'numpy', 'pandas', 'scipy', 'tianshou'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code, "run", typo], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stdout.strip().endswith("[]")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("scheme=propsed", "scheme=propsed: must be one of every_slot_windowed, never_retrain, "),
        ("chanel=umi", "chanel=umi: there is no key chanel: did you mean channel?"),
        (
            "channel.bandwith_hz=1",
            "channel.bandwith_hz=1: there is no key channel.bandwith_hz: did you mean channel.ban",
        ),
        ("bandwidth_hz=1", "bandwidth_hz=1: there is no key bandwidth_hz: did you mean channel.bandwidth_hz?"),
        ("predictor=oracle", "predictor=oracle: there is no key predictor: did you mean twin/predictor?"),
        (
            "+channel.typo=1",
            "channel.typo=1: there is no such key: must be one of channel._target_, channel.frequency_hz",
        ),
        ("topology=3", "topology=3: must be one of explicit, hexagonal, sites, three_bs"),
        (
            "topology=null",
            "topology=null: must be one of explicit, hexagonal, sites, three_bs; a group cannot be left out",
        ),
        ("channel=[umi,uma]", "channel=[umi,uma]: must be one of free_space, "),
        ("experiment=null", "experiment=null: must be one of driving, fig2a, "),
        (
            "~solver=greedy",
            "~solver=greedy: must be one of annealing, branch_and_bound, cpsat, greedy, milp, strongest; a group",
        ),
        ("+mu=3", "+mu=3: there is such a key already: write mu=3"),
        ("+channel=free_space", "+channel=free_space: there is a choice of channel already: write channel=free"),
        ("+twin=default", "+twin=default: there is a choice of twin already: write twin=default"),
        ("modl=resnet18", "modl=resnet18: there is no key modl: did you mean model?"),
        ("mode=contiguous", "mode=contiguous: there is no key mode: did you mean time.mode?"),
        ("model.channels={a: 1}", "model.channels={a: 1}: must be a list"),
        ("hydra.job.num=x", "hydra.job.num=x: must be a whole number"),
        ("hydra.job.chdir=maybe", "hydra.job.chdir=maybe: must be true or false"),
        ("mu=???", "mu: must be given"),
        ("+scheme=oracle", "+scheme=oracle: there is a choice of scheme already: write scheme=oracle"),
        ("scheme@x=oracle", "scheme@x=oracle: a choice cannot be put elsewhere with @: write scheme=oracle"),
        ("mu@x=3", "mu@x=3: @ is for a choice of a group, and mu is none: write mu=3"),
        ("mu.a=3", "mu.a=3: mu is a value and has no keys: write mu=3"),
        ("twin.predictor=oracle", "twin.predictor='oracle': must be a group of keys; write twin/predictor=oracle"),
        ("objective=makspan", "objective='makspan': must be one of 'makespan' or 'sum'; did you mean makespan?"),
        ("mu=${nope}", "mu=${nope}: there is no key nope: dtsim run --help lists them"),
        ("mu=${frame}", "mu=${frame}: there is no key frame: did you mean frames?"),
        ("mu=${mu}", "mu=${mu}: leads back to itself: must be a value, or ${another.key}"),
        ("mu=${foo:3}", "mu=${foo:3}: there is no ${foo:...}: must be a value, ${another.key} or ${oc.env:VARIABLE}"),
        (
            "mu=${oc.env:DTSIM_NOPE}",
            "mu=${oc.env:DTSIM_NOPE}: the variable DTSIM_NOPE must be set, or have a default: "
            "${oc.env:DTSIM_NOPE,VALUE}",
        ),
        ("10", "10: must be key=value or group=choice"),
        ("=3", "=3: must be key=value, with a key of letters"),
        ("mu..a=3", "mu..a=3: must be key=value, with a key of letters"),
        ("mu.=3", "mu.=3: must be key=value, with a key of letters"),
        ("mü=3", "mü=3: must be key=value, with a key of letters"),
        ("mu=[1", "mu=[1: brackets and quotes must be closed; a text with them needs quotes: \"mu='[1'\""),
        ("mu=1,,2", "mu=1,,2: there must be a value on both sides of a comma"),
        ("mu=foo(1)", "mu=foo(1): there is no function foo, must be one of bool, choice, "),
        ("mu=choice()", "mu=choice(): must be written as in choice(3,5,10)"),
        ("mu=int(abc)", "mu=int(abc): must be written as in int(3.0)"),
        ("mu=sort(range(a,b))", "mu=sort(range(a,b)): must be written as in range(1,10)"),
        ("~experiment", "~experiment: must be one of driving, fig2a, "),
        ("~twin/predictor", "~twin/predictor: must be one of beta_binomial, "),
        ("slots=3", "slots=3: there is no key slots: did you mean slots_per_frame?"),
        (
            "allocator.held=3",
            "allocator.held=3: there is no key allocator.held: did you mean allocator.held_out_slots?",
        ),
        ("retraining.learning_rate=1e300", "retraining.learning_rate=1e+300: must be <= 1000000"),
        ("pretraining.learning_rate=1e7", "pretraining.learning_rate=10000000.0: must be <= 1000000"),
        ("outputs=a/Ü,b", "outputs=a/Ü,b: a value with Ü in it needs quotes: \"outputs='a/Ü,b'\""),
        (
            "hydra.launcher.n_jobs=2",
            "hydra.launcher.n_jobs=2: needs a launcher that has it, as in hydra/launcher=laptop",
        ),
        ("hydra.mode=FOO", "hydra.mode=FOO: invalid value 'FOO', expected one of [RUN, MULTIRUN]"),
        ("--farsh", "--farsh: there is no such flag; did you mean --fresh?"),
        ("--config-dir=/nowhere", "--config-dir=/nowhere: there is no such folder"),
        ("--config-dir", "--config-dir: needs a value"),
        ("--cfg=jop", "--cfg=jop: must be one of job, hydra, all; did you mean job?"),
        ("--resolve", "--resolve: needs --cfg"),
        ("--experimental-rerun=x.pickle", "--experimental-rerun: is refused: it would load a pickle"),
        ("--config-path=/tmp", "--config-path: is refused: "),
        ("--config-name=x", "--config-name: is refused: "),
    ],
)
def test_one_line_names_key_value_and_what_is_allowed(typed: str, said: str) -> None:
    assert refusal(typed).startswith(said)


def test_choices_that_are_close_are_named() -> None:
    assert refusal("scheme=propsed").endswith("; did you mean proposed?")
    assert meant("MU", ["mu", "frames"]) == "; did you mean mu?"
    assert meant("nonsense", ["mu", "frames"]) == ""
    assert meant("topo", ["stop", "topology.area_m", "topology"]) == "; did you mean topology?"
    assert meant("slo", ["slow", "slots_per_frame"]) == "; did you mean slow?"  # three letters begin too many


def test_what_leaves_a_group_out_hides_no_other_fault() -> None:
    assert [line.partition(":")[0] for line in refused("~scheme", "mu=0")] == ["~scheme", "mu=0"]


def test_all_faults_are_told_at_once_and_none_that_follows_from_another() -> None:
    lines = refused("scheme=propsed", "chanel=umi", "mo=5", "mu=a", "retraining.epochs=x", "solver=cpsatt")
    assert [line.partition(":")[0] for line in lines] == [
        "scheme=propsed", "solver=cpsatt", "chanel=umi", "mo=5", "mu='a'", "retraining.epochs='x'",
    ]  # fmt: skip
    assert len(refused("channel=umii", "channel.los_shadowing_db=3")) == 1  # a key of umi's
    lines = refused("-m", "mu=5,0", "scheme=proposed,magic", "channel.fading=none,nothing")
    assert {line.partition(":")[0] for line in lines} == {"scheme=magic", "mu=0", "channel.fading='nothing'"}


def test_a_key_that_must_be_given_hides_no_other_fault() -> None:
    assert refused("dataset=image_folder", "dataset.size=nonsense", "mu=0") == [
        "dataset.root: must be given",
        "mu=0: must be >= 1",
        "dataset.size='nonsense': must be a whole number",
    ]
    assert refused("dataset=image_folder", "mu=${dataset.root}") == ["mu=${dataset.root}: dataset.root must be given"]
    assert refused("-m", "mu=3,4", "outputs=out,???") == ["outputs: must be given"]


def test_flags_may_stand_between_overrides() -> None:
    asked = understood(["mu=3", "-m", "seed=0,1", "--fresh", "scheme=oracle", "--yes"])
    assert asked.overrides == ("mu=3", "seed=0,1", "scheme=oracle")
    assert (asked.multirun, asked.fresh, asked.yes) == (True, True, True)
    assert [job.config.seed for job in jobs.plan(["mu=3", "-m", "seed=0,1"]).jobs] == [0, 1]


def test_several_values_with_spaces_are_explained() -> None:
    assert refusal("-m", "mu=5", "10").endswith(
        "several values of a key have commas between them and no spaces: mu=5,10"
    )


@pytest.mark.parametrize("path", ["~/x", "~", "/Übung", "../Übung/a b", "/a b"])
def test_a_path_needs_no_quotes(path: str) -> None:
    (found,) = parsed(understood([f"outputs={path}"]).overrides)
    assert found.value() == path


def test_outputs_is_expanded_as_the_cache_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    asked = jobs.plan(["-m", "outputs=~/x", "cache=~/y", "mu=3,4"])
    assert asked.jobs[0].config.folder.is_relative_to(tmp_path / "x")
    assert asked.jobs[0].config.cache_folder == tmp_path / "y"
    assert asked.overrides[-1] == f"hydra.sweep.dir='{tmp_path / 'x'}'"


@pytest.mark.parametrize("text", ["a", "it's", "a\\", "a\\'b", "a,b", "", "x=[1", "Ü ~ $"])
def test_quotes_keep_any_text(text: str) -> None:
    (found,) = parsed([f"outputs={quoted(text)}"])
    assert found.value() == text


def test_sweeps_that_give_no_value_or_too_many() -> None:
    assert refusal("-m", "mu=range(1,10,0)") == "mu=range(1,10,0): the step of a range must not be 0"
    for empty in ("mu=range(0)", "mu=range(5,1)"):
        assert refusal("-m", empty) == (
            f"{empty}: gives no value, must be range(START,STOP) with START < STOP, or range(START,STOP,STEP) with "
            "STEP < 0"
        )
    assert refusal("-m", "mu=range(a,b)") == "mu=range(a,b): must be written as in range(1,10) or range(1,10,2)"
    assert refusal("-m", "mu=interval(1,2)").startswith(
        "mu=interval(1,2): must be values with commas between them, or "
    )
    assert refusal("-m", "scheme=glob(x*)").startswith("scheme=glob(x*): gives no value, must match one of every_slot_")
    assert refusal("-m", "mu=glob(*)") == (
        "mu=glob(*): gives no value, mu is no group of choices: must be values with commas between them"
    )
    assert refusal("-m", "mu=range(1,1000000000)").endswith("999,999,999 jobs (more than 10,000 need --yes)")
    assert refusal("mu=1,2") == "mu=1,2: several values need a sweep: add -m"


def test_a_glob_is_a_sweep_over_choices() -> None:
    asked = jobs.plan(["-m", "scheme=glob(without*)"])
    assert [job.config.scheme["name"] for job in asked.jobs] == ["without_dt", "without_il"]


@pytest.mark.parametrize(
    ("sweep", "jobs_of_it"),
    [("mu=range(1,6,2)", 3), ("mu=range(0.0,1.0,0.3)", 4), ("mu=range(9,1,-4)", 2), ("mu=1,2,3", 3), ("mu=7", 1)],
)
def test_jobs_are_counted_without_being_made(sweep: str, jobs_of_it: int) -> None:
    assert count([sweep, "seed=0,1"], None) == 2 * jobs_of_it


def test_what_a_flag_shows_is_checked_first() -> None:
    assert refusal("--cfg=job", "-m") == "--cfg=job: shows one job at a time, without -m"
    shown = CliRunner().invoke(app, ["run", "--cfg=job", "scheme=propsed"])
    assert shown.exit_code == 2
    assert "did you mean proposed?" in shown.output
    shown = CliRunner().invoke(app, ["run", "--cfg=job", "--package=channel.fadin"])
    assert "--package=channel.fadin: did you mean channel.fading?" in shown.output


def test_the_version_is_dtsims() -> None:
    for arguments in (["--version"], ["run", "--version"], ["check", "--version"]):
        done = CliRunner().invoke(app, arguments)
        assert (done.exit_code, done.output.split()[0]) == (0, "dtsim")


HUGE = [
    ("mu=1000000000", "memory"),
    ("drift.rows=10000 drift.columns=10000", "memory"),
    ("retraining.samples=1000000000000", "memory"),
    ("mobility=gauss_markov mobility.step_s=1e-12", "hours"),
    ("generator.amount=kl generator.max_ratio=900 retraining.epochs=90000", "hours"),
    ("frames=1000000000", "memory"),
    ("twin.capacity=1000000000000", "memory"),
    ("pretraining.epochs=1000000000", "hours"),
    ("allocator.environment_steps=1000000000000", "hours"),
    ("allocator.hidden=1000000", "memory"),
    ("model.channels=[100000000]", "memory"),
    ("model=resnet8 model.width=8000000", "memory"),
    ("generator=cvae generator.latent=1000000000000", "memory"),
]


@pytest.mark.parametrize(("typed", "of"), HUGE)
def test_what_cannot_fit_or_end_is_refused_with_an_estimate(typed: str, of: str) -> None:
    lines = refused(*typed.split())
    last = typed.split()[-1]
    assert any(last in line and of in line for line in lines)
    assert all(line.endswith("(--yes starts it anyway)") for line in lines)


def test_yes_starts_it_anyway_and_what_is_usual_needs_none() -> None:
    assert jobs.plan(["mu=20000", "frames=50", "--yes"]).jobs
    assert refused("mu=20000", "frames=500")
    for usual in (["mu=100"], ["scheme=single_timescale", "mu=30"], ["experiment=quick"], ["allocator=ddpg_paper"]):
        assert jobs.plan(usual).jobs


def test_the_estimate_of_a_models_work_is_what_torch_counts() -> None:
    from dtsim.learning.models import measure
    from dtsim.runner.parts import Parts

    for overrides in ([], ["model=resnet8"], ["model=resnet18_w16"]):
        config = config_of(composed(overrides))
        cost = measure(Parts(config).model.build((1, 28, 28), 10, 0), (1, 28, 28))
        estimate = Workload(config).model
        assert estimate.flop == pytest.approx(cost.forward_flop, rel=0.35)
        assert estimate.parameters == pytest.approx(cost.parameters, rel=0.35)
        head = measure(Parts(config).model.build((1, 28, 28), 10, 0), (1, 28, 28), "head")
        assert estimate.head_flop(10) == pytest.approx(head.stored_flop, rel=0.4)


def test_processes_that_cannot_fit_and_launchers_that_would_hang() -> None:
    laptop = ("-m", "mu=3,4", "hydra/launcher=laptop")
    assert "100,000 processes" in refusal(*laptop, "hydra.launcher.n_jobs=100000")
    for key, value in (("n_jobs", "0"), ("pre_dispatch", "0"), ("batch_size", "0"), ("verbose", "-1")):
        line = refusal(*laptop, f"hydra.launcher.{key}={value}")
        assert line.startswith(f"hydra.launcher.{key}={value}: must be ")
    assert jobs.plan([*laptop, "hydra.launcher.n_jobs=2", "hydra.launcher.pre_dispatch='2*n_jobs'"]).jobs


def test_memory_is_that_of_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    limit.write_text("1000000000\n")
    monkeypatch.setattr(limits, "_CONTAINER", (str(limit), str(tmp_path / "none")))
    assert limits.memory_bytes() == 1e9
    limit.write_text("max\n")
    assert limits.memory_bytes() > 1e9


@pytest.mark.parametrize("key", ["drift.schedule", "drift.distributions", "allocator.checkpoint"])
def test_a_pipe_or_a_device_is_no_file(key: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        assert refusal(f"{key}={path}") == f"{key}={str(path)!r}: must be a file, not a folder, a pipe or a device"


def yaml(folder: Path, name: str, text: str) -> str:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return f"--config-dir={folder}"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: [1, 2\ny: 3\n", ":2: expected ',' or ']', but got ':'"),
        ("a:\n\tb: 1\n", ":2: must be indented with spaces, not with a tab"),
        ("a: 1\na: 2\n", ":2: found duplicate key a"),
        (
            "a: !!python/object/apply:os.system ['true']\n",
            ":1: the tag 'tag:yaml.org,2002:python/object/apply:os.system'",
        ),
        ("- a\n", ":1: must hold keys and values"),
        ("defaults: free_space\n", ":1: defaults must be a list"),
        ("defaults:\n  - 3\n", ":2: must be a name, or group: choice"),
        ("defaults:\n  - mine\n", ": its defaults list leads back to itself: channel/mine.yaml → channel/mine.yaml"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n},*a{n}]\n" for n in range(30)),
            ": its aliases repeat more",
        ),
        (f"a: {'[' * 3000}{']' * 3000}\n", ": is nested too deeply"),
        ("a: " + "x" * 1_100_000, ": has 1,100,003 bytes; a configuration must have at most 1,000,000"),
    ],
)
def test_a_mistake_in_a_file_of_the_users_is_told_with_file_and_line(text: str, said: str, tmp_path: Path) -> None:
    folder = yaml(tmp_path, "channel/mine.yaml", text)
    assert refusal(folder, "channel=mine").startswith(f"{tmp_path / 'channel' / 'mine.yaml'}{said}")


def test_files_of_the_users_that_lead_nowhere(tmp_path: Path) -> None:
    folder = yaml(tmp_path, "channel/mine.yaml", "defaults:\n  - nonexistent\n")
    assert refusal(folder, "channel=mine").startswith(
        "channel/mine.yaml: channel=nonexistent: must be one of free_space,"
    )
    yaml(tmp_path, "channel/mine.yaml", "defaults:\n  - free_space\nfadng: none\n")
    assert refusal(folder, "channel=mine").endswith("there is no such key: did you mean channel.fading?")
    yaml(tmp_path, "experiment/plain.yaml", "mu: 3\n")
    assert refusal(folder, "experiment=plain").endswith("must begin with the line # @package _global_")
    yaml(tmp_path, "experiment/plain.yaml", "# @package _global_\ndefaults:\n  - override /chanel: umi\n")
    assert "override chanel: there is no such group; did you mean channel?" in refusal(folder, "experiment=plain")
    (tmp_path / "experiment" / "plain.yaml").unlink()
    os.mkfifo(tmp_path / "experiment" / "plain.yaml")
    assert refusal(folder, "experiment=plain").endswith("plain.yaml: must be a file")


@pytest.mark.parametrize("name", ["../../evil", "/abs", "", "..", ".hidden", "a/b", "a\\b", " a", "a\n", "x" * 101])
def test_a_schemes_name_is_a_folders(name: str) -> None:
    assert "must be a folder's name" in refusal(f"scheme.name={quoted(name)}")


@pytest.mark.parametrize("name", ["proposed", "my[1]", "a$b$", "x, y", "ä-2.0", "x" * 100])
def test_other_names_of_schemes_are_taken(name: str) -> None:
    assert jobs.plan([f"scheme.name={quoted(name)}"]).jobs[0].config.folder.parent.parent.name == name


def test_the_oracle_allocates_exactly_in_an_experiment_too() -> None:
    def allocator(*arguments: str) -> str:
        return str(jobs.plan(list(arguments)).jobs[0].config.allocator["_target_"]).rpartition(".")[2]

    assert allocator("experiment=quick", "scheme=oracle") == "Optimal"
    assert allocator("-m", "experiment=quick", "scheme=oracle,proposed") == "Optimal"
    assert allocator("experiment=quick", "scheme=proposed") == "Proportional"
    assert allocator("experiment=quick", "scheme=oracle", "allocator=equal") == "Equal"
    assert jobs.plan(["experiment=quick", "scheme=oracle"]).overrides[-1] == "allocator=optimal"  # for Hydra's own run


def test_keys_of_a_training_beside_a_checkpoint_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.pt"
    file.write_bytes(b"none")
    line = refusal(f"allocator.checkpoint={file}", "allocator.hidden=32")
    assert line == f"allocator.hidden=32: does nothing beside allocator.checkpoint={file}, leave it out"
    assert "allocator.checkpoint" in refusal(f"allocator.checkpoint={file}")  # which is none, told by itself


def test_rows_of_a_schedule_that_the_run_has_no_use_for_are_told_once(tmp_path: Path) -> None:
    file = tmp_path / "schedule.csv"
    rows = [f"{frame},{user},0" for frame in range(3) for user in range(4)]
    file.write_text("\n".join(["frame,user,region", *rows]))
    asked = ["-m", f"drift.schedule={file}", "mu=3", "frames=2", "seed=0,1"]
    (note,) = jobs.plan(asked).notes
    assert note.startswith(f"drift.schedule={file}: 6 rows are of users or frames beyond mu=3 and frames=2")
    assert not jobs.plan([f"drift.schedule={file}", "mu=4", "frames=3"]).notes


def test_a_data_set_of_three_classes_cannot_have_two_unseen(tmp_path: Path) -> None:
    from tests.tiny_data import write_image_folder

    root = write_image_folder(tmp_path / "images")
    line = refusal("dataset=image_folder", f"dataset.root={root}")
    assert line.startswith("drift.unseen_classes=2: the data set has 3 classes, 0 to 2, and the base mo")
    assert line.endswith("at most 1 can be unseen")
    assert jobs.plan(["dataset=image_folder", f"dataset.root={root}", "drift.unseen_classes=1"]).jobs


@pytest.mark.parametrize("group", [*BUILT, "twin.predictor", "scheme", "twin", "time"])
def test_values_are_refused_as_their_class_refuses_them(group: str) -> None:
    conf = Conf()
    slashed = group.replace(".", "/")
    choices = conf.groups.get(slashed, {})
    given = config_of(composed([f"dataset.root={os.sep}"]))
    for choice in choices.values():
        target = conf.class_of(choice)
        if target is None or group not in (*BUILT, "twin.predictor"):
            continue
        asked = [f"{group}.{name}=x" for name, (text, _) in conf.keys(choice).items() if text == "???"]
        whole = config_of(composed([f"{slashed}={choice.name}", *asked]))
        node = whole.twin["predictor"] if group == "twin.predictor" else getattr(whole, group)
        for key in [name for name in node if name != "_target_"]:
            for bad in ("nonsense", -1e30, {"a": 1}, 1e30, float("nan"), None):
                wrong = {**node, key: bad}
                try:
                    build(wrong, group)
                except ConfigError as error:
                    own = [line for line in error.lines if line.startswith(f"{group}.{key}") and "<" not in line]
                    quick = value_faults(
                        {"twin": {"predictor": wrong}} if group == "twin.predictor" else {group: wrong}
                    )
                    assert not quick or set(quick) <= set(error.lines), (key, bad)
                    kinds = ("must be a whole number", "must be a number", "must be one of", "must be true or false")
                    if own and all(line.endswith(kinds[:2] + kinds[3:]) for line in own):
                        assert quick == own, (key, bad)
                else:
                    assert not value_faults({group: wrong}), (key, bad)
    assert not value_faults(vars(given))


def test_notes_and_tables_show_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from dtsim.reporting import command
    from tests.run_folders import write_run

    for scheme in ("my[bold]", "a$b$c", "[/red]"):
        for seed in range(3):
            write_run(tmp_path, scheme.replace("/", "|"), seed=seed, config={"scheme.name": scheme})
    command.report([tmp_path], command.Asked(each_run=True, baseline="my[bold]"))
    shown = capsys.readouterr().out
    for name in ("my[bold]", "a$b$c", "[|red]", "against my[bold]"):
        assert name in shown


def test_a_baseline_alone_in_its_setting_has_nothing_to_compare_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from dtsim.reporting import command
    from dtsim.reporting.runs import load
    from dtsim.reporting.statistics import paired
    from tests.run_folders import write_run

    for seed in range(3):
        write_run(tmp_path, "proposed", seed=seed)
    command.report([tmp_path], command.Asked(baseline="proposed"))
    assert "proposed" in capsys.readouterr().out
    assert paired(load(tmp_path), ["accuracy_mean"], baseline="proposed").empty


def test_an_unknown_bound_is_no_gap_of_a_hundred_percent(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    import math
    import time

    import numpy as np

    from dtsim.association.problem import AssociationProblem, answer
    from dtsim.reporting import run_table
    from tests.run_folders import write_run

    problem = AssociationProblem(
        work_flop=np.ones(2), upload_s=np.ones((1, 2)), station_flops=np.ones(1), gain=np.ones((1, 2))
    )
    station = np.zeros(2, dtype=np.int64)

    def gap(bound_s: float) -> float:
        given = {"bound_s": bound_s, "started": time.perf_counter()}
        return answer(problem, station, **given, status="heuristic", solver="mine").gap

    assert math.isnan(gap(0.0))
    assert gap(1.5) == pytest.approx(0.5)
    run_table.show([write_run(tmp_path, association_gap_mean="")])
    shown = " ".join(capsys.readouterr().out.split())
    assert "association's optimality gap, mean │ –" in shown


def test_train_and_test_folders_are_the_split(tmp_path: Path) -> None:
    from dtsim.core.errors import DatasetError
    from dtsim.learning.data.folders import images_of
    from tests.tiny_data import write_image_folder

    for part, images in (("train", 12), ("test", 5)):
        write_image_folder(tmp_path / part, images=images)
    names, paths, labels, test = images_of(tmp_path, 0.2)
    assert names == ["kind_0", "kind_1", "kind_2"]
    assert (len(paths), int(test.sum())) == (51, 15)
    assert all(
        path.is_relative_to(tmp_path / ("test" if of_test else "train"))
        for path, of_test in zip(paths, test, strict=True)
    )
    assert [names[label] for label in labels.tolist()] == [path.parent.name for path in paths]
    (tmp_path / "test" / "kind_2").rename(tmp_path / "test" / "other")
    with pytest.raises(DatasetError, match="kind_2 is in one of them alone"):
        images_of(tmp_path, 0.2)
    (tmp_path / "test").rename(tmp_path / "val")
    with pytest.raises(DatasetError, match="holds train, val: it must hold train and test"):
        images_of(tmp_path, 0.2)


def test_figures_take_names_with_dollar_signs(real_runs: Path, tmp_path: Path) -> None:
    import json
    import shutil

    from dtsim.reporting.figures import draw
    from dtsim.reporting.runs import load
    from dtsim.reporting.settings import settings
    from dtsim.reporting.style import save
    from dtsim.results.seal import seal

    for folder in sorted((real_runs / "makespan").rglob("result.json")):
        old = folder.parent
        name = {"proposed": "a$b$c", "without_il": "my[1]$x_{$"}.get(old.parent.parent.name)
        if name is None:
            continue
        new = tmp_path / "runs" / name / old.parent.name / old.name
        shutil.copytree(old, new)
        for file in new.glob("*.csv"):
            pd.read_csv(file).assign(scheme=name).to_csv(file, index=False)
        result = {
            key: value for key, value in json.loads(folder.read_text()).items() if key not in ("files", "checksum")
        }
        result["config"]["scheme"]["name"] = name
        (new / "result.json").unlink()
        seal(new, result)
    runs = load(tmp_path / "runs")
    drawings = draw(settings(runs, "t", 4), "a$b$c")
    assert len(save(drawings, tmp_path / "figures")) == 2 * len(drawings)
    texts = [text for drawing in drawings for text in drawing.figure.findobj(Text) if isinstance(text, Text)]
    assert any("a$b$c" in text.get_text() for text in texts)
    assert not any(text.get_parse_math() for text in texts if "$" in text.get_text())
