"""The documentation: every equation that code cites is there, every key and column is described, formulas convert."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import markdown
import pytest
from mkdocs.exceptions import PluginError

from dtsim.results.queue_columns import PASSING
from dtsim.results.schema import SCHEMAS
from scripts import docs_hooks, docs_keys
from scripts.docs_math import FormulaError, MathExtension, mathml

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").rglob("*.md"))
# "eq. (7)", "eqs. (3)-(7), (10)", "equations (3)-(7) and (10)"
CITATION = re.compile(r"\b(?:eqs?\.|equations?)\s+(\(\d+\)(?:(?:\s*[-–,]\s*|\s+and\s+|,\s+and\s+|\s+to\s+)\(\d+\))*)")
RANGE = re.compile(r"\((\d+)\)(?:\s*(?:-|–|to)\s*\((\d+)\))?")


def cited(text: str) -> set[int]:
    """Numbers of the equations that `text` cites."""
    numbers: set[int] = set()
    for group in CITATION.findall(" ".join(text.split())):
        for first, last in RANGE.findall(group):
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


def rendered(text: str) -> str:
    options: dict[str, dict[str, Any]] = {"pymdownx.arithmatex": {"generic": True, "smart_dollar": True}}
    extensions = ["tables", "attr_list", "md_in_html", "def_list", "pymdownx.superfences", "pymdownx.arithmatex"]
    return markdown.markdown(text, extensions=[*extensions, MathExtension()], extension_configs=options)


def test_citations_are_read() -> None:
    assert cited("see eq. (7); eqs. (3)-(5), (10) and equations (12) and (14)") == {3, 4, 5, 7, 10, 12, 14}
    assert cited("a list (3) of things, from (1) to (2)") == set()


def test_every_equation_that_code_cites_is_numbered_in_the_model() -> None:
    code = [*(ROOT / "dtsim").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    found = {path: cited(path.read_text()) for path in code}
    assert len(set().union(*found.values())) > 12
    anchors = {int(n) for n in re.findall(r'id="eq-(\d+)"', rendered((ROOT / "docs" / "model.md").read_text()))}
    missing = {str(path.relative_to(ROOT)): numbers - anchors for path, numbers in found.items() if numbers - anchors}
    assert not missing, f"docs/model.md lacks equations: {missing}"
    assert anchors == set(range(1, 20)), "the paper's numbers"


@pytest.mark.parametrize("page", [page for page in DOCS if "$" in page.read_text()], ids=lambda page: page.stem)
def test_every_formula_is_typeset(page: Path) -> None:
    html = re.sub(r"<(code|pre)\b.*?</\1>", "", rendered(page.read_text()), flags=re.DOTALL)
    assert "<math" in html
    assert "\\" not in html and "$" not in html


def test_a_formula_that_cannot_be_typeset_fails() -> None:
    with pytest.raises(FormulaError, match="does not know"):
        mathml(r"x \nosuchcommand y", display=False)
    with pytest.raises(FormulaError, match="does not know &"):
        mathml(r"\begin{aligned} x &= y \end{aligned}", display=True)


def test_links_to_equations_are_made_in_prose_and_nowhere_else() -> None:
    linked = docs_hooks._CITED.sub(lambda found: docs_hooks._linked(found, "model.html"), "by eqs. (3)-(5), (10)")
    assert linked.count('<a href="model.html#eq-') == 3
    assert docs_hooks._CITED.search("f(3) of (4)") is None


def test_symbols_of_docstrings_become_formulas_and_names_do_not() -> None:
    assert docs_hooks.symbols("D_k^up, byte") == r"$D_{k}^\mathrm{up}$, byte"
    assert docs_hooks.symbols("A_k(t) = correct / images") == "$A_{k}(t)$ = correct / images"
    assert docs_hooks.symbols("`channel.tx_dbm`, upload_delay_s, a key=b_c") == (
        "`channel.tx_dbm`, upload_delay_s, a key=b_c"
    )


def test_every_key_of_every_choice_is_described_with_what_it_may_be() -> None:
    pages = {group: docs_keys.group_section(group) for group in docs_keys.groups()}
    pages["top"] = docs_keys.top_level()
    assert set(re.findall(r"^<!-- keys: (\S+) -->$", (ROOT / "docs" / "keys.md").read_text(), re.M)) == set(pages)
    assert {"channel", "twin/predictor", "experiment", "hydra/launcher"} < set(pages)
    shown = 0
    for group, page in pages.items():
        for choice in docs_keys.choices(group) if group != "top" else []:
            assert f"| `{choice.name}`" in page
            assert choice.about, f"conf/{group}/{choice.name}.yaml must begin with a comment that says what it is"
            for key in docs_keys.keys_of(choice):
                name = f"{group.replace('/', '.')}.{key.name}"
                assert f"| `{name}` |" in page
                assert key.description and docs_keys.allowed(key), f"{name} of {choice.name} is not described"
                shown += 1
    assert shown > 200
    assert "| `channel.bandwidth_hz` | Hz | number, 1 to 1e12 | `20.0e6` | " in pages["channel"]
    assert "| `channel.fading` | – | `rayleigh`, `rician`, `none` | `rayleigh` | " in pages["channel"]
    assert "| `rotation` | " in pages["drift"] and "`rotation_deg=15.0`" in pages["drift"]
    assert "| `mu` | – | whole number, ≥\u00a01 | `20` | " in pages["top"]
    assert "list of pairs of numbers" in pages["topology"]


def test_every_column_of_every_file_is_on_the_page() -> None:
    asked = set(re.findall(r"^<!-- columns: (\S+) -->$", (ROOT / "docs" / "results.md").read_text(), re.M))
    assert asked == {*SCHEMAS, *PASSING, "all"}
    for file, columns in {**SCHEMAS, **PASSING}.items():
        page = docs_hooks.columns(file) + docs_hooks.columns("all")
        assert all(f"| `{name}` | " in page for name in columns)
    assert "| `rate_bps` | bit/s | uplink rate to its BS, eq. (2) |" in docs_hooks.columns("slots.csv")
    assert "| `kl` | nat | " in docs_hooks.columns("frames.csv")


def test_a_group_without_a_place_on_the_page_fails() -> None:
    with pytest.raises(PluginError, match=r"keys.md: .*'allocator'.* are missing, \['magic'\] do not exist"):
        docs_hooks.filled("<!-- keys: magic -->", "keys.md")


def test_every_command_is_on_its_page() -> None:
    page = docs_hooks.commands()
    for command in ("dtsim run", "dtsim report", "dtsim bench twin"):
        assert f"## `{command}`" in page
    assert "| `--baseline` | " in page


def test_decision_records_are_short_and_say_what_why_and_what_follows() -> None:
    records = sorted((ROOT / "docs" / "decisions").glob("0*.md"))
    assert len(records) > 12
    for number, record in enumerate(records, start=1):
        text = record.read_text()
        assert record.name.startswith(f"{number:04d}-") and text.startswith(f"# {number:04d}. ")
        assert 5 <= len(text.splitlines()) <= 15, record.name
        assert [text.count(part) for part in ("**Decision.**", "**Why.**", "**What follows.**")] == [1, 1, 1]
        assert f"]({record.name})" in docs_hooks.decisions()


@pytest.mark.slow
def test_the_site_is_built_strictly_and_asks_no_other_machine(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert len(pages) > 40
    for name, html in pages.items():
        loaded = re.findall(r'<(?:script|link|img|iframe)\b[^>]*?(?:src|href)="(https?:)?//[^"]*"', html)
        assert not loaded, name
    assert 'id="eq-19"' in pages["model.html"] and "<math" in pages["model.html"]
    assert re.search(r'eqs\. <a href="../model.html#eq-3">\(3\)</a>', pages["api/allocation.html"])
    assert "channel.bandwidth_hz" in pages["keys.html"] and "objective_optimum_s" in pages["results.html"]


@pytest.mark.slow
def test_the_source_distribution_holds_documentation_and_changelog(tmp_path: Path) -> None:
    source = tmp_path / "source"  # as it is committed: what lies about in the tree must not get in
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if files.returncode:
        pytest.skip("needs the repository")
    for name in filter(None, files.stdout.split("\0")):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (archive,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    wanted = [
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "mkdocs.yml",
        "docs/model.md",
        "docs/decisions/index.md",
    ]
    wanted += [
        "docs/assets/loop.svg",
        "conf/config.yaml",
        "tests/test_docs.py",
        "scripts/docs_hooks.py",
        "constraints.txt",
    ]
    assert set(wanted) <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith((".venv", "build", "outputs"))]
