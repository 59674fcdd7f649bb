"""What can be configured: `dtsim run --help` and shell completion."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dtsim.core.fields import described
from dtsim.runner.choices import CLASSES, Choice, Conf, offered

_USAGE = """dtsim run [HYDRA FLAGS] [group=choice ...] [key=value ...]

  dtsim run scheme=proposed mu=20                              one run
  dtsim run -m scheme=proposed,single_timescale mu=5,10,20     a sweep: every combination
  dtsim run -m hydra/launcher=laptop seed=0,1,2                a sweep on all cores
  dtsim run channel=umi --help                                 this page, with the keys of that choice

Hydra's flags: -m sweep, --cfg job show the configuration, --info defaults-tree and others,
--config-dir DIR user-defined choices and parts, --hydra-help all of Hydra's; and --fresh redo what is done.
"""

_USAGE_OF_CHECK = """dtsim check [HYDRA FLAGS] [group=choice ...] [key=value ...]

  dtsim check scheme=proposed mu=20                            one run
  dtsim check -m scheme=proposed,single_timescale mu=5,10,20   every job of a sweep

Checks all that `dtsim run` with the same arguments would refuse before its first frame. It writes nothing.
"""


def show_help(arguments: Sequence[str], verb: str = "run") -> None:
    """Print usage, every group with its choices, and every key with its value, unit, range and meaning.

    Keys are those of the default choices, or of the ones that `arguments` make.
    """
    conf = Conf(_config_dir(arguments))
    made = conf.default | dict(word.split("=", 1) for word in arguments if "=" in word and not word.startswith("-"))
    console = Console()
    usage = _USAGE if verb == "run" else _USAGE_OF_CHECK
    console.print(usage, highlight=False, markup=False)
    console.print("Groups and their choices (the default first)", style="bold")
    for group, choices in conf.groups.items():
        table = _table()
        for name in sorted(choices, key=lambda name: (name != conf.default.get(group), name)):
            table.add_row(Text(f"{group}={name}"), Text(choices[name].about))
        console.print(table)
    console.print("\nKeys, their values and units", style="bold")
    table = _table()
    known = {
        f"{group}.{key.name}" if group else key.name: key for group in ("", "time") for key in described(CLASSES[group])
    }
    for name, value in conf.main.own.items():
        if name in known:
            table.add_row(Text(f"{name}={value.text}"), Text(known[name].comment))
    for group, choices in conf.groups.items():
        if not group.startswith(("hydra", "experiment")):
            choice = choices.get(made.get(group, "")) or choices.get(conf.default.get(group, ""))
            _add_keys(table, conf, choice or next(iter(choices.values())))
    console.print(table)


def _add_keys(table: Table, conf: Conf, choice: Choice) -> None:
    table.add_row("", "")
    table.add_row(Text(f"{choice.group}: {choice.name}", style="bold"), Text(choice.about))
    for name, (value, key) in conf.keys(choice).items():
        table.add_row(Text(f"{choice.group.replace('/', '.')}.{name}={value}"), Text(key.comment))


def _table() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(no_wrap=True, min_width=34)
    table.add_column(style="dim")
    _help_rows(table, "", main)
    for name, files in groups.items():
        if name.startswith(("hydra", "experiment")):
            continue
        choice = default.get(name, next(iter(files)))
        table.add_row("", "")
        table.add_row(Text(f"{name}: {choice}", style="bold"), Text(_first_comment(files[choice])))
        _help_rows(table, name.replace("/", ".") + ".", files[choice])
    console.print(table)
