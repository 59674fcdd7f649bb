"""A run in motion: the page holds what slots.csv says, plays in a real browser, and becomes a GIF or MP4 file."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from dtsim.core.progress import QUIET
from dtsim.reporting.runs import ReportError
from dtsim.reporting.watch.command import watch
from dtsim.reporting.watch.pages import packed, page
from dtsim.reporting.watch.scene import Scene, scene
from dtsim.results.seal import read_result, seal
from dtsim.runner import experiment, jobs
from tests.commands import dtsim
from tests.run_folders import write_run

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
in_a_browser = pytest.mark.skipif(BROWSER is None, reason="there is no Chromium")


@pytest.fixture(scope="module")
def run(tiny: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    keys = [
        *tiny,
        "frames=3",
        "slots_per_frame=4",
        "allocator=proportional",
        f"outputs={tmp_path_factory.mktemp('run')}",
    ]
    return experiment.run(jobs.plan(keys).jobs[0].config)


def numbers(text: str, kind: str, shape: tuple[int, int]) -> np.ndarray[Any, Any]:
    return np.frombuffer(base64.b64decode(text), dtype=kind).reshape(shape)


def test_the_page_holds_what_the_slots_say(run: Path) -> None:
    slots = pd.read_csv(run / "slots.csv").sort_values(["slot", "user"])
    shown = packed(scene(run))
    shape = (shown["slots"], shown["users"])
    assert shape == (12, slots["user"].nunique())
    of = {name: slots[name].to_numpy().reshape(shape) for name in slots}
    np.testing.assert_array_equal(numbers(shown["station"], "<u2", shape), of["station"])
    np.testing.assert_allclose(numbers(shown["delay"], "<f4", shape), of["delay_s"], rtol=1e-6)
    np.testing.assert_allclose(numbers(shown["accuracy"], "u1", shape) / 254, of["accuracy"], atol=1 / 254)
    upload, compute = of["upload_bytes"] / of["captured_bytes"], of["compute_flops"] / of["station_flops"]
    np.testing.assert_allclose(numbers(shown["upload"], "u1", shape) / 255, upload, atol=1 / 255)
    np.testing.assert_allclose(numbers(shown["compute"], "u1", shape) / 255, compute, atol=1 / 255)
    retrain = numbers(shown["retrain"], "u1", shape)
    np.testing.assert_array_equal(retrain > 0, of["retrain"] > 0)
    assert (retrain == 2).sum() == (of["retrain"][::4] > 0).sum() > 0  # an update begins in a frame's first slot
    x0, y0, x1, y1 = shown["area"]
    for name, low, size in (("x", x0, x1 - x0), ("y", y0, y1 - y0)):
        place = numbers(shown[name], "<u2", shape) / 65535 * size + low
        np.testing.assert_allclose(place[::4], of[f"{name}_m"][::4], atol=size / 60000)  # at the start of each frame
        here, there = of[f"{name}_m"][0], of[f"{name}_m"][4]
        np.testing.assert_allclose(place[1], here + (there - here) / 4, atol=size / 60000)  # on the way to the next
    one = scene(run)
    np.testing.assert_allclose(one.system_delay_s, slots.groupby("slot")["delay_s"].max())
    assert ((one.load > 0.99) | (one.load == 0)).all()  # all of a BS's compute is shared, where it serves anyone


def test_a_run_that_does_not_say_where_stations_are_has_them_amid_their_users(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    result = {key: value for key, value in read_result(copy).items() if key != "topology"}
    (copy / "result.json").unlink()
    seal(copy, result)
    shown, slots = scene(copy), pd.read_csv(copy / "slots.csv")
    mean = slots.groupby("station")[["x_m", "y_m"]].mean()
    for station, centre in mean.iterrows():
        np.testing.assert_allclose(shown.stations_m[int(str(station))], centre)


def crowd(users: int, slots: int) -> Scene:
    """A large scene; users walk, links change, models are retrained."""
    rng = np.random.default_rng(0)
    walk = np.cumsum(rng.normal(0, 2.0, (slots, users, 2)), axis=0) + rng.uniform(0, 1000, (users, 2))
    retrain = rng.random((slots, users)) < 0.1
    return Scene(
        title="a crowd </script><b>",
        threshold=0.85,
        objective="makespan",
        area_m=(0.0, 0.0, 1000.0, 1000.0),
        stations_m=rng.uniform(100, 900, (8, 2)),
        regions=(2, 2, 0),
        frame=np.arange(slots) // 10,
        position_m=np.clip(walk, 0, 1000),
        station=rng.integers(0, 8, (slots, users)),
        region=rng.integers(0, 4, (slots, users)),
        accuracy=np.where(rng.random((slots, users)) < 0.05, np.nan, rng.uniform(0.5, 1, (slots, users))),
        delay_s=rng.gamma(2.0, 0.02, (slots, users)),
        upload=rng.random((slots, users)),
        compute=rng.random((slots, users)) / users,
        retrain=retrain,
        begins=retrain & (rng.random((slots, users)) < 0.5),
    )


def test_a_large_run_is_a_small_file_that_needs_no_network() -> None:
    text = page(crowd(100, 1000))
    assert len(text.encode()) < 5e6
    assert not re.search(r"(src|href)\s*=|https?://|@import|fetch\(|XMLHttpRequest", text)
    assert "a crowd </script>" not in text and "a crowd &lt;/script&gt;" in text


SAYS = """
<script>
const seen = {errors: []};
// Without a screen there are no frames to animate.
window.requestAnimationFrame = draw => setTimeout(() => draw(performance.now()), 16);
window.onerror = message => seen.errors.push(message);
setTimeout(() => {
  time.value = 7; time.dispatchEvent(new Event("input"));
  seen.when = byId("when").textContent;
  const [x, y] = at(7, 2), box = cell.getBoundingClientRect();
  const where = {clientX: box.left + x, clientY: box.top + y, bubbles: true};
  cell.dispatchEvent(new MouseEvent("mousemove", where));
  seen.tip = [tip.style.visibility, tip.textContent];
  cell.dispatchEvent(new MouseEvent("mouseleave"));
  seen.gone = tip.style.visibility;
  byId("speed").value = "2"; play.click();
  seen.playing = play.textContent;
  setTimeout(() => {
    play.click(); seen.after = Number(time.value); seen.paused = play.textContent;
    document.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
    seen.back = Number(time.value);
    seen.ink = cell.getContext("2d").getImageData(0, 0, cell.width, cell.height).data.some(v => v > 0);
    document.title = "SEEN" + JSON.stringify(seen);
  }, 1500);
}, 50);
</script>
"""


def browsed(html: Path, profile: Path) -> str:
    """The document that Chromium makes of `html`, without network, and what its console says."""
    assert BROWSER
    options = [
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
        *("--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"),
    ]
    own = (f"--user-data-dir={profile}", "--window-size=1100,900", "--virtual-time-budget=9000", "--dump-dom")
    done = subprocess.run([BROWSER, *options, *own, html.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr, done.stderr
    return done.stdout


@in_a_browser
def test_it_plays_in_a_browser(run: Path, tmp_path: Path) -> None:
    html = tmp_path / "page.html"
    html.write_text(page(scene(run)).replace("</body>", SAYS + "</body>"))
    found = re.search(r"<title>SEEN(.*?)</title>", browsed(html, tmp_path / "profile"))
    assert found
    seen = json.loads(found[1].replace("&amp;", "&"))
    slots = pd.read_csv(run / "slots.csv")
    now = slots[slots["slot"] == 7]
    assert seen["errors"] == []
    assert seen["when"].startswith("frame 1, slot 7 of 12: system delay ")
    delay_ms = float(re.search(r"delay ([\d.]+) ms", seen["when"])[1]) / 1e3  # type: ignore[index]
    assert delay_ms == pytest.approx(now["delay_s"].max(), rel=0.01)
    user = now[now["user"] == 2].iloc[0]
    assert seen["tip"][0] == "visible" and seen["gone"] == "hidden"
    assert seen["tip"][1].startswith(f"user 2, BS {user['station']}, region {user['region']}\n")
    assert f"accuracy {round(100 * user['accuracy'])} %" in seen["tip"][1]
    assert (seen["playing"], seen["paused"]) == ("Pause", "Play")
    assert seen["after"] in (9, 10) and seen["after"] - 1 <= seen["back"] <= seen["after"]  # after 1.5 s
    assert seen["ink"]


@pytest.mark.slow
def test_a_gif_moves(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "new" / "run.gif"
    watch(run, html=None, gif=file, mp4=None, per_second=20.0, progress=QUIET)
    with Image.open(file) as picture:
        assert (picture.n_frames, picture.info["duration"]) == (12, 50)  # type: ignore[attr-defined]
        first = np.asarray(picture.convert("RGB"))
        picture.seek(6)
        assert (np.asarray(picture.convert("RGB")) != first).any()


@pytest.mark.slow
def test_an_mp4_is_a_video(run: Path, tmp_path: Path) -> None:
    reader = pytest.importorskip("imageio_ffmpeg")
    file = tmp_path / "run.mp4"
    watch(run, html=None, gif=None, mp4=file, per_second=10.0, progress=QUIET)
    frames, seconds = reader.count_frames_and_secs(str(file))
    assert (frames, seconds) == (12, pytest.approx(1.2, abs=0.1))


def test_the_command(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = dtsim("watch", run)
    assert done.returncode == 0 and done.stdout.strip() == "written: watch.html"
    assert (tmp_path / "watch.html").read_text().startswith("<!doctype html>")
    for arguments, said in (
        (("watch", tmp_path), "there is no result under it"),
        (("watch", tmp_path / "none"), "there is no such folder"),
        (("watch", run, "--per-second", "0"), "per-second=0: must be from 0.1 to 50"),
        (("watch", run, "--html", "/dev/null/x.html"), "/dev/null"),
    ):
        failed = dtsim(*arguments)
        assert failed.returncode == 2, failed
        assert (
            said in failed.stderr and len(failed.stderr.strip().splitlines()) == 1 and "Traceback" not in failed.stderr
        )


def test_one_run_must_be_named(tmp_path: Path) -> None:
    for seed in range(2):
        write_run(tmp_path, seed=seed)
    with pytest.raises(ReportError, match="must hold one finished run, holds 2"):
        watch(tmp_path, html=None, gif=None, mp4=None, per_second=10.0, progress=QUIET)
