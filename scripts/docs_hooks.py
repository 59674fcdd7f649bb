"""What MkDocs does beyond Markdown: typeset formulas, pages made from the code, and files from outside of docs/."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from mkdocs.utils import get_relative_url

from dtsim.cli.app import app
from dtsim.results.queue_columns import PASSING
from dtsim.results.schema import OWN, SCHEMAS
from scripts import docs_keys
from scripts.docs_math import MathExtension

ROOT = Path(__file__).resolve().parents[1]
COPIED = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
FIGURES = (
    *("fig2c-usual.png", "fig2c-generator.amount-kl.png"),
    *("map-head-single_timescale.png", "map-head_at_model_price-single_timescale.png"),
    *("race-queues.png", "race-stale.png"),
)
_PLACE = re.compile(r"^<!-- (keys|columns|decisions|commands)(?:: (\S+))? -->$", re.MULTILINE)
_DECISION = re.compile(r"^\*\*Decision\.\*\* (.+?)\n\n", re.MULTILINE | re.DOTALL)
_SYMBOL = re.compile(r"(?<![\w.$`=])([A-Za-z])(?=[_^])(?:_([a-z]{1,5}))?(?:\^([a-z]{2,4}))?(\([nt]\))?(?![\w=])")
_CITED = re.compile(r"\b(eqs?\.|equations?) (\(\d+\)(?:(?:, | and | to |-|–)\(\d+\))*)")
_NUMBER = re.compile(r"\((\d+)\)")
_UNITS = ("bit/s", "FLOP/s", "FLOP/byte", "FLOP", "byte", "nat", "dB", "m", "s")


def on_config(config: MkDocsConfig) -> None:
    """Let Markdown typeset formulas."""
    extensions: list[Any] = config.markdown_extensions
    extensions.append(MathExtension())


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Add the pages and figures that are kept elsewhere in the repository."""
    for page, source in COPIED.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        files.append(File.generated(config, page, content=text))
    verdict = "# Verdict in full\n\n" + _VERDICT + (ROOT / "reproduce" / "verdict.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "verdict.md", content=verdict))
    for name in FIGURES:
        files.append(File.generated(config, f"reproduce/{name}", abs_src_path=str(ROOT / "reproduce" / name)))


_VERDICT = """\
Every claim of the paper as `make reproduce` judged it, with every setting and number of MUs in which the verdict is
another one. [Reproducing the paper](reproduction.md) says how claims are measured and judged.

"""


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in what is made from the code."""
    return filled(markdown, page.file.src_uri)


def filled(markdown: str, page: str) -> str:
    """The text of `page` with what is made from the code in its places.

    Raises:
        PluginError: where the page of keys or of columns has no place for one, or a place for none.
    """
    asked: dict[str, set[str]] = {}
    for what, of in _PLACE.findall(markdown):
        asked.setdefault(what, set()).add(of)
    for what, there in (("keys", {*docs_keys.groups(), "top"}), ("columns", {*SCHEMAS, *PASSING, "all"})):
        if what in asked and asked[what] != there:
            raise PluginError(
                f"{page}: must have a place for all {what}: {sorted(there - asked[what])} are missing, "
                f"{sorted(asked[what] - there)} do not exist"
            )
    return _PLACE.sub(lambda place: _made(place[1], place[2] or ""), markdown)


def symbols(text: str) -> str:
    """`text` of a docstring with its symbols, such as D_k^up, as formulas."""
    text = text.replace("max_k ", "$\\max_k$ ").replace("KL(P || Q)", r"$\mathrm{KL}(P \,\Vert\, Q)$")
    return _SYMBOL.sub(lambda found: f"${_tex(*found.groups())}$", text)


def _tex(base: str, below: str | None, above: str | None, of: str | None) -> str:
    if below and not set(below) <= set("kmnt"):  # a word, no index
        below = rf"\mathrm{{{below}}}"
    tex = base + (f"_{{{below}}}" if below else "") + (rf"^\mathrm{{{above}}}" if above else "")
    return tex + (of or "")


def _made(what: str, of: str) -> str:
    if what == "keys":
        return symbols(docs_keys.top_level() if of == "top" else docs_keys.group_section(of))
    if what == "columns":
        return columns(of)
    return decisions() if what == "decisions" else commands()


def columns(file: str) -> str:
    """A Markdown table of the columns of a file of a run."""
    known = {**SCHEMAS, **PASSING}
    found = OWN if file == "all" else {name: said for name, said in known[file].items() if name not in OWN}
    rows = ["| column | unit | meaning |", "| --- | --- | --- |"]
    for name, said in found.items():
        text, unit = _unit(said)
        rows.append(f"| `{name}` | {unit or '–'} | {_cell(symbols(text))} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _unit(said: str) -> tuple[str, str]:
    """A description without its unit, which it ends with, and the unit."""
    for unit in _UNITS:
        for end in (f", {unit}", f", {unit} ("):
            head, found, tail = said.rpartition(end)
            if found and (not tail or end.endswith("(")):
                return head + (f" ({tail}" if tail else ""), unit
    return said, ""


def decisions() -> str:
    """A Markdown table of the decision records."""
    rows = ["| | decision | in short |", "| --- | --- | --- |"]
    for file in sorted((ROOT / "docs" / "decisions").glob("0*.md")):
        text = file.read_text(encoding="utf-8")
        number, _, title = text.partition("\n")[0].removeprefix("# ").partition(". ")
        short = _DECISION.search(text)
        if short is None:
            raise PluginError(f"decisions/{file.name}: must have a paragraph that begins with **Decision.**")
        rows.append(f"| {number} | [{title}]({file.name}) | {' '.join(short[1].split())} |")
    return "\n".join(rows)


def commands() -> str:
    """Every command of `dtsim` with its options."""
    blocks: list[str] = []
    _document(typer.main.get_command(app), "dtsim", blocks)
    return "\n\n".join(blocks)


def _document(command: Any, name: str, blocks: list[str]) -> None:
    for verb, own in getattr(command, "commands", {}).items():
        if hasattr(own, "commands"):
            _document(own, f"{name} {verb}", blocks)
            continue
        blocks.append(f"## `{name} {verb}`")
        blocks.append(" ".join((own.help or "").split()))
        rows = ["| | default | meaning |", "| --- | --- | --- |"]
        for parameter in own.params:
            if parameter.name == "help":
                continue
            says = (getattr(parameter, "help", None) or "").replace("|", "\\|")
            default = "" if parameter.default in (None, "", False) else f"`{parameter.default}`"
            shown = parameter.opts[0] if parameter.opts[0].startswith("-") else (parameter.metavar or parameter.name)
            rows.append(f"| `{shown}` | {default or '–'} | {says} |")
        if len(rows) > 2:
            blocks.append("\n".join(rows))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Let every "eq. (n)" in a page, docstrings included, lead to the equation."""
    model = files.get_file_from_path("model.md")
    if model is None or page.file.src_uri == "changelog.md":
        return html
    target = "" if page.file is model else get_relative_url(model.url, page.url)
    pieces = re.split(r"(<[^>]+>)", html)
    depth = 0  # within an element whose text is no prose
    for place, piece in enumerate(pieces):
        if re.match(r"<(a|code|pre|math)\b", piece):
            depth += 1
        elif re.match(r"</(a|code|pre|math)>", piece):
            depth -= 1
        elif not depth and not piece.startswith("<"):
            pieces[place] = _CITED.sub(lambda found: _linked(found, target), piece)
    return "".join(pieces)


def _linked(found: re.Match[str], target: str) -> str:
    numbers = _NUMBER.sub(lambda number: f'<a href="{target}#eq-{number[1]}">({number[1]})</a>', found[2])
    return f"{found[1]} {numbers}"
