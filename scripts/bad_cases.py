"""Command lines that are wrong, each with what its answer must name: what `bad_commands.py` tries.

Those over groups and keys are made from conf/ and the fields of the classes, so a new key is tried at once.
"""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from dtsim.core.fields import Key
from dtsim.runner.choices import Conf

ALLOWED = (
    r"must |did you mean|needs |write |is refused|there is no|one at a time|one job at a time|does nothing|more than|"
    r"this machine has|leads? back|pip install|needs quotes|is not installed|expected|unexpected|no such|at most|"
    r"is no |only one of|takes no|in one of them|nested|repeat|duplicate|undefined|mapping values|"
    r"not found|missing|add -m"
)
"""What an answer says of what may be typed instead."""


@dataclass(frozen=True)
class Case:
    """A command line, and what its answer must name beside what is allowed."""

    category: str
    arguments: tuple[str, ...]
    named: tuple[str, ...]

    def __str__(self) -> str:
        return " ".join(("dtsim", *self.arguments))


def all_cases(folder: Path) -> list[Case]:
    """Every case once; files that some of them need are written into `folder`."""
    made = [*_groups(), *_keys(), *_hand_made(), *_of_files(folder), *_of_config_folders(folder)]
    return list({case.arguments: case for case in made}.values())


def _run(category: str, line: str, *named: str) -> Case:
    """`line` after `dtsim run`; two spaces part arguments. Where nothing is said, its last key must be named."""
    arguments = tuple(line.split("  "))
    keys = named or tuple(argument.partition("=")[0].lstrip("+~") for argument in arguments[-1:])
    return Case(category, ("run", *arguments), keys)


def _groups() -> Iterator[Case]:
    """Every group: a choice that is none, one with a letter too few, a number, a list, none at all."""
    for group, choices in Conf().groups.items():
        if group.startswith("hydra"):
            continue
        first = next(iter(choices))
        typo = first[:-1] if len(first) > 3 else f"{first}x"
        for value in ("nonsense", typo, "3", f"[{first}]", "null", "''"):
            yield _run("choices", f"{group}={value}", group, first)
        yield _run("choices", f"~{group}", group)
        yield _run("choices", f"+{group}={first}" if group != "experiment" else "experiment=[]", group)
        yield _run("group typos", f"{group[:-1]}={first}", group[:-1], group)
        yield _run("choices", f"-m  {group}={first},nonsense", group, "nonsense", first)


def _keys() -> Iterator[Case]:
    """Every key of every class: its name mistyped, a value of another type, and one beyond each end of its range."""
    conf = Conf()
    seen = set()
    for group, choices in conf.groups.items():
        for choice in choices.values():
            target = conf.class_of(choice)
            if group.startswith(("hydra", "experiment")) or target in seen:
                continue
            seen.add(target)
            for name, (_, key) in conf.keys(choice).items():
                dotted = f"{group.replace('/', '.')}.{name}"
                chosen = f"{group}={choice.name}  "
                if "." not in name:
                    yield _run("key typos", f"{chosen}{dotted}x=1", f"{dotted}x", name)
                    yield from _values(chosen, dotted, key)
    for name in ("mu", "seed", "frames", "slots_per_frame", "probe_images"):
        yield _run("top-level keys", f"{name}=abc", name)
        yield _run("top-level keys", f"{name}=-1", name)
        yield _run("top-level keys", f"{name}=1.5", name)
        yield _run("top-level keys", f"{name}=null", name)
        yield _run("top-level keys", f"{name}.x=1", name)
        yield _run("top-level keys", f"+{name}=1", name)
    for name, value, named in (
        ("objective", "fast", "makespan"), ("device", "gpu", "cuda"), ("accuracy_threshold", "1.2", "< 1"),
        ("accuracy_threshold", "0", "> 0"), ("accuracy_threshold", "base-1.5", "base-0.05"),
        ("time.slot_s", "0", "> 0"), ("time.slot_s", "x", "number"),
        ("time.frame_spacing_s", "-1", "> 0"), ("fresh", "maybe", "true or false"), ("outputs", "''", "empty"),
        ("time", "3", "group of keys"), ("outputs", "3", "text"), ("cache", "[]", "text"),
    ):  # fmt: skip
        yield _run("top-level keys", f"{name}={value}", name, named)


