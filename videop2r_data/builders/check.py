"""Look at all that a build needs before anything is spent: rows, media, settings, folders, servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from videop2r_data.builders.check_report import CheckReport
from videop2r_data.builders.check_tally import OnBad, OnFile, Tally
from videop2r_data.builders.findings import DoctorReport, no_error
from videop2r_data.builders.server_look import Calls, look_at_servers
from videop2r_data.builders.setup_look import look_at_setup
from videop2r_data.builders.sources import open_source
from videop2r_data.builders.trial_rows import TrialRows
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import MediaError, P2RError
from videop2r_data.files.media_roots import resolve_media
from videop2r_data.media import DecodePool, MediaProbe
from videop2r_data.schemas.recipe import MediaSpec, Recipe, SourceSpec
from videop2r_data.schemas.sample import DataType
from videop2r_data.schemas.verdict import RejectReason

__all__ = ["CheckReport", "Progress", "check_folder", "check_pool", "check_recipe", "doctor"]

Progress = Callable[[str, int, int], None]
"""Called with source name, files done, files in all, after each file."""
VIDEO_ENDINGS = frozenset((
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".f4v", ".wmv", ".asf",
    ".mpg", ".mpeg", ".vob", ".ts", ".m2ts", ".mts", ".3gp", ".3g2", ".ogv", ".ivf"
))  # fmt: skip
IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".heic", ".heif", ".avif")
)


async def check_recipe(
    recipe: Recipe,
    place: Workspace,
    *,
    deep: bool = False,
    calls: Calls = "one-frame",
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda _: None,
    on_file: OnFile | None = None,
) -> CheckReport:
    """Everything at once: a fault of one part does not keep the others from being looked at.

    Args:
        recipe: what would be built.
        place: where.
        deep: decode every frame of every file.
        calls: what to ask the servers; see `Calls`.
        progress: see `Progress`.
        tell: is told what is being waited for.
        on_file: is given every file and every bad row, in the order of the pool.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    rows = TrialRows()
    report = await check_pool(
        recipe,
        base=place.base,
        demo_root=place.demo,
        deep=deep,
        progress=progress,
        on_file=on_file,
        trial=rows,
    )
    setup = look_at_setup(recipe, place, rows=rows.good)
    servers = await look_at_servers(recipe, place, rows, calls=calls, tell=tell)
    return report.joined(setup, servers)


async def doctor(
    recipe: Recipe, place: Workspace, *, calls: Calls = "full", tell: Callable[[str], None] = lambda _: None
) -> DoctorReport:
    """Settings and servers, with the requests of a real build; of the media only those that a request needs.

    Args:
        recipe: what would be built.
        place: where; nothing is written there (a demo world, if the recipe asks for one).
        calls: what to ask the servers.
        tell: is told what is being waited for.
    """
    rows = TrialRows()
    tell("reading the pool")
    tallies = [Tally(spec.name, spec.kind) for spec in recipe.sources]
    for spec, tally in zip(recipe.sources, tallies, strict=True):
        _read(tally, spec, base=place.base, demo_root=place.demo, trial=rows)
    setup = look_at_setup(recipe, place, rows=rows.good)
    setup += [tally.finding() for tally in tallies]
    servers = await look_at_servers(recipe, place, rows, calls=calls, tell=tell)
    return DoctorReport(
        ok=no_error(setup) and all(server.ok for server in servers),
        setup=setup,
        servers=servers,
        calls_usd=sum(call.usd for server in servers for call in server.calls),
    )


