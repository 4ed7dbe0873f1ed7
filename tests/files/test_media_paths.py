"""No path leaves its root, and a file is looked at before it is opened."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from videop2r_data.errors import MediaError
from videop2r_data.files.opening import file_size, resolve_media
from videop2r_data.schemas import safe_relative_path
from videop2r_data.schemas.media import MediaLimits


def test_plain_and_nested(tmp_path: Path) -> None:
    assert resolve_media(tmp_path, "./a//b.mp4") == tmp_path.resolve() / "a" / "b.mp4"


@pytest.mark.parametrize(
    "path",
    [
        "../a.mp4",
        "a/../../b",
        "/etc/passwd",
        "",
        ".",
        "C:\\a",
        "a\\b",
        "http://x/y",
        "a\x00b",
        "a\nb",
        "~/../..",
    ],
)
def test_bad_paths(tmp_path: Path, path: str) -> None:
    with pytest.raises(MediaError) as caught:
        resolve_media(tmp_path, path)
    assert caught.value.reason == "unsafe_path"


def test_links_are_followed_before_the_look(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    root = tmp_path / "root"
    outside.mkdir()
    root.mkdir()
    (outside / "secret.mp4").write_bytes(b"x")
    (root / "in.mp4").write_bytes(b"x")
    (root / "to_file.mp4").symlink_to(outside / "secret.mp4")
    (root / "to_folder").symlink_to(outside)
    (root / "round").symlink_to(root / "round")
    (root / "good.mp4").symlink_to(root / "in.mp4")
    for path in ("to_file.mp4", "to_folder/secret.mp4", "round"):
        with pytest.raises(MediaError) as caught:
            resolve_media(root, path)
        assert caught.value.reason == "unsafe_path"
    assert resolve_media(root, "good.mp4") == root.resolve() / "in.mp4"


def test_a_root_may_be_a_link(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (tmp_path / "root").symlink_to(real)
    assert resolve_media(tmp_path / "root", "a.mp4") == real.resolve() / "a.mp4"


def test_files_before_opening(tmp_path: Path) -> None:
    limits = MediaLimits(max_bytes=10)
    (tmp_path / "ok").write_bytes(b"x" * 10)
    (tmp_path / "empty").touch()
    (tmp_path / "large").write_bytes(b"x" * 11)
    os.mkfifo(tmp_path / "pipe")
    assert file_size(tmp_path / "ok", limits) == 10
    expected = {
        "none": "media_missing",
        "ok/below": "media_missing",
        "empty": "media_empty",
        "large": "media_too_large",
        # Opening a pipe would wait for a writer for ever.
        "pipe": "media_unreadable",
        ".": "media_unreadable",
        "x" * 300: "media_unreadable",
        "a\x00b": "media_unreadable",
    }
    for name, reason in expected.items():
        with pytest.raises(MediaError) as caught:
            file_size(tmp_path / name, limits)
        assert caught.value.reason == reason, name


@pytest.mark.parametrize("path", ["../x.mp4", "a/../../x.mp4", "a/..", "..", "./..", "a/../b.mp4"])
def test_no_path_of_a_row_goes_up(path: str) -> None:
    with pytest.raises(ValueError, match="never leaves its root"):
        safe_relative_path(path)
