"""The page: what is in it, and that it works in a browser without a network."""

import html.parser
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.run_folders import write_run
from tests.test_reporting_command import dtsim

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome on the PATH")


@pytest.fixture(scope="module")
def page(many_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    failed = write_run(many_runs, "proposed", mu=9, seed=7)
    (failed / "failed").write_text("Traceback\nDatasetError: <b>train & test</b> are cut\n")
    done = dtsim("report", many_runs, "--html", root / "report.html")
    shutil.rmtree(failed)
    assert done.exit_code == 0, done.output
    return root / "report.html"


class Tags(html.parser.HTMLParser):
    """Counts tags and keeps their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, {name: value or "" for name, value in attributes}))

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name == tag]


def test_the_page_is_whole_and_accessible(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    tags = Tags(text)
    assert len(tags.all("img")) == 7
    assert all(image["src"].startswith("data:image/svg+xml;base64,") for image in tags.all("img"))
    assert all(len(image["alt"]) > 60 for image in tags.all("img"))
    assert all(head["scope"] == "col" for head in tags.all("th"))
    assert len(tags.all("caption")) == len(tags.all("table")) == 8
    assert tags.all("html") == [{"lang": "en"}]
    for said in (
        "Against single_timescale",
        "Break-outs</h2>",
        "Configuration",
        "Versions",
        "torch",
    ):
        assert said in text
    assert "DatasetError: &lt;b&gt;train &amp; test&lt;/b&gt; are cut" in text  # as text, never as tags
    assert not re.search(r"(src|href)=[\"'](?!data:|#)|url\(|@import|https?://", re.sub(r"base64,[\w+/=]+", "", text))


def test_what_differs_comes_first_and_the_contents_lead_everywhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    titles = dict(re.findall(r'<section id="([^"]+)">\s*<h2>([^<]+)</h2>', text))
    nav = text[text.index("<nav") : text.index("</nav>")]
    assert dict(re.findall(r'<a href="#([^"]+)">([^<]+)</a>', nav)) == titles and len(titles) > 12
    assert next(iter(titles.values())) == "What differs between the runs"
    first = text[text.index("What differs between the runs</h2>") : text.index("</section>")]
    assert re.findall(r'<td class="text" data-key="([^"]+)"', first)[:2] == [
        "scheme", "proposed (5); single_timescale (5); without_il (5)"
    ]  # fmt: skip


def test_the_page_says_what_the_terminal_and_the_csv_say(many_runs: Path, tmp_path: Path) -> None:
    asked = ("--by", "scheme", "--baseline", "without_il", "--csv", tmp_path / "by.csv")
    done = dtsim("report", many_runs, *asked, "--html", tmp_path / "by.html")
    assert done.exit_code == 0, done.output
    ratio = re.findall(r"\d\.\d{3} \[\d\.\d{3}, \d\.\d{3}\]", done.stdout)
    text = (tmp_path / "by.html").read_text(encoding="utf-8")
    assert len(ratio) == 2 and all(f">{one}<" in text for one in ratio)
    assert text.count(">baseline<") == 6  # its ratio and differences, with their p
    table = pd.read_csv(tmp_path / "by.csv")
    measured = table[(table["metric"] == "system_delay_mean_s") & table["ratio"].notna()]
    assert sorted(f"{one:.3f}" for one in measured["ratio"]) == sorted(one.split()[0] for one in ratio)


def test_print_cuts_no_table(page: Path) -> None:
    style = re.search(r"@media print \{(.*?)\n\}", page.read_text(encoding="utf-8"), re.DOTALL)
    assert style
    for rule in (".wide { overflow: visible; }", "thead { display: table-header-group; }", "break-inside: avoid"):
        assert rule in style[1]
    assert re.search(r"th, td, td\.text \{[^}]*white-space: normal", style[1])


def test_keys_that_differ_are_marked(page: Path) -> None:
    rows = re.findall(r'<tr( class="differs")?><td[^>]*>([^<]+)</td>', page.read_text())
    marked = {key for mark, key in rows if mark}
    assert {"scheme.retrain", "scheme.training"} <= marked
    assert "channel.bandwidth_hz" not in marked


def dom(file: Path, folder: Path, *options: str) -> str:
    """The page as the browser has it once its scripts have run."""
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    assert BROWSER
    command = [BROWSER, *quiet, f"--user-data-dir={folder}", *options, "--dump-dom", file.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "</html>" in done.stdout, done.stderr
    return done.stdout


SEEN = re.compile(r'<pre id="seen">(.*?)</pre>')


def left(text: str) -> Any:
    """What a script left in the page."""
    (seen,) = SEEN.findall(text)
    return json.loads(html.unescape(seen))


# Clicks the delay's header twice and leaves the order of the column after each click.
CLICKS = """<script>
const tables = [...document.querySelectorAll("table")];
const table = tables.find((one) => one.tHead.textContent.includes("delay")), heads = [...table.tHead.rows[0].cells];
const place = heads.findIndex((head) => head.textContent.includes("delay")), seen = [];
for (let click = 0; click < 2; click++) {
  heads[place].querySelector("button").click();
  const cells = [...table.tBodies[0].rows].map((row) => row.cells[place].textContent);
  seen.push({sort: heads[place].getAttribute("aria-sort"), cells});
}
const note = document.createElement("pre"); note.id = "seen"; note.textContent = JSON.stringify(seen);
document.body.append(note);
</script></body>"""


@needs_browser
def test_a_click_sorts_in_a_browser(page: Path, tmp_path: Path) -> None:
    clicked = tmp_path / "clicked.html"
    clicked.write_text(page.read_text().replace("</body>", CLICKS))
    seen = left(dom(clicked, tmp_path))
    assert [click["sort"] for click in seen] == ["ascending", "descending"]
    up, down = ([float(cell.split(" ")[0].replace(",", "")) for cell in click["cells"]] for click in seen)
    assert len(set(up)) > 1
    assert up == sorted(up)
    assert down == sorted(up, reverse=True)


# Leaves what the page itself asked for, failed or not; a browser's own requests are not among it.
ASKED = """<script>
addEventListener("load", () => {
  const note = document.createElement("pre"); note.id = "seen";
  note.textContent = JSON.stringify(performance.getEntriesByType("resource").map((entry) => entry.name));
  document.body.append(note);
});
</script></body>"""


@needs_browser
def test_a_browser_asks_nothing_of_the_network(page: Path, tmp_path: Path) -> None:
    # Its own policy forbids requests: here without it, and with an image from elsewhere as the control.
    bare = re.sub(r"<meta http-equiv[^>]*>", "", page.read_text()).replace("</body>", ASKED)
    elsewhere = "http://127.0.0.1:9/x.png"
    asked = {}
    for name, text in (("page", bare), ("control", bare.replace("<main>", f'<main><img src="{elsewhere}">'))):
        (tmp_path / f"{name}.html").write_text(text)
        asked[name] = left(dom(tmp_path / f"{name}.html", tmp_path / name))
    assert asked == {"page": [], "control": [elsewhere]}
