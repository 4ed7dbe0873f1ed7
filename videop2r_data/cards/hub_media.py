"""The clips of a data set as files of its repository: only those whose licence lets them be passed on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from videop2r_data.cards.card_licence import media_held_back
from videop2r_data.cards.card_rows import SourceFacts
from videop2r_data.cards.hub_names import MEDIA
from videop2r_data.errors import HubError, MediaError
from videop2r_data.files.media_roots import resolve_media
from videop2r_data.schemas import BuildLock, safe_relative_path

_SHOWN = 5


def media_files(
    folder: Path, lock: BuildLock, roots: Mapping[str, Path], sources: Iterable[SourceFacts]
) -> dict[str, Path]:
    """Path in the repository -> clip, for every row of `sft` and `rl`.

    Args:
        folder: a checked data set.
        lock: its lock.
        roots: source name -> media root on this machine.
        sources: of its rows, with the licences of their media.

    Raises:
        HubError: a source's licence does not let its media be passed on, a root is not known, or a clip is
            missing or lies outside of its root.
    """
    if refused := media_held_back(sources):
        listed = ", ".join(f"{source.label} (media licence: {source.media.licence})" for source in refused)
        raise HubError(
            f"these sources' licences do not say that their media may be passed on: {listed}",
            where=str(folder),
            hint="leave out --embed-media; or, if you may pass them on, name the licence of each under "
            "`licenses` of the source in the recipe and build again (the journal makes that free)",
        )
    found: dict[str, Path] = {}
    missing: list[str] = []
    for source, path in sorted(set(media_rows(folder, lock))):
        if source not in roots:
            raise HubError(
                f"no media root is known for source {source!r}",
                where=str(folder),
                hint="add --base or --work",
            )
        try:
            file, inside = resolve_media(roots[source], path), safe_relative_path(path)
        except MediaError as error:
            raise HubError(error.message, where=f"{source}: {path}") from None
        if file.is_file():
            found[f"{MEDIA}/{source}/{inside}"] = file
        else:
            missing.append(f"{source}: {path}")
    if missing:
        raise HubError(
            f"{len(missing):,} clips are missing, the first: " + "; ".join(missing[:_SHOWN]),
            where=str(folder),
        )
    return found


def media_rows(folder: Path, lock: BuildLock) -> Iterator[tuple[str, str]]:
    """(source, path) of every row with media, of `sft` and `rl`; sources as `sample_id` names them."""
    import pyarrow.parquet as pq

    for name in lock.files:
        if name.startswith(("data/sft-", "data/rl-")):
            table = pq.read_table(folder / name, columns=["sample_id", "path"])
            for sample, path in zip(table["sample_id"].to_pylist(), table["path"].to_pylist(), strict=True):
                if path:
                    yield sample.partition("/")[0], path
