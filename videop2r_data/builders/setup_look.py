"""What a build needs on this machine, looked at without a call: prompts, decoder, folders, disk, prices."""

from __future__ import annotations

import ipaddress
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from yarl import URL

from videop2r_data.backends.judge_requests import JudgeRequests
from videop2r_data.builders.export import check_ours
from videop2r_data.builders.findings import Finding, of_error
from videop2r_data.builders.requests import RequestBuilder
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import P2RError
from videop2r_data.schemas.recipe import BackendSpec, Recipe

BYTES_PER_ROW = 8 * 1024
"""Disk per row and attempt, generously: journal, the new data set, and the old one until it is replaced."""
LOW_BYTES = 2**30
_CODECS = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP8": ("vp8", "libvpx"),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1"),
    "MPEG-4": ("mpeg4",),
}
"""What clips of the usual data sets are made of, and the decoders that read it."""


def look_at_setup(recipe: Recipe, place: Workspace, *, rows: int) -> list[Finding]:
    """Everything that can be known without a server.

    Args:
        recipe: what would be built.
        place: where; nothing is written there but one temporary file that is taken away again.
        rows: good rows of the pool, for the room that a build needs.
    """
    return [
        *_prompts(recipe, place),
        *_decoder(recipe),
        *_folders(place),
        *_disk(recipe, place, rows),
        *_prices(recipe),
    ]


def _prompts(recipe: Recipe, place: Workspace) -> Iterator[Finding]:
    """Each prompt by itself, so that a fault of one does not hide the other's."""
    names = [recipe.generate.prompt]
    errors = []
    try:
        RequestBuilder(recipe.model_copy(update={"judge": None}), place.base)
    except P2RError as error:
        errors.append(of_error("prompts", error, hint="change generate.prompt in the recipe"))
    if recipe.judge is not None:
        names.append(recipe.judge.prompt)
        try:
            JudgeRequests(recipe.judge, place.base)
        except P2RError as error:
            errors.append(of_error("prompts", error, hint="change judge.prompt in the recipe"))
    yield from errors
    if not errors:
        yield Finding(about="prompts", state="ok", message=f"prompts render: {', '.join(names)}")


def _decoder(recipe: Recipe) -> Iterator[Finding]:
    import av

    if recipe.media.decoder == "decord":
        from videop2r_data.media.video import require_decord

        try:
            require_decord()
        except P2RError as error:
            yield of_error("decoder", error)
    missing = [name for name, ways in _CODECS.items() if not av.codecs_available & set(ways)]
    if missing:
        yield Finding(
            about="decoder",
            state="warning",
            message=f"PyAV {av.__version__} has no decoder for {', '.join(missing)}",
            hint="install PyAV's own wheel: pip install --force-reinstall --only-binary av av",
        )
    else:
        known = ", ".join(_CODECS)
        yield Finding(about="decoder", state="ok", message=f"decoder {recipe.media.decoder} reads {known}")


def _folders(place: Workspace) -> Iterator[Finding]:
    failed = False
    for look in (place.check, lambda: check_ours(place.out)):
        try:
            look()
        except P2RError as error:
            failed = True
            yield of_error("folders", error)
    for folder, flag in ((place.out, "--out"), (place.work, "--work")):
        try:
            _write_in(_nearest(folder))
        except OSError as error:
            failed = True
            yield Finding(
                about="folders",
                state="error",
                message=f"{folder} cannot be written: {error.strerror or error}",
                hint=f"choose another folder with {flag}, or give yourself the right to write",
            )
    if not failed:
        yield Finding(
            about="folders", state="ok", message=f"folders can be written: {place.out}, {place.work}"
        )


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists: the build makes those between."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _write_in(folder: Path) -> None:
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".p2r-check-") as file:
        file.write(b"can be written")


def _disk(recipe: Recipe, place: Workspace, rows: int) -> Iterator[Finding]:
    need = rows * recipe.generate.attempts * BYTES_PER_ROW
    seen: set[int] = set()
    for folder in map(_nearest, (place.work, place.out)):
        try:
            device, free = folder.stat().st_dev, shutil.disk_usage(folder).free
        except OSError:
            continue  # told by the folders
        if device in seen:
            continue
        seen.add(device)
        told = (
            f"{free / 1e9:,.1f} GB free at {folder}, {rows:,} rows need about {max(need / 1e9, 0.1):,.1f} GB"
        )
        if free < need:
            hint = "free some space, or choose other folders with --out and --work"
            yield Finding(about="disk", state="error", message=told, hint=hint)
        elif free < max(2 * need, LOW_BYTES):
            yield Finding(
                about="disk", state="warning", message=told, hint="free some space before the build"
            )
        else:
            yield Finding(about="disk", state="ok", message=told)


def _prices(recipe: Recipe) -> Iterator[Finding]:
    """A service that bills, and no price to count by: `--max-cost` would hold nothing of it."""
    for step, spec in _backends(recipe):
        if spec.price is None and _bills(spec):
            yield Finding(
                about="price",
                state="warning",
                message=f"{step}.backend has no price: its calls count as free everywhere",
                hint="add price: {input: ..., output: ...}, US dollars per million tokens",
            )


def _backends(recipe: Recipe) -> Iterator[tuple[str, BackendSpec]]:
    yield "generate", recipe.generate.backend
    if recipe.judge is not None:
        yield "judge", recipe.judge.backend


def _bills(spec: BackendSpec) -> bool:
    """Whether the server is somebody else's, by its address."""
    if spec.kind == "anthropic" and not spec.base_url:
        return True
    if spec.kind not in ("openai", "anthropic"):
        return False
    try:
        host = URL(spec.base_url or "").host or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".lan", ".localhost"))
