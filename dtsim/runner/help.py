"""What can be configured: `dtsim run --help` and shell completion, both read off the YAML files themselves."""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

_USAGE = """dtsim run [HYDRA FLAGS] [group=choice ...] [key=value ...]

  dtsim run scheme=proposed mu=20                              one run
  dtsim run -m scheme=proposed,single_timescale mu=5,10,20     a sweep: every combination
  dtsim run -m hydra/launcher=laptop seed=0,1,2                a sweep on all cores

Hydra's flags: -m sweep, --cfg job show the configuration, --info defaults-tree and others,
--config-dir DIR choices and parts of your own, --hydra-help all of Hydra's; and --fresh redo what is done.
"""

_USAGE_OF_CHECK = """dtsim check [HYDRA FLAGS] [group=choice ...] [key=value ...]

  dtsim check scheme=proposed mu=20                            one run
  dtsim check -m scheme=proposed,single_timescale mu=5,10,20   every job of a sweep

Checks all that `dtsim run` with the same arguments would refuse before its first frame. It writes nothing.
"""

_KEY = re.compile(r"^(?P<indent> *)(?P<key>[A-Za-z_]\w*): *(?P<value>[^#]*?)? *(?:# *(?P<comment>.*))?$")


def _roots(config_dir: str | None) -> list[Any]:
    roots: list[Any] = [importlib.resources.files("dtsim.conf")]
    return [*roots, Path(config_dir)] if config_dir else roots


def _groups(root: Any, prefix: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    """Every group below `root` with its choices and their texts."""
    folders = sorted((entry for entry in root.iterdir() if entry.is_dir()), key=lambda entry: entry.name)
    for folder in folders:
        name = f"{prefix}{folder.name}"
        files = {
            entry.name.removesuffix(".yaml"): entry.read_text()
            for entry in sorted(folder.iterdir(), key=lambda entry: entry.name)
            if entry.name.endswith(".yaml")
        }
        if files:
            yield name, files
        yield from _groups(folder, f"{name}/")


def _first_comment(text: str) -> str:
    comments = (line.lstrip("# ") for line in text.splitlines() if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@package")), "")


def _keys(text: str) -> Iterator[tuple[str, str, str]]:
    """(key, value, comment) of every documented key of a YAML file; nested keys are dotted."""
    path: list[str] = []
    for line in text.splitlines():
        found = _KEY.match(line)
        if not found:
            continue
        depth = len(found["indent"]) // 2
        path[depth:] = [found["key"]]
        if found["comment"] and found["key"] != "_target_":
            yield ".".join(path), found["value"] or "", found["comment"]


def _help_rows(table: Table, prefix: str, text: str) -> None:
    for key, value, comment in _keys(text):
        table.add_row(Text(f"{prefix}{key}={value}"), Text(comment))


def show_help(arguments: Sequence[str], verb: str = "run") -> None:
    """Print usage, every group with its choices, and every key with its default and unit."""
    given = list(arguments)
    flag = next((place for place, text in enumerate(given) if text in ("--config-dir", "-cd")), None)
    config_dir = given[flag + 1] if flag is not None and flag + 1 < len(given) else None
    console = Console()
    usage = _USAGE if verb == "run" else _USAGE_OF_CHECK
    console.print(usage, highlight=False, markup=False)
    console.print("Groups and their choices (the default first)", style="bold")
    roots = _roots(config_dir)
    main = roots[0].joinpath("config.yaml").read_text()
    default = dict(re.findall(r"^  - (\w+): (\w+)$", main, flags=re.MULTILINE))
    default["twin/predictor"] = "beta_binomial"
    groups: dict[str, dict[str, str]] = {}
    for root in roots:
        for name, files in _groups(root):
            groups.setdefault(name, {}).update(files)
    for name, files in groups.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
        table.add_column(no_wrap=True, min_width=34)
        table.add_column(style="dim")
        for choice in sorted(files, key=lambda choice: (choice != default.get(name), choice)):
            table.add_row(Text(f"{name}={choice}"), Text(_first_comment(files[choice])))
        console.print(table)
    console.print("\nKeys, their defaults and units", style="bold")
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
