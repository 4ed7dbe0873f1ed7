"""A clip's container: what its bytes say before a decoder sees them, and opening it as hostile."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from videop2r_data.errors import MediaError
from videop2r_data.media.geometry import check_size, media_error
from videop2r_data.schemas import MediaLimits, RejectReason

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.codeccontext import VideoCodecContext
    from av.video.stream import VideoStream


# A file that is cut short or has a hole.
#
# A demuxer that meets garbage looks for the next thing it knows and goes on without a word. The sizes that
# containers state of their parts tell how many bytes were passed over, or are not there. Read-only and
# bounded.


_MAX_PARTS = 5_000_000
_EBML = b"\x1a\x45\xdf\xa3"
_CLUSTER_ID = b"\x1f\x43\xb6\x75"
_SEARCH = 1 << 12
_SEARCH_STEP = 1 << 20
_SEARCH_MAX = 256 << 20
_ISO_TYPES = frozenset(
    (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"moof", b"styp", b"pnot", b"sidx", b"uuid")
)
_FRAGMENT_TYPES = _ISO_TYPES | {b"mfra", b"emsg", b"prft", b"ssix", b"meta"}


@dataclass(frozen=True, slots=True)
class Layout:
    """What the sizes that a container states of its parts say about the file.

    Attributes:
        cut: the sizes reach beyond the end of the file, or the index is missing.
        lost: bytes that are missing or belong to no part, in the middle or at the end.
        whole: bytes that the complete file would have at least.
        counted: the sizes say how much is missing; False: the file breaks off inside a part, and what should
            have followed is unknown.
        foreign: a second file is joined to this one and no demuxer tells them apart: its packets are left out
            (flv), or given to a decoder that is set up for the first file (mkv with other tracks).
    """

    cut: bool = False
    lost: int = 0
    whole: int = 1
    counted: bool = True
    foreign: bool = False

    @property
    def share(self) -> float:
        """Share of the bytes that is lost, 0 to 1."""
        return min(1.0, self.lost / max(1, self.whole))


def layout_of(path: Path) -> Layout:
    """Walk the parts of an mp4, avi, mkv, webm, flv, ivf or gif file; any other one is taken as it is."""
    with path.open("rb") as file:
        reader = _Reader(file.fileno(), os.fstat(file.fileno()).st_size)
        head = reader.read(0, 12)
        if head[4:8] in _ISO_TYPES:
            return _iso(reader)
        if head[:4] == b"RIFF" and len(head) >= 8:
            whole = int(struct.unpack("<I", head[4:8])[0]) + 8
            return Layout(whole > reader.size, max(0, whole - reader.size), max(whole, reader.size))
        if head[:4] == _EBML:
            return _Matroska(reader).layout()
        if head[:3] == b"FLV":
            return _tags(reader, int.from_bytes(head[5:9], "big") + 4)
        if head[:4] == b"DKIF":
            return _ivf(reader)
        if head[:4] == b"GIF8":
            return _gif(reader)
    return Layout()


@dataclass(frozen=True, slots=True)
class _Reader:
    descriptor: int
    size: int

    def read(self, at: int, count: int) -> bytes:
        """So many bytes from an offset on, fewer at the end."""
        return os.pread(self.descriptor, count, at)

    def find(self, fits: Callable[[int], bool], mark: bytes, start: int, end: int) -> int | None:
        """The next place of `mark` that `fits` accepts; None: there is none before `end`."""
        end = min(end, start + _SEARCH_MAX)
        step = _SEARCH  # a short piece first: a hostile file can have garbage behind every part
        while start < end:
            data = self.read(start, min(step, end - start) + len(mark))
            at = data.find(mark)
            while at >= 0:
                if fits(start + at):
                    return start + at
                at = data.find(mark, at + 1)
            start, step = start + step, min(2 * step, _SEARCH_STEP)
        return None


def _iso(reader: _Reader) -> Layout:
    at, lost = 0, 0
    seen: set[bytes] = set()
    for _ in range(_MAX_PARTS):
        if at + 8 > reader.size:
            break
        length, kind = struct.unpack(">I4s", reader.read(at, 8))
        if length == 1:
            wide = reader.read(at + 8, 8)
            if len(wide) < 8:
                return Layout(True, 1, reader.size + 1, False)
            length = int.from_bytes(wide, "big")
        elif length == 0:
            length = reader.size - at
        if length < 8 or (b"moof" in seen and kind not in _FRAGMENT_TYPES):
            # Padding behind the last part is no loss; fragments behind garbage are: data between is lost.
            # The search begins behind the name of this very part, which may be `moof` with a size that no
            # part has.
            again = reader.find(lambda p: True, b"moof", at + 5, reader.size) if b"moof" in seen else None
            if again is None:
                break
            lost += again - 4 - at
            at = again - 4
            continue
        seen.add(kind)
        if at + length > reader.size:
            whole = at + length
            return Layout(True, lost + whole - reader.size, whole, b"moof" not in seen)
        at += length
    index_lost = b"moov" not in seen and b"mdat" in seen
    return Layout(index_lost, lost, reader.size)


def _tags(reader: _Reader, at: int) -> Layout:
    """FLV: tags with their size before and behind."""
    lost = 0
    for _ in range(_MAX_PARTS):
        head = reader.read(at, 11)
        if len(head) < 11:
            break
        length = int.from_bytes(head[1:4], "big")
        if head[:3] == b"FLV":
            return Layout(False, lost, reader.size, foreign=True)
        if head[0] & 31 not in (8, 9, 18) or head[0] & 0xC0:
            again = reader.find(lambda p: _is_tag(reader, p), b"\x09", at, reader.size)
            if again is None:
                break
            lost, at = lost + again - at, again
            continue
        if at + 11 + length > reader.size:
            whole = at + 11 + length
            return Layout(True, lost + whole - reader.size, whole, False)
        at += 15 + length
    return Layout(False, lost, reader.size)


def _is_tag(reader: _Reader, at: int) -> bool:
    head = reader.read(at, 11)
    length = int.from_bytes(head[1:4], "big")
    behind = int.from_bytes(reader.read(at + 11 + length, 4), "big")
    return len(head) == 11 and length > 0 and head[8:11] == b"\0\0\0" and behind == 11 + length


def _ivf(reader: _Reader) -> Layout:
    at = int.from_bytes(reader.read(6, 2), "little")
    for _ in range(_MAX_PARTS):
        head = reader.read(at, 12)
        if len(head) < 12:
            break
        at += 12 + int.from_bytes(head[:4], "little")
    return Layout(at > reader.size, max(0, at - reader.size), max(at, reader.size), False)


def _gif(reader: _Reader) -> Layout:
    """GIF: blocks of at most 255 bytes. A missing end mark alone is no loss; a block that breaks off is."""
    at = 13 + _colours(reader.read(10, 1))
    for _ in range(_MAX_PARTS):
        kind = reader.read(at, 1)
        if kind == b"\x2c":
            at += 11 + _colours(reader.read(at + 9, 1))
        elif kind == b"\x21":
            at += 2
        else:
            break
        while (length := reader.read(at, 1)) not in (b"", b"\0"):
            at += 1 + length[0]
        at += 1
    return Layout(at > reader.size, max(0, at - reader.size), max(at, reader.size), False)


def _colours(flags: bytes) -> int:
    """Bytes of the colour table that these flags announce."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