def _values(chosen: str, dotted: str, key: Key) -> Iterator[Case]:
    """Values that a key cannot have."""
    if not key.type:
        return
    kinds = key.type.split(" | ")
    if "str" not in kinds:
        yield _run("wrong types", f"{chosen}{dotted}=nonsense", dotted)
    yield _run("wrong types", f"{chosen}{dotted}={{a: 1}}", dotted)
    if "list" not in key.type:
        yield _run("wrong types", f"{chosen}{dotted}=[1]", dotted)
    if kinds[0].startswith("Literal["):
        values = [str(value) for value in ast.literal_eval(f"({kinds[0][8:-1]},)")]
        yield _run("mistyped values", f"{chosen}{dotted}={values[0][:-1]}", dotted, *values)
    if "float" in kinds:
        yield _run("ranges", f"{chosen}{dotted}=nan", dotted)
        yield _run("ranges", f"{chosen}{dotted}=inf", dotted)
    for name, sign in (("gt", 0), ("ge", -1), ("lt", 0), ("le", 1)):
        limit = key.limits.get(name)
        if limit is not None and re.fullmatch(r"-?[\d._e+-]+", limit):
            value = ast.literal_eval(limit) + sign * max(1, abs(ast.literal_eval(limit)))
            yield _run("ranges", f"{chosen}{dotted}={value}", dotted)


