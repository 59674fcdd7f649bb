"""The `dtsim watch` command: a finished run as a page that plays it, and as a GIF or MP4 file."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from dtsim.core.progress import Progress
from dtsim.reporting.runs import ReportError, folders, read
from dtsim.reporting.watch.scene import scene


def watch(
    run: Path, *, html: Path | None, gif: Path | None, mp4: Path | None, per_second: float, progress: Progress
) -> None:
    """Write the files asked for; the page `watch.html` if none is.

    Args:
        run: a folder with one finished run at any depth.
        html: a file for the page.
        gif: a file for an animated GIF.
        mp4: a file for an MP4 video.
        per_second: pictures a second of GIF and MP4.
        progress: shows how many pictures are drawn.

    Raises:
        ReportError: if there is not exactly one finished run, or a file cannot be written.
    """
    if not 0.1 <= per_second <= 50:
        raise ReportError(f"per-second={per_second:g}: must be from 0.1 to 50")
    runs, failures = read(folders(run))
    if len(runs) != 1:
        first = (
            [str(folder) for folder in runs["folder"][:3]] if len(runs) else [f"{k}: {v}" for k, v in failures.items()]
        )
        raise ReportError(f"RUN={str(run)!r}: must hold one finished run, holds {len(runs)} ({'; '.join(first[:3])})")
    shown = scene(Path(runs["folder"].iloc[0]))
    if html is None and gif is None and mp4 is None:
        html = Path("watch.html")
    written: list[Path] = []
    try:
        if html is not None:
            from dtsim.reporting.watch.pages import page

            html.parent.mkdir(parents=True, exist_ok=True)
            html.write_text(page(shown), encoding="utf-8")
            written.append(html)
        for file, ending in ((gif, "gif"), (mp4, "mp4")):
            if file is not None:
                from dtsim.reporting.watch import movie

                file.parent.mkdir(parents=True, exist_ok=True)
                with progress.phase(f"pictures of {file.name}", min(shown.slots, movie.MOST_PICTURES)) as phase:
                    write = movie.write_gif if ending == "gif" else movie.write_mp4
                    write(shown, file, per_second, lambda done, of: phase.advance())
                written.append(file)
    except OSError as error:
        raise ReportError(f"{error.filename}: cannot be written ({error.strerror})") from None
    console = Console()
    for file in written:
        console.print(f"written: {file}", highlight=False, soft_wrap=True, markup=False)