_HEADER, _SEGMENT, _TRACKS, _CLUSTER = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0x1F43B675
_TOP = frozenset(
    (0x114D9B74, 0x1549A966, _TRACKS, _CLUSTER, 0x1C53BB6B, 0x1941A469, 0x1043A770, 0x1254C367, 0xEC, 0xBF)
)
"""Seek head, info, tracks, cluster, cues, attachments, chapters, tags, void, checksum."""
_IN_CLUSTER = frozenset((0xE7, 0xA7, 0xAB, 0xA3, 0xA0, 0xAF, 0x5854, 0xEC, 0xBF))
"""Time, position, previous size, blocks (plain, grouped, encrypted), silent tracks, void, checksum."""

_NESTED = frozenset((0xAE, 0xE0))
"""Track, video."""
_DEPTH = 2
"""How deep these two lie in each other."""
_MAX_SETTING = 1 << 20
"""Bytes of a setting that are compared."""
_SETTINGS = frozenset((0x86, 0x63A2, 0xB0, 0xBA))
"""Codec, its private data, width, height."""
_SELF_CONTAINED = frozenset((b"V_VP8", b"V_VP9", b"V_AV1"))


class _Matroska:
    """The elements of a segment and of its clusters."""

    def __init__(self, reader: _Reader) -> None:
        self._reader = reader
        self._lost = 0

    def layout(self) -> Layout:
        """What the container says of its parts."""
        size = self._reader.size
        segment = self._segment(0)
        if segment is None:
            return Layout(whole=size)
        start, length = segment
        end = size if length is None else start + length
        broke = self._walk(start, min(end, size))
        if end > size:
            return Layout(True, self._lost + end - size, end)
        if broke > size:
            return Layout(True, self._lost + broke - size, broke, False)
        second = self._segment(broke)
        foreign = second is not None and self._tracks(second[0]) != self._tracks(start)
        return Layout(False, self._lost, size, foreign=foreign)

    def _segment(self, at: int) -> tuple[int, int | None] | None:
        """Start of the content and size of the segment of the file that begins here."""
        head = self._element(at)
        if head is None or head[0] != _HEADER or head[1] is None:
            return None
        segment = self._element(head[2] + head[1])
        return (segment[2], segment[1]) if segment is not None and segment[0] == _SEGMENT else None

    def _tracks(self, at: int) -> list[tuple[int, bytes]]:
        """The settings of each track's decoder; empty for codecs whose key frames hold their own."""
        for _ in range(_MAX_PARTS):
            part = self._element(at)
            kind, length, start = part or (_CLUSTER, None, at)
            if kind not in _TOP or kind == _CLUSTER or length is None:
                break
            if kind == _TRACKS:
                told = list(self._settings(start, min(start + length, self._reader.size)))
                return [] if any(value in _SELF_CONTAINED for _, value in told) else told
            at = start + length
        return []

    def _settings(self, at: int, end: int, depth: int = _DEPTH) -> Iterator[tuple[int, bytes]]:
        while at < end:
            part = self._element(at)
            kind, length, start = part or (0, None, at)
            if length is None or start + length > end:
                return
            if kind in _NESTED and depth:
                yield from self._settings(start, start + length, depth - 1)
            elif kind in _SETTINGS:
                yield kind, self._reader.read(start, min(length, _MAX_SETTING))
            at = start + length

    def _element(self, at: int) -> tuple[int, int | None, int] | None:
        """Id, size (None: unknown) and start of the content."""
        data = self._reader.read(at, 12)
        if not data or not data[0]:
            return None
        wide = 9 - data[0].bit_length()
        if wide > 4 or len(data) <= wide or not data[wide]:
            return None
        kind = int.from_bytes(data[:wide], "big")
        length = 9 - data[wide].bit_length()
        mask = (1 << (7 * length)) - 1
        value = int.from_bytes(data[wide : wide + length], "big") & mask
        return kind, None if value == mask else value, at + wide + length

    def _walk(self, at: int, end: int) -> int:
        """Walk the parts of the segment; returns where the last one ends."""
        for _ in range(_MAX_PARTS):
            if at >= end:
                break
            part = self._element(at)
            if part is not None and part[0] == _HEADER:
                break  # A second file, joined to this one.
            if part is None or part[0] not in _TOP:
                again = self._next_cluster(at + 1, end)
                if again is None:
                    break  # Nothing that this segment lost: padding, or a second segment.
                self._lost += again - at
                at = again
                continue
            kind, length, start = part
            stop = end if length is None else start + length
            at = self._cluster(start, min(stop, end), length is None) if kind == _CLUSTER else stop
            if length is not None:
                at = stop if stop > end else max(at, stop)
        return at

    def _cluster(self, at: int, stop: int, open_end: bool) -> int:
        """Walk the blocks of a cluster; returns where it ends."""
        while at < stop:
            block = self._element(at)
            if open_end and block is not None and block[0] in (_TOP | {_HEADER}) - _IN_CLUSTER:
                return at
            sound = block is not None and block[0] in _IN_CLUSTER and block[1] is not None
            after = block[2] + (block[1] or 0) if block is not None else at
            if not sound or (after > stop and not open_end):
                if open_end:
                    return at
                self._lost += stop - at
                return stop
            at = after
        return at

    def _next_cluster(self, at: int, end: int) -> int | None:
        def fits(place: int) -> bool:
            found = self._element(place)
            return found is not None and (found[1] is None or found[2] + found[1] <= self._reader.size)

        return self._reader.find(fits, _CLUSTER_ID, at, end)