def _hand_made() -> Iterator[Case]:
    """What people type, and what was found to go wrong before."""
    for line, *named in (
        ("mu",), ("=3", "=3"), ("10", "10"), ("mu=3  10", "10"), ("-m  mu=5  10", "mu=5,10"), ("mü=3", "mü=3"),
        ("mu=[1",), ("mu=1]",), ("mu={a:1",), ("mu='a",), ("mu=a=b",), ("mu=1,,2",), ("mu=1,",), ("mu=,1",),
        ("mu=foo(1)", "mu", "choice"), ("mu=choice()",), ("mu=int(abc)",), ("mu=${nope}", "mu", "nope"),
        ("mu=${mu}",), ("mu=${oc.env:DTSIM_NOPE}", "mu", "DTSIM_NOPE"), ("mu@x=3",), ("scheme@x=oracle", "scheme"),
        ("mu..a=3",), (".mu=3",), ("mu.=3",), ("typo=1",), ("+typo=1",), ("++typo=1",), ("~typo",), ("~mu",),
        ("outputs=a/Ü,b", "outputs"), ("outputs=a;b",), ("outputs=a#b", "outputs"), ("outputs=a&b",),
        ("drift.schedule=outputs/mu=4/x.csv", "drift.schedule"), ("bandwidth_hz=3", "channel.bandwidth_hz"),
        ("predictor=oracle", "twin/predictor"), ("slots=3", "slots_per_frame"),
        ("twin.predictor=oracle", "twin/predictor=oracle"),
        ("channel.bandwith_hz=1", "channel.bandwidth_hz"), ("Scheme=oracle", "scheme"), ("scheme=Oracle", "oracle"),
        ("scheme=propsed  chanel=umi  mo=5  mu=a", "scheme=propsed", "chanel=umi", "mo=5", "mu='a'"),
        ("scheme.name=../../evil",), ("scheme.name=/abs",), ("scheme.name=''",), ("scheme.name='..'",),
        ("scheme.name=.hidden",), ("scheme.name='a/b'",), ("scheme.name=[x]",),
        ("scheme=single_timescale  scheme.allocate=frame", "scheme.allocate"),
        ("scheme=prior_correction  scheme.generated=true", "scheme.generated"),
        ("generator=gaussian", "retraining.trainable"), ("generator=cvae  retraining.trainable=head",),
        ("drift.unseen_classes=9",), ("drift.unseen_classes=[3,3]",), ("drift.home=4",), ("model.groups=7",),
        ("model.channels=[8,8,8,8,8]",), ("model=resnet8  model.groups=7",), ("traffic.min_images=40",),
        ("mobility.speed_min_mps=9",), ("topology.station_flops=[1,2]",), ("topology.station_flops=1e-300",),
        ("topology=explicit  topology.area_m=[0,0,0,1]",), ("allocator.buffer_slots=3",),
        ("allocator=apg  allocator.least_users=200",), ("solver._target_=nowhere.Solver",),
        ("solver._target_=os.system",), ("solver._target_=dtsim.physical.channel.FreeSpace",), ("solver._target_=3",),
        ("experiment=fig2a  mu=0", "mu=0"), ("-m  mu=5,0  frames=10,-1", "mu=0", "frames=-1"),
        ("outputs=/dev/null/here",), ("outputs=/proc/nothing",), ("cache=/dev/null",),
    ):  # fmt: skip
        yield _run("what people type", line, *named)
    for line, *named in (
        ("-m  scheme=glob(x*)", "scheme"), ("-m  mu=glob(*)", "mu"), ("-m  mu=interval(1,2)", "mu"),
        ("-m  mu=range(1,10,0)", "mu"), ("-m  mu=range(0)", "mu"), ("-m  mu=range(5,1)", "mu"), ("mu=1,2", "mu", "-m"),
        ("-m  mu=range(1,1000000000)", "mu"), ("-m  seed=range(200000)", "seed"), ("-m  mu=range(a,b)", "mu"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.n_jobs=0", "n_jobs"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.n_jobs=100000", "n_jobs"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.n_jobs=two", "n_jobs"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.pre_dispatch=0", "pre_dispatch"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.pre_dispatch=soon", "pre_dispatch"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.batch_size=0", "batch_size"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.verbose=-1", "verbose"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.require=sharedmem", "require"),
        ("-m  mu=3,4  hydra/launcher=laptop  hydra.launcher.njobs=2", "n_jobs"),
        ("hydra.launcher.n_jobs=2", "hydra/launcher=laptop"), ("hydra/launcher=lap", "laptop"),
        ("hydra/launcher=ray_cluster", "dtsim[ray]"), ("hydra/sweeper=optuma", "optuna"),
        ("hydra.mode=FOO", "MULTIRUN"), ("hydra/sweeper=optuna", "-m"), ("-m  hydra/sweeper=optuna  mu=5", "interval"),
        ("-m  hydra/sweeper=optuna  mu=interval(5,9)", "mu=6.528"), ("tracker=tensorbord", "tensorboard"),
        ("hydra.nope=3", "hydra"), ("hydra.searchpath=3", "hydra.searchpath"),
    ):  # fmt: skip
        yield _run("sweeps and launchers", line, *named)
    for line, *named in (
        ("-m  --cfg  job", "--cfg"), ("--cfg", "--cfg"), ("--cfg  jop", "job"), ("--cfg=job  mu=1,2", "mu"),
        ("--cfg=job  --info=all", "--cfg"), ("--info  bogus", "defaults-tree"), ("--resolve", "--cfg"),
        ("--package=channel", "--cfg"), ("--cfg=job  --package=chanel", "channel"), ("-x", "-x"),
        ("--farsh", "--fresh"),
        ("--multirn", "--multirun"), ("--config-dir", "--config-dir"), ("--config-dir=/nowhere", "--config-dir"),
        ("--config-name=other", "--config-name"), ("--config-path=/tmp", "--config-dir"), ("--yes=3", "--yes"),
        ("--experimental-rerun=x.pickle", "--experimental-rerun"), ("--experimental-rerun  x", "--experimental-rerun"),
        ("--shell-completion", "--install-completion"), ("--cfg=job  scheme=propsed", "proposed"),
        ("mu=3  --nope", "--nope"),
    ):  # fmt: skip
        yield _run("flags", line, *named)
    for line, *named in (
        ("mu=1000000000",), ("mu=1" + "0" * 400, "mu"), ("frames=1000000000",), ("slots_per_frame=1000000000",),
        ("drift.rows=10000  drift.columns=10000",), ("retraining.samples=1000000000000",), ("probe_images=1000000000",),
        ("mobility=gauss_markov  mobility.step_s=1e-12",), ("time.frame_spacing_s=1e300",), ("time.slot_s=1e300",),
        ("generator.max_ratio=1e300",), ("generator.amount=kl  generator.max_ratio=1e9",),
        ("twin.capacity=1000000000000",),
        ("traffic.max_images=1000000000",), ("pretraining.epochs=1000000000",), ("retraining.epochs=1000000000",),
        ("pretraining.batch_size=1000000000000",), ("allocator.hidden=1000000",), ("allocator.environments=100000000",),
        ("allocator.environment_steps=1000000000000",), ("allocator.buffer_slots=1000000000000",),
        ("allocator.held_out_slots=1000000000",), ("allocator.batch_size=100000000",), ("model.channels=[100000000]",),
        ("model=resnet8  model.width=8000000",), ("model=resnet8  model.blocks=[1000000000]",),
        ("generator=cvae  generator.fit_steps=1000000000000",), ("generator=cvae  generator.latent=1000000000000",),
        ("topology.stations=100000",), ("topology.stations=10000  mu=10000000", "mu"), ("twin.windows=1" + "0" * 30,),
        ("seed=-5",), ("topology.inter_site_m=1e300",), ("channel.bandwidth_hz=1e300",), ("channel.tx_dbm=1e300",),
        ("channel.frequency_hz=1e-300",), ("topology.mu_flops=1e-300",), ("mobility.speed_max_mps=1e300",),
        ("mobility.pause_max_s=1e300",), ("retraining.learning_rate=1e300",), ("allocator.actor_learning_rate=1e300",),
    ):  # fmt: skip
        yield _run("size and time", line, *named)
    for line, *named in (
        ("report  /nowhere", "/nowhere"), ("report  --interval=x", "interval"), ("report  --nope", "--nope"),
        ("report  --csv", "--csv"), ("report  a  b", "b"), ("report  --runs=3", "--runs"),
        ("rnu", "rnu"),
        ("info  model=nonsense", "model"), ("info  dataset=cifar  mu=3", "dataset"), ("info  --nope", "--nope"),
        ("info  model.channels=[100000000]", "model.channels"), ("bench  nothing", "nothing"),
        ("bench  allocation  --users=x", "users"), ("bench  allocation  --users=0", "users"),
        ("bench  allocation  --users=1000000000", "users"), ("bench  allocation  --slots=-1", "slots"),
        ("bench  allocation  --slots=abc", "slots"), ("bench  allocation  --repeats=0", "repeats"),
        ("bench  allocation  --allocators=nope", "nope"), ("bench  allocation  chanel=umi", "channel"),
        ("bench  retraining  --samples=0", "samples"), ("bench  retraining  --users=-3", "users"),
        ("bench  environment  --batches=x", "batches"), ("bench  environment  --batches=0", "batches"),
        ("bench  environment  --steps=0", "steps"), ("bench  environment  --training-steps=-1", "training-steps"),
        ("bench  twin  --parts=nope", "nope"), ("bench  twin  --drifts=nope", "nope"),
        ("bench  twin  --seeds=0", "seeds"),
        ("bench  twin  --generators=nope", "nope"), ("bench  twin  --samples=x", "samples"),
        ("bench  twin  --processes=0", "processes"), ("bench  twin  --budgets=x", "budgets"),
        ("bench  twin  --ratios=-1", "ratios"), ("check  --cfg=job", "--cfg"), ("check  mu=0", "mu"),
        ("check  scheme=nope", "scheme"), ("--nope", "--nope"),
    ):  # fmt: skip
        yield Case("other verbs", tuple(line.split("  ")), tuple(named))


