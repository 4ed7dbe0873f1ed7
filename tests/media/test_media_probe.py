"""What `check` sees."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.media.clips import cut, damage_slices, write_audio, write_clip
from tests.shared import media_dir
from videop2r_data.errors import MediaError
from videop2r_data.media import probe_media
from videop2r_data.schemas.media import MediaLimits, MediaSpec

LIMITS = MediaLimits()


def test_a_sound_clip(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", rotation=90)
    for deep in (False, True):
        probe = probe_media(path, "video", LIMITS, deep=deep)
        assert (probe.width, probe.height, probe.rotation) == (120, 160, 90)
        assert (probe.codec, probe.frames, probe.frames_counted) == ("h264", 48, True)
        assert (probe.fps, probe.duration_s, probe.warnings) == (24.0, 2.0, [])
        assert probe.file_bytes == path.stat().st_size


def test_a_clip_that_must_be_decoded_in_order(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.avi", codec="mpeg4")
    probe = probe_media(path, "video", LIMITS)
    assert (probe.frames, probe.frames_counted) == (48, False)
    assert any("decoded in order" in w for w in probe.warnings)
    assert probe_media(path, "video", LIMITS, deep=True).frames_counted


def test_named_errors(tmp_path: Path) -> None:
    whole = write_clip(tmp_path / "a.mp4", container_options={"movflags": "faststart"})
    cut(whole, tmp_path / "cut.mp4", 0.6)
    write_audio(tmp_path / "sound.mp4")
    (tmp_path / "page.mp4").write_text("<html>404</html>")
    (tmp_path / "empty.mp4").touch()
    expected = {
        "cut.mp4": "media_truncated",
        "sound.mp4": "media_no_video",
        "page.mp4": "media_unreadable",
        "empty.mp4": "media_empty",
        "none.mp4": "media_missing",
    }
    for name, reason in expected.items():
        with pytest.raises(MediaError) as caught:
            probe_media(tmp_path / name, "video", LIMITS)
        assert caught.value.reason == reason, name


def test_damage_inside_needs_a_deep_look(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "a.mp4", size=(320, 240))
    damage_slices(path, range(12, 36))
    probe = probe_media(path, "video", LIMITS)
    assert (probe.frames, probe.missing) == (48, 0.0)
    with pytest.raises(MediaError) as caught:
        probe_media(path, "video", LIMITS, deep=True)
    assert caught.value.reason == "media_bad_packets"


def test_damage_that_the_packets_show_needs_none(tmp_path: Path) -> None:
    """A hole of zeros, as broken downloads leave it: the units of its packets do not add up."""
    path = write_clip(tmp_path / "a.mp4", size=(320, 240))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    size = data.index(b"moov") - start
    data[start + size // 4 : start + 3 * size // 4] = bytes(3 * size // 4 - size // 4)
    path.write_bytes(data)
    with pytest.raises(MediaError) as caught:
        probe_media(path, "video", LIMITS)
    assert caught.value.reason == "media_bad_packets"


def test_the_room_is_light() -> None:
    code = (
        "import sys, videop2r_data.media\n"
        "heavy = {'av', 'PIL', 'decord', 'torch', 'pyarrow', 'datasets'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_look_opens_a_file_once_and_sees_what_a_second_look_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from videop2r_data.media import container
    from videop2r_data.media import decode as inorder
    from videop2r_data.media.decode import first_frame

    folder = media_dir()
    made = [write_clip(tmp_path / "a.mp4", rotation=90), write_clip(tmp_path / "b.avi", codec="mpeg4")]
    clips = made + (sorted(folder.glob("*.m*")) if folder is not None else [])
    opened: list[Path] = []
    real = container.open_video

    def counted(path: Path, limits: MediaLimits) -> object:
        opened.append(path)
        return real(path, limits)

    seen = 0
    for clip in clips:
        opened.clear()
        with monkeypatch.context() as patch:
            patch.setattr(container, "open_video", counted)
            patch.setattr(inorder, "open_video", counted)
            try:
                probe = probe_media(clip, "video", LIMITS)
            except MediaError:
                continue
        assert opened == [clip]
        height, width, upright = first_frame(clip, MediaSpec())
        assert (probe.height, probe.width, probe.rotation) == (height, width, 90 * upright.turns)
        seen += 1
    assert seen >= 2
