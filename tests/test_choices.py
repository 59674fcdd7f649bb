"""The YAML files: what a choice inherits, what is offered, and that each key and its comment stand once."""

from __future__ import annotations

import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import yaml

from dtsim.core.parts import ConfigError
from dtsim.runner import jobs
from dtsim.runner.choices import Choice, Conf
from dtsim.runner.completion import completions
from dtsim.runner.help import show_help
from scripts import comment_conf
from tests.composed import node

CONF = Conf()
CHOICES = [choice for choices in CONF.groups.values() for choice in choices.values()]
CONFIGURED = [choice for choice in CHOICES if not choice.group.startswith(("hydra", "experiment"))]
FILES = [choice for _, choice in comment_conf.files()]
GIVEN = {
    "dataset/image_folder": ["dataset.root=somewhere"],
    "allocator/external": ["allocator.loader=a.b", "allocator.file=somewhere"],
}


def name_of(choice: Choice) -> str:
    return f"{choice.group}/{choice.name}"


@pytest.mark.parametrize("choice", CONFIGURED, ids=name_of)
def test_what_is_read_off_the_files_is_what_hydra_composes(choice: Choice) -> None:
    composed = node(choice.group, choice.name, *GIVEN.get(name_of(choice), []))
    composed.pop("predictor", None)  # a group of its own
    read: dict[str, Any] = {key: yaml.safe_load(value.text) for key, value in CONF.values(choice).items()}
    assert read.keys() == composed.keys()
    for key, value in read.items():
        if not str(value).startswith(("???", "${")):
            number = isinstance(composed[key], float) and isinstance(value, str)  # to YAML 1.1, 3.5e9 is a text
            assert composed[key] == (float(value) if number else value) or isinstance(value, list)


@pytest.mark.parametrize("choice", FILES, ids=name_of)
def test_no_key_is_repeated_with_the_value_that_it_inherits(choice: Choice) -> None:
    above = CONF.lineage(choice)[:1]
    inherited = CONF.values(above[0]) if above else {}
    assert not [key for key, value in choice.own.items() if key in inherited and inherited[key].text == value.text]


def test_files_of_a_family_inherit() -> None:
    def lineage(group: str, name: str) -> list[str]:
        return [name_of(file) for file in CONF.lineage(CONF.groups[group][name])]

    assert lineage("drift", "noise") == ["drift/none"]
    assert lineage("allocator", "sac") == ["allocator/ddpg", "_base/learned"]
    assert lineage("scheme", "oracle") == ["scheme/proposed"]
    assert lineage("twin/predictor", "shadow") == ["twin/predictor/beta_binomial"]


def test_comments_are_those_of_the_classes() -> None:
    stale = [name_of(choice) for choice in FILES if comment_conf.commented(CONF, choice) != choice.source]
    assert not stale, "run make comments"


def test_every_key_has_its_comment_once() -> None:
    for choice in CONFIGURED:
        files = [choice, *CONF.lineage(choice)]
        for key in CONF.values(choice):
            said = [file.own[key].comment for file in files if key in file.own]
            described = [comment for comment in said if comment and comment == CONF.keys(choice)[key][1].comment]
            assert key == "_target_" or len(described) <= 1, f"{name_of(choice)}.{key}"
            assert key == "_target_" or any(said), f"{name_of(choice)}.{key}"


def test_a_comment_that_is_wrong_is_written_anew_and_a_remark_is_left() -> None:
    right = CONF.groups["allocator"]["ddpg_paper"]
    wrong = right.source.replace("hidden: 256", "hidden: 256  # [>= 3] Width of something else")
    assert "# a flat policy serves that number only" in right.source
    assert comment_conf.commented(CONF, Choice("allocator", "ddpg_paper", wrong)) == right.source
    base = CONF.find("_base", "learned")
    assert base is not None
    bare = "\n".join(line.partition("  #")[0] for line in base.source.splitlines()[1:])
    again = comment_conf.commented(CONF, Choice("_base", "learned", f"{base.source.splitlines()[0]}\n{bare}\n"))
    assert again == base.source


