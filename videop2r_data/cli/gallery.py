"""`p2r-data gallery`: one page to look at a data set, and to mark it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from videop2r_data.cli.common import (
    BaseOpt,
    JsonOpt,
    WorkOpt,
    err_console,
    errors_as_messages,
    shell,
    show,
)
from videop2r_data.cli.terminal import say
from videop2r_data.errors import ConfigError, P2RError

if TYPE_CHECKING:
    from rich.console import Console

    from videop2r_data.builders import Parts, Result, Workspace
    from videop2r_data.cards.gallery import FramesOf, Gallery, GalleryReport
    from videop2r_data.files import Release
    from videop2r_data.schemas import Focus

FolderArg = Annotated[Path, typer.Argument(help="A data set: the folder that p2r-data build wrote.")]
OutOpt = Annotated[
    Path | None,
    typer.Option("--out", metavar="DIR", help="Folder of the page; default: the data set's with .gallery."),
]
VerdictsOpt = Annotated[
    Path | None,
    typer.Option("--verdicts", metavar="FILE", help="verdicts.jsonl of judge-eval: shown beside the labels."),
]
MediaOpt = Annotated[
    list[str] | None,
    typer.Option(
        "--media",
        metavar="[NAME=]DIR",
        help="Media root, of source NAME or of all; default: where the build found them. Repeatable.",
    ),
]
CopyOpt = Annotated[
    bool, typer.Option("--copy-media", help="Copy the clips beside the page: the folder can then be moved.")
]
FramesOpt = Annotated[
    int,
    typer.Option(
        "--frames",
        min=0,
        max=640,
        metavar="PIXELS",
        help="Put small pictures of the sampled frames into the page, their longer side so long; 0: none.",
    ),
]
LimitOpt = Annotated[
    int, typer.Option("--limit", min=1, metavar="N", help="Rows at most; of more an even share is shown.")
]
ServeOpt = Annotated[
    bool, typer.Option("--serve", help="Serve page and clips to this machine until Ctrl-C, too.")
]
PortOpt = Annotated[
    int, typer.Option("--port", min=0, max=65535, metavar="N", help="For --serve; 0: a free one.")
]


def gallery(
    folder: FolderArg,
    out: OutOpt = None,
    verdicts: VerdictsOpt = None,
    media: MediaOpt = None,
    copy_media: CopyOpt = False,
    frames: FramesOpt = 0,
    limit: LimitOpt = 10_000,
    serve: ServeOpt = False,
    port: PortOpt = 0,
    work: WorkOpt = None,
    base: BaseOpt = None,
    json: JsonOpt = False,
) -> None:
    """Write one page with every sample: clip, question, trace and verdicts, to search, to compare, to mark.

    Nothing is loaded from elsewhere, and what models and data sets wrote stays text. Marks are exported as
    the labels that p2r-data judge-eval reads.
    """
    from rich.progress import Progress

    from videop2r_data.cards.gallery import make_gallery, read_verdicts, write_gallery
    from videop2r_data.files import open_release

    release = open_release(folder)
    named = folder if folder.name not in ("", "..") else folder.resolve()
    target = out or named.with_name(f"{named.name}.gallery")
    _keep_apart(folder, target)
    place = _workspace(folder, work, base)
    with Progress(console=err_console(), transient=True) as progress:
        task = progress.add_task("gallery", total=None)
        made = make_gallery(
            release,
            target,
            roots=_noted_roots(release, place) | _named_roots(media or ()),
            limit=limit,
            verdicts=read_verdicts(verdicts) if verdicts is not None else (),
            copy_media=copy_media,
            sheets=frames,
            frames_of=_journaled(release, place),
            tell=lambda what, done, total: progress.update(
                task, description=what, completed=done, total=total
            ),
        )
    show(write_gallery(made, target), _render, as_json=json)
    if serve:
        with errors_as_messages():  # the JSON document was printed
            _serve(made, port)


def write_first(results: Sequence[Result], parts: Parts) -> None:
    """Write a page of rows of a build that is under way into its work folder."""
    from videop2r_data.builders import rejected_row, sft_row
    from videop2r_data.cards.gallery import entry_of, gallery_of, write_gallery
    from videop2r_data.schemas import Outcome, digest

    recipe, out, entries = parts.recipe, parts.place.work / "gallery", []
    for at, result in enumerate(results):
        config, row_of = ("sft", sft_row) if result.outcome is Outcome.KEPT else ("rejected", rejected_row)
        row = row_of(result, synthetic=recipe.synthetic, extra=recipe.extra)
        entries.append(entry_of(row, config, at, recipe.trace))
    title = f"{recipe.title or recipe.name}: the first rows"
    # the digest is that of the folder: the page grows, and its marks stay
    about = {"name": recipe.name, "title": title, "digest": digest(str(out)), "total": len(entries)}
    write_gallery(gallery_of(about, entries, out, roots=parts.roots, grammar=recipe.trace), out)


def _keep_apart(folder: Path, target: Path) -> None:
    """Refuse a page inside the data set: a build replaces that folder, and a push uploads all of it."""
    if target.resolve().is_relative_to(folder.resolve()):
        raise ConfigError(
            "the page may not lie in the data set", where=str(target), hint="choose another --out"
        )


def _workspace(folder: Path, work: Path | None, base: Path | None) -> Workspace | None:
    from videop2r_data.builders import Workspace

    try:
        return Workspace.of(folder, work=work, base=base)
    except ConfigError:
        if work is not None:
            raise
        return None  # pulled, or its work folder is gone: rows without clips are still worth a look


def _noted_roots(release: Release, place: Workspace | None) -> dict[str, Path]:
    """Source name -> media root of the build; sources that cannot be opened any more are left out."""
    from videop2r_data.builders.sources import is_hub_id, open_source
    from videop2r_data.files import locate, noted_root
    from videop2r_data.schemas import SourceSpec

    found: dict[str, Path] = {}
    if release.lock is None or place is None:
        return found
    for source in release.lock.recipe["sources"]:
        spec = SourceSpec.model_validate(source)
        noted = noted_root(source, place.work, place.base)
        if noted is not None and spec.kind != "demo":
            found[spec.name] = noted
            continue  # the pool itself may be gone
        try:
            if spec.kind == "dataset" and is_hub_id(spec, locate(spec.path, place.base)):
                continue  # opening it would go to the network
            root = open_source(spec, base=place.base, demo_root=place.demo).media_root
        except P2RError:
            continue
        if root is not None:
            found[spec.name] = root
    return found


def _named_roots(media: Sequence[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for item in media:
        name, equals, rest = item.partition("=")
        path = Path(rest if equals else item)
        if not path.is_dir():
            raise ConfigError("no such folder", where=str(path), hint="give --media DIR or --media NAME=DIR")
        found[name if equals else ""] = path
    return found


def _journaled(release: Release, place: Workspace | None) -> FramesOf:
    """A lookup of sampled frames in the build's journal; rows of config `rejected` do not hold them."""
    if release.lock is None or place is None:
        return lambda source, path, focus, kind: None
    from videop2r_data.backends import Journal
    from videop2r_data.builders import MediaStep
    from videop2r_data.schemas import DataType, part_fault

    recipe = release.lock.read_recipe()
    journal = Journal(place.journal, readonly=True)
    step = MediaStep(recipe.media, journal=journal, roots={}, sampler=None)

    def look_up(
        source: str, path: str, focus: Focus, kind: str
    ) -> tuple[Sequence[int], Sequence[float]] | None:
        """Numbers and times of the frames that the journal holds of a clip; None: it holds none."""
        if kind not in ("image", "video") or part_fault(*focus.part, DataType(kind)):
            return None
        key = step.key_of(source, path, DataType(kind), focus)
        record: dict[str, Any] = (journal.media(key) or {}).get("record") or {}
        indices, times = record.get("indices"), record.get("times_s")
        return (indices, times) if indices and times and len(indices) == len(times) else None

    return look_up


def _render(report: GalleryReport, console: Console) -> None:
    console.print(
        f"[bold]{report.shown:,}[/] of {report.rows:,} rows, {report.clips:,} clips", highlight=False
    )
    notes = {
        f"{report.clips_missing:,} clips are not here: name their folder with --media": report.clips_missing,
        f"{report.copied_bytes / 1e6:,.1f} MB of clips lie beside the page": report.copied_bytes,
        f"the sampled frames of {report.sheets:,} clips stand in the page": report.sheets,
        f"{report.judged:,} rows with verdicts, {report.disagreements:,} with a disagreement": report.judged,
        f"{report.unmatched:,} labels speak of words that no row of the page has": report.unmatched,
    }
    for note, count in notes.items():
        if count:
            console.print(f"  {note}", soft_wrap=True, markup=False)
    console.print(f"page: {shell(report.page)} ({report.bytes / 1e6:.1f} MB)", soft_wrap=True, markup=False)


def _serve(made: Gallery, port: int) -> None:
    from videop2r_data.cards.gallery import GalleryServer

    with GalleryServer(made.page(served=True), made.clips, port=port) as server:
        say(f"serving at {server.url} (Ctrl-C ends it)", err=True)  # with -q too: nobody else knows it
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