async def check_pool(
    recipe: Recipe,
    *,
    base: Path,
    demo_root: Path | None = None,
    deep: bool = False,
    progress: Progress | None = None,
    on_bad: OnBad | None = None,
    on_file: OnFile | None = None,
    trial: TrialRows | None = None,
) -> CheckReport:
    """Read every source and look once at every media file that its rows need.

    Memory grows by about 250 bytes a row and 300 bytes a file (260,000 rows over 100,000 files: 100 MB).
    The report does not depend on the number of decoder processes. Files are looked at with PyAV, whatever
    decoder the recipe names.

    Args:
        recipe: what to check; its media settings give the limits.
        base: folder of the recipe.
        demo_root: where demo worlds lie or are written.
        deep: decode every frame: finds damage inside complete files, at about 100 times the work.
        progress: see `Progress`.
        on_bad: called with the source's name and every bad row and bad file, the latter with all its rows;
            the report itself names only the first of each kind.
        on_file: called with every file and every bad row, in the order of the pool.
        trial: takes in the rows that a trial call may be about.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    checks = []
    async with _probes(recipe.media) as pool:
        for spec in recipe.sources:
            tally = Tally(spec.name, spec.kind, on_file)
            _read(tally, spec, base=base, demo_root=demo_root, trial=trial, on_bad=on_bad)
            await _probe_all(tally, pool, deep=deep, progress=progress)
            checks.append(tally.result(on_bad))
    return CheckReport.of(checks, deep=deep)


async def check_folder(
    folder: Path,
    *,
    deep: bool = False,
    progress: Progress | None = None,
    on_file: OnFile | None = None,
) -> CheckReport:
    """Look at every clip and image of a folder and of those in it, without a recipe.

    What a file is, is told by its ending; hidden files and other endings are left out and counted.

    Raises:
        ConfigError: no decoder process can be started here.
    """
    tally = Tally(folder.resolve().name or "folder", "folder", on_file)
    tally.root = folder
    for path in sorted(folder.rglob("*")):
        shown = path.relative_to(folder)
        if any(part.startswith(".") for part in shown.parts) or not path.is_file():
            continue
        ending = path.suffix.lower()
        if ending in VIDEO_ENDINGS or ending in IMAGE_ENDINGS:
            tally.add_file(shown.as_posix(), DataType.VIDEO if ending in VIDEO_ENDINGS else DataType.IMAGE)
        else:
            tally.left_out += 1
    if not tally.files:
        tally.error = "no clip and no image in it\n  name a folder of media, or the YAML file of a recipe"
    async with _probes(MediaSpec()) as pool:
        await _probe_all(tally, pool, deep=deep, progress=progress)
    return CheckReport.of([tally.result()], deep=deep)


def _probes(media: MediaSpec) -> DecodePool:
    """Decoder processes for probes: those are made by PyAV, so that a missing decord hides no other fault."""
    return DecodePool(media.model_copy(update={"decoder": "pyav"}), want="encoded")


def _read(
    tally: Tally,
    spec: SourceSpec,
    *,
    base: Path,
    demo_root: Path | None,
    trial: TrialRows | None,
    on_bad: OnBad | None = None,
) -> None:
    try:
        source = open_source(spec, base=base, demo_root=demo_root)
        tally.root = source.media_root
    except P2RError as error:
        tally.error = str(error)
        return
    tally.read(source.rows(), trial, on_bad)
    tally.note = source.note


async def _probe_all(tally: Tally, pool: DecodePool, *, deep: bool, progress: Progress | None) -> None:
    """Look at every file of a source, as many at a time as there are decoder processes."""
    todo = iter(enumerate(tally.files))
    done = 0

    async def worker() -> None:
        nonlocal done
        for index, (path, data_type) in todo:
            try:
                tally.found(index, data_type, await _probe(tally.root, pool, path, data_type, deep=deep))
            except MediaError as error:
                tally.failed(index, error)
            done += 1
            if progress:
                progress(tally.name, done, len(tally.files))

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(pool.workers, len(tally.files))):
                group.create_task(worker())
    except BaseExceptionGroup as group_error:  # one cause is enough, and callers know its type
        raise _first(group_error) from None


async def _probe(
    root: Path | None, pool: DecodePool, path: str, data_type: DataType, *, deep: bool
) -> MediaProbe:
    if root is None:
        raise MediaError(
            "the source has no media_root: set it in the recipe",
            reason=RejectReason.MEDIA_MISSING,
            where=path,
        )
    file = resolve_media(root, path)
    return await pool.probe(file, "video" if data_type is DataType.VIDEO else "image", deep)


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    return next(_leaves(group))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