# Encryption that a container announces.


_CONTENT_ENCODINGS = b"\x6d\x80"
_CONTENT_ENCRYPTION = b"\x50\x35"
_HEAD = 1 << 20
_TS_PACKET = 188


def _is_encrypted(path: Path) -> bool:
    """Whether a Matroska header announces encrypted tracks, or most MPEG-TS packets are scrambled.

    Common encryption in mp4 is seen in the packets (`packets.read_index`), not here.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    if head[:4] == _EBML:
        tracks = head[: head.find(_CLUSTER_ID)] if _CLUSTER_ID in head else head
        at = tracks.find(_CONTENT_ENCODINGS)
        return at >= 0 and _CONTENT_ENCRYPTION in tracks[at : at + 64]
    if head[:1] == b"\x47" and head[_TS_PACKET : _TS_PACKET + 1] == b"\x47":
        flags = [head[i + 3] for i in range(0, len(head) - 4, _TS_PACKET) if head[i] == 0x47]
        scrambled = sum(1 for flag in flags if flag & 0x80)
        return 2 * scrambled > len(flags)
    return False


# Opening a clip with PyAV: hostile until its header, its streams and its packets have been looked at.


# No playlist (hls, dash, concat), no device, no protocol: a clip that names other files opens none of them.
_DEMUXERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,flv,live_flv,mpegts,mpeg,mpegvideo,asf,ogg,rm,wtv,nut,nsv,"
    "h264,hevc,m4v,ivf,dv,mxf,swf,vob,amv,obu,av1,apng,jpeg_pipe,png_pipe,webp_pipe"
)
_OPTIONS = {
    "protocol_whitelist": "file",
    "format_whitelist": _DEMUXERS,
    # Opening decodes up to 20 frames only to guess a rate; the rate is computed from the timestamps instead.
    "fpsprobesize": "0",
}


@contextmanager
def open_video(path: Path, limits: MediaLimits) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Open a clip and choose its video stream: the largest picture, cover art aside.

    Decoding is set to one thread and to arithmetic that does not depend on the processor.

    Raises:
        MediaError: unreadable, truncated, encrypted, no video, too large.
    """
    import av
    from av.stream import Discard

    try:
        # The prefix keeps a name with a colon in it from being read as a protocol.
        container = av.open(f"file:{path.absolute()}", metadata_errors="replace", options=dict(_OPTIONS))
    except MemoryError:
        raise
    except (av.FFmpegError, ValueError, OSError) as error:
        raise _unreadable(path, error) from None
    with container:
        stream = _choose(container, path)
        _check_header(container, stream, path, limits)
        for other in container.streams:
            # The demuxer skips the packets of all other streams, sound above all.
            if other.index != stream.index:
                other.discard = Discard.all
        _set_up(stream.codec_context, limits)
        yield container, stream