def _of_files(folder: Path) -> Iterator[Case]:
    """Files that are none, pipes, devices, and folders of images that cannot be divided."""
    pipe, text = folder / "pipe", folder / "text"
    os.mkfifo(pipe)
    text.write_text("nothing\n")
    for key in ("drift.schedule", "drift.distributions", "allocator.checkpoint"):
        for path in (pipe, Path("/dev/zero"), folder, text, folder / "absent"):
            yield _run("files", f"{key}={path}", key)
    yield _run("files", f"outputs={text}", "outputs")
    yield _run("files", f"cache={text}", "cache")
    for name, parts in {
        "one": ["a"], "none": [], "three": ["a", "b", "c"], "train_val": ["train/a", "train/b", "val/a", "val/b"],
        "differing": ["train/a", "train/b", "test/a", "test/c"], "single": ["train/a", "test/a"],
    }.items():  # fmt: skip
        for part in parts:
            (folder / name / part).mkdir(parents=True)
            for number in range(4):
                Image.new("RGB", (9, 9), (number, 0, 0)).save(folder / name / part / f"{number}.png")
        (folder / name).mkdir(exist_ok=True)
        key = "drift.unseen_classes" if name == "three" else str(folder / name)
        arguments = ("check", "dataset=image_folder", f"dataset.root={folder / name}", f"outputs={folder / 'o'}")
        yield Case("files", arguments, (key,))
    (folder / "one" / "b").mkdir()
    os.mkfifo(folder / "one" / "b" / "x.png")
    for root in (text, folder / "nowhere", pipe):
        yield Case("files", ("check", f"dataset.root={root}", f"outputs={folder / 'o'}"), (str(root),))


