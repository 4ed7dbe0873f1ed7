"""Ways to get N frames out of a clip, and their CPU time: the processes of `frames.py`.

    python -m benchmarks._frames_methods METHOD N REPEAT <sizes.json

One method, one thread. The Python of `.venv-readers` runs those of other libraries, so nothing is imported
here that it lacks; each method imports its own. `sizes.json` maps the path of a clip to the height and
width that its frames are wanted in; this package and qwen-vl-utils find them themselves, by the same rule
and limits.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

MAX_PIXELS = 128 * 28 * 28
MIN_PIXELS = 4 * 28 * 28
Size = tuple[int, int]
"""Height and width."""


class Method(NamedTuple):
    """A way to get frames: (path, number of frames, their size) to frames."""

    label: str
    run: Callable[[str, int, Size], object]
    packages: tuple[str, ...] = ("av",)
    """What it depends on, for the record."""
    elsewhere: bool = False
    """It runs in `.venv-readers`."""
    convert: bool = True
    """It gives pixels, of as many frames as are wanted."""


def decode_everything(path: str, n: int, size: Size) -> object:
    """The floor: every frame decoded in order, nothing converted."""
    import av

    with av.open(path, metadata_errors="replace") as container:
        return sum(1 for _ in container.decode(_largest(container)))


def decode_everything_convert(path: str, n: int, size: Size) -> object:
    """The straightforward right way: count packets, decode, convert the wanted ones with swscale."""
    import av
    import numpy as np

    from videop2r_data.media import uniform_indices

    wanted = set(uniform_indices(_packets(path), n))
    height, width = size
    arrays = []
    with av.open(path, metadata_errors="replace") as container:
        for i, frame in enumerate(container.decode(_largest(container))):
            if i in wanted:
                scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="BICUBIC")
                arrays.append(scaled.to_ndarray())
    return np.stack(arrays)


def _largest(container: Any) -> Any:
    """The largest video stream, decoded by one thread."""
    stream = max(container.streams.video, key=lambda s: s.codec_context.width * s.codec_context.height)
    stream.codec_context.thread_count = 1
    stream.codec_context.thread_type = "NONE"
    return stream


def _packets(path: str) -> int:
    import av

    with av.open(path, metadata_errors="replace") as container:
        return sum(1 for p in container.demux(_largest(container)) if p.size and not p.is_discard)


def ours(path: str, n: int, size: Size) -> object:
    """This package, from the file to pixels and their record (both digests included)."""
    from videop2r_data.media import sample_media
    from videop2r_data.schemas import MediaSpec

    return sample_media(Path(path), "video", MediaSpec(frames=n), want="array")


def ours_jpeg(path: str, n: int, size: Size) -> object:
    """The same, to JPEG pictures."""
    from videop2r_data.media import sample_media
    from videop2r_data.schemas import MediaSpec

    return sample_media(Path(path), "video", MediaSpec(frames=n), want="encoded")


def spread(total: int, n: int) -> list[int]:
    """`n` frames of `total`, the first and the last among them, evenly.

    >>> spread(9, 3)
    [0, 4, 8]
    """
    import numpy as np

    return [int(i) for i in np.linspace(0, total - 1, n).round()]


def decord(path: str, n: int, size: Size) -> object:
    """decord, scaled while decoding."""
    import decord as lib

    reader = lib.VideoReader(path, height=size[0], width=size[1], num_threads=1)
    return reader.get_batch(spread(len(reader), n)).asnumpy()


def torchcodec(path: str, n: int, size: Size) -> object:
    """torchcodec, scaled while decoding; it scans the file first, so that frame i is frame i."""
    return _torchcodec(path, n, size, "exact")


def torchcodec_approximate(path: str, n: int, size: Size) -> object:
    """The same without the scan: where a frame is follows from the header's frame rate."""
    return _torchcodec(path, n, size, "approximate")


def _torchcodec(path: str, n: int, size: Size, seek_mode: Any) -> object:
    from torchcodec.decoders import VideoDecoder
    from torchcodec.transforms import Resize

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, seek_mode=seek_mode, transforms=[Resize(size)])
    return decoder.get_frames_at(spread(len(decoder), n)).data


def qwen(path: str, n: int, size: Size) -> object:
    """qwen-vl-utils with its decord reader, as training scripts call it."""
    os.environ["FORCE_QWENVL_VIDEO_READER"] = "decord"
    import torch
    from qwen_vl_utils.vision_process import fetch_video

    torch.set_num_threads(1)
    return fetch_video({"video": path, "nframes": n, "min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS})


METHODS = {
    "floor": Method("decode everything, convert nothing", decode_everything, convert=False),
    "convert": Method("decode everything, convert N", decode_everything_convert),
    "ours": Method("this package", ours),
    "ours_jpeg": Method("this package, to JPEG", ours_jpeg),
    "decord": Method("decord", decord, ("decord",), elsewhere=True),
    "torchcodec": Method("torchcodec", torchcodec, ("torchcodec", "torch"), elsewhere=True),
    "torchcodec_approximate": Method(
        "torchcodec, approximate seeking", torchcodec_approximate, ("torchcodec", "torch"), elsewhere=True
    ),
    "qwen": Method("qwen-vl-utils (decord)", qwen, ("qwen-vl-utils", "decord", "torch"), elsewhere=True),
}


def main(argv: Sequence[str]) -> None:
    """Measure one method; one JSON object on stdout, whatever the libraries print goes to stderr."""
    name, n, repeat = argv[0], int(argv[1]), int(argv[2])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    method, sizes = METHODS[name], json.load(sys.stdin)
    times: dict[str, float | None] = {}
    for path, (height, width) in sizes.items():
        try:
            times[path] = best_time(method, path, n, (height, width), repeat)
        except Exception as error:
            said = " ".join(str(error).split())
            sys.stderr.write(f"{name}: {Path(path).name}: {type(error).__name__} {said[:200]}\n")
            times[path] = None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    versions = {package: version(package) for package in method.packages}
    json.dump({"times": times, "peak_mb": peak, "versions": versions}, out)
    out.close()


def best_time(method: Method, path: str, n: int, size: Size, repeat: int) -> float:
    """Least CPU seconds of so many runs, after one that imports and fills caches."""
    method.run(path, n, size)
    taken = []
    for _ in range(repeat):
        start = time.process_time()
        method.run(path, n, size)
        taken.append(time.process_time() - start)
    return min(taken)


if __name__ == "__main__":
    main(sys.argv[1:])