def test_check_names_the_file_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "solver" / "greedy.yaml"
    file.parent.mkdir()
    file.write_text("# Fast.\n_target_: dtsim.association.greedy.Greedy\nlocal_search: true\n")
    monkeypatch.setattr(comment_conf, "CONF", tmp_path)
    monkeypatch.setattr("sys.argv", ["comment_conf.py", "--check"])
    assert comment_conf.main() == 1
    assert f"{file}: is not up to date" in capsys.readouterr().out and "#" not in file.read_text()[7:]
    monkeypatch.setattr("sys.argv", ["comment_conf.py"])
    assert comment_conf.main() == 0
    assert "local_search: true  # [true | false] Whether" in file.read_text()


def helped(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "250")
    with redirect_stdout(io.StringIO()) as said:
        show_help(arguments)
    return said.getvalue()


def test_bases_are_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (Path(comment_conf.CONF) / "_base").is_dir()
    assert not [group for group in CONF.groups if "_base" in group]
    assert not [
        offer for typed in ("", "_", "_base", "_base/", "+_base") for offer in completions(typed) if "_base" in offer
    ]
    assert "_base" not in helped(monkeypatch=monkeypatch)
    for typed, said in {
        "drift=base": "drift=base: must be one of blur, brightness, combined, label_shift, noise, none, ",
        "_base=learned": "_base=learned: there is no key _base",
        "+_base=learned": "_base=",
    }.items():
        with pytest.raises(ConfigError) as caught:
            jobs.plan([typed])
        assert len(caught.value.lines) == 1 and caught.value.lines[0].startswith(said)


def test_help_shows_the_keys_of_the_choice_that_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, chosen = (helped(*words, monkeypatch=monkeypatch) for words in ((), ("channel=umi", "mu=3")))
    assert "channel.fading=rayleigh" in usual and "channel.station_height_m" not in usual
    assert "channel.fading=rician" in chosen and "channel.station_height_m=10.0" in chosen
    assert "[Hz, 1 to 1e12] Uplink bandwidth of" in usual
    assert "twin.predictor.max_age_frames=3" in usual and "time.slot_s=0.005" in usual
    assert all(f"  {group}: {choice} " in usual for group, choice in CONF.default.items() if group[:5] != "hydra")


OWN = """# Mine.
defaults:
  - {base}

{key}: {value}  # said by me
"""


@pytest.mark.parametrize(
    ("file", "base", "key", "value"),
    [
        ("allocator/mine", "ddpg", "hidden", 16),
        ("drift/mine", "/drift/rotation@_here_", "blur_sigma", 1.0),
        ("allocator/mine", "/_base/learned@_here_", "_target_", "dtsim.allocation.learned.agents.Ddpg"),
    ],
)
def test_a_users_choice_may_inherit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str, base: str, key: str, value: Any
) -> None:
    path = tmp_path / f"{file}.yaml"
    path.parent.mkdir()
    path.write_text(OWN.format(base=base, key=key, value=value))
    group = file.partition("/")[0]
    words = ["--config-dir", str(tmp_path), f"{group}=mine"]
    (job,) = jobs.plan([*words, f"outputs={tmp_path / 'outputs'}"]).jobs
    found = getattr(job.config, group)
    assert found[key] == value
    assert found.get("train_users", 20) == 20 and found.get("rotation_deg", 15.0) == 15.0
    said = helped(*words, monkeypatch=monkeypatch)
    assert f"{group}=mine" in said and f"{group}: mine" in said
    assert key == "_target_" or f"{group}.{key}={value}" in said


@pytest.mark.parametrize(
    "text", ["a: [1\n", "\tx: 1\n", "- 1\n", "", "defaults:\n  - mine\n", "defaults: 3\na: {b: 1}\n"]
)
def test_help_survives_a_file_that_is_no_choice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    (tmp_path / "solver").mkdir()
    (tmp_path / "solver" / "mine.yaml").write_text(text)
    assert "solver=mine" in helped("--config-dir", str(tmp_path), "solver=mine", monkeypatch=monkeypatch)
    assert "solver=mine" in helped(f"--config-dir={tmp_path}", monkeypatch=monkeypatch)