def _of_config_folders(folder: Path) -> Iterator[Case]:
    """Mistakes in the YAML files of a folder of the user's."""
    target = "_target_: dtsim.physical.channel.FreeSpace\n"
    inherits = "defaults:\n  - free_space\n"
    for name, content in {
        "bracket": f"{target}x: [1, 2\ny: 3\n", "tab": f"{target}a:\n\tb: 1\n", "quote": "a: 'b\n",
        "colon": "a: b: c\n",
        "twice": f"{target}fading: none\nfading: none\n", "tag": "a: !!python/object/apply:os.system ['true']\n",
        "own_tag": "a: !foo bar\n", "alias": "a: *b\n", "list": "- a\n- b\n", "scalar": "hello\n",
        "itself": "defaults:\n  - itself\n", "text": "defaults: free_space\n", "number": "defaults:\n  - 3\n",
        "missing": "defaults:\n  - nonexistent\n", "key": f"{inherits}fadng: none\n",
        "value": f"{inherits}fading: no\n",
        "nested": f"a: {'[' * 3000}{']' * 3000}\n", "large": "a: " + "x" * 2_000_000, "no_target": "fading: none\n",
        "repeats": "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{to}: &{to} [{','.join([f'*{of}'] * 10)}]\n" for of, to in zip("abcdefgh", "bcdefghi", strict=True)),
        "missing_key": f"{inherits}fading: ${{nope}}\n",
    }.items():  # fmt: skip
        file = folder / f"conf_{name}" / "channel" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
        named = "channel" if name in ("missing", "key", "value", "missing_key", "no_target") else f"{name}.yaml"
        yield _run("folders of YAML files", f"--config-dir={folder / f'conf_{name}'}  channel={name}", named)
    (folder / "conf_latin" / "channel").mkdir(parents=True)
    (folder / "conf_latin" / "channel" / "latin.yaml").write_bytes(b"a: b # \xff\n")
    yield _run("folders of YAML files", f"--config-dir={folder / 'conf_latin'}  channel=latin", "latin.yaml")
    (folder / "conf_pipe" / "channel").mkdir(parents=True)
    os.mkfifo(folder / "conf_pipe" / "channel" / "pipe.yaml")
    yield _run("folders of YAML files", f"--config-dir={folder / 'conf_pipe'}  channel=pipe", "pipe.yaml")
    for name, content, named in (
        ("plain", "mu: 3\n", "# @package _global_"),
        ("typo", "# @package _global_\nmuu: 3\n", "mu"),
        ("word", "# @package _global_\nmu: three\n", "mu"),
        ("choice", "# @package _global_\ndefaults:\n  - override /channel: nope\n", "channel"),
        ("group", "# @package _global_\ndefaults:\n  - override /chanel: umi\n", "channel"),
    ):
        file = folder / f"conf_{name}" / "experiment" / f"{name}.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(content)
        yield _run("folders of YAML files", f"--config-dir={folder / f'conf_{name}'}  experiment={name}", named)