def _set_up(context: VideoCodecContext, limits: MediaLimits) -> None:
    from av.codec.context import Flags

    context.thread_count = 1
    context.thread_type = "NONE"
    context.flags |= int(Flags.bitexact)
    # The header's size was checked; a stream can still grow in its middle.
    options = {"max_pixels": str(limits.max_side**2)}
    if context.codec.name == "mjpeg":
        # Else a damaged picture comes without an error, its rest from whatever was decoded before it.
        options["err_detect"] = "explode"
    context.options = {**context.options, **options}


def _unreadable(path: Path, error: Exception) -> MediaError:
    text = getattr(error, "strerror", None) or str(error)
    if layout_of(path).cut:
        message = f"cut short: its header or index is lost ({text})"
        return media_error(RejectReason.MEDIA_TRUNCATED, message, path)
    if _is_encrypted(path):
        return media_error(RejectReason.MEDIA_ENCRYPTED, "encrypted", path)
    return media_error(RejectReason.MEDIA_UNREADABLE, f"no container that can be read ({text})", path)


def _choose(container: InputContainer, path: Path) -> VideoStream:
    from av.stream import Disposition

    streams = [
        s
        for s in container.streams.video
        if not s.disposition & (Disposition.attached_pic | Disposition.timed_thumbnails)
    ]
    if not streams:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "none"
        raise media_error(RejectReason.MEDIA_NO_VIDEO, f"no video stream (streams: {kinds})", path)
    usable = [s for s in streams if s.codec_context is not None]
    if not usable:
        raise media_error(RejectReason.MEDIA_UNREADABLE, "no decoder for its video codec", path)
    return max(usable, key=lambda s: (s.codec_context.width * s.codec_context.height, -s.index))


def _check_header(container: InputContainer, stream: VideoStream, path: Path, limits: MediaLimits) -> None:
    context = stream.codec_context
    if _is_encrypted(path):
        raise media_error(RejectReason.MEDIA_ENCRYPTED, "encrypted", path)
    check_size(context.width, context.height, path, limits)
    if container.duration is not None and container.duration > limits.max_duration_s * 1_000_000:
        raise media_error(
            RejectReason.MEDIA_TOO_LARGE,
            f"lasts {container.duration / 1e6:.0f} s, limits.max_duration_s allows {limits.max_duration_s:g}",
            path,
        )
