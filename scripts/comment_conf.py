"""Write the comments behind the keys in conf/ from the docstrings of the classes (`make comments`).

A key is described once, under its field in the class. A YAML file shows that description where the key first appears
along the files that it inherits from, or where the class describes it otherwise than the class of the file above.
Where a file only gives a key another value, a remark of its own may stand behind it, and is left as it is.

    python scripts/comment_conf.py            write
    python scripts/comment_conf.py --check    change nothing; exit with 1 and name the files that are not up to date
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from dtsim.core.fields import described
from dtsim.runner.choices import CLASSES, Choice, Conf

CONF = Path(__file__).parents[1] / "conf"
BY_HAND = ("hydra", "experiment", "tracker")
"""Groups whose keys belong to no class of ours."""


def files() -> Iterator[tuple[Path, Choice]]:
    """Every file whose comments are written by this script."""
    for path in sorted(CONF.rglob("*.yaml")):
        group = path.parent.relative_to(CONF).as_posix().removeprefix(".")
        if not group.startswith(BY_HAND):
            yield path, Choice(group, path.stem, path.read_text(encoding="utf-8"))


def expected(conf: Conf, choice: Choice) -> dict[str, str]:
    """The comment that each key of a file must have: those that it introduces or whose meaning it changes."""
    own = _comments(conf, choice)
    above = conf.lineage(choice)[:1]
    inherited = _comments(conf, above[0]) if above else {}
    keys = conf.values(above[0]) if above else {}
    return {key: own[key] for key in choice.own if key in own and (key not in keys or own[key] != inherited.get(key))}


def _comments(conf: Conf, choice: Choice) -> dict[str, str]:
    if choice.group:
        target = conf.class_of(choice)
        return {key.name: key.comment for key in described(target)} if target else {}
    return {key.name: key.comment for key in described(CLASSES[""])}


def commented(conf: Conf, choice: Choice) -> str:
    """The file's text with its comments up to date."""
    wanted = expected(conf, choice)
    lines = choice.source.splitlines()
    for key, value in choice.own.items():
        bare = (
            lines[value.line].removesuffix(value.comment).rstrip().removesuffix("#").rstrip() if value.comment else ""
        )
        if key in wanted:
            lines[value.line] = f"{bare or lines[value.line].rstrip()}  # {wanted[key]}"
        elif value.comment.startswith("["):  # it was written by this script, and belongs to a file above
            lines[value.line] = bare
    return "\n".join(lines) + "\n"


def main() -> int:
    """Entry point."""
    conf = Conf()
    stale = [(path, text) for path, choice in files() if (text := commented(conf, choice)) != choice.source]
    check = "--check" in sys.argv[1:]
    for path, text in stale:
        print(f"{path}: {'is not up to date: run make comments' if check else 'written'}")
        if not check:
            path.write_text(text, encoding="utf-8")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
